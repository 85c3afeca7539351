import csv
import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from drpwatch.errors import UsageError
from drpwatch.formats.mrc import write_mrc
from drpwatch.micrograph import PickParams
from drpwatch.pick.peaks import PeakRule
from drpwatch.pick.weights import load_weights
from drpwatch.train.calibrate import Reliability
from drpwatch.train.owned import OwnData, OwnMicrograph
from drpwatch.train.recipe import Ingredients, Kitchen, Recipe, cook

TINY = Recipe(
    name="tiny",
    detector="fcrn",
    averaging=0.5,
    seed=2,
    scenes=24,
    steps=4,
    batch=2,
    crop_px=64,
    classifier_steps=2,
    calibration_scenes=3,
    validation_scenes=1,
    invented=1,
    peaks=PeakRule(least_height=-1.0, least_prominence=-1.0),  # so little training finds hardly a peak
)


def make_small(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("drpwatch.train.dataset.SCENE_PX", 224)
    patch.setattr("drpwatch.train.dataset._LARGEST", 1)
    patch.setattr("drpwatch.train.recipe._FIELD_STEPS", 3)


@pytest.fixture(autouse=True)
def small_scenes(monkeypatch):
    make_small(monkeypatch)


class Told:
    """Notes what a run reports, and asks it to stop after some steps of a stage."""

    def __init__(self, stop_in: str = "", stop_after: int = 1) -> None:
        self.stages: dict[str, int] = {}
        self.said: list[str] = []
        self.stop = threading.Event()
        self._stop_in, self._stop_after = stop_in, stop_after

    def report(self, stage: str, done: int, total: int, loss: float) -> None:
        assert done <= total
        self.stages[stage] = done
        if stage == self._stop_in and done >= self._stop_after:
            self.stop.set()

    def kitchen(self, run_dir: Path) -> Kitchen:
        return Kitchen("cpu", run_dir, self.report, self.said.append, self.stop)


def run(recipe: Recipe, folder: Path, told: Told | None = None, ingredients: Ingredients | None = None):
    told = told or Told()
    return cook(
        recipe,
        ingredients or Ingredients(),
        {"command": "test"},
        folder / "tiny.safetensors",
        told.kitchen(folder / "run"),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run from beginning to end: its folder, what it told, and the description of its weights."""
    folder, told = tmp_path_factory.mktemp("whole"), Told()
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        info = run(TINY, folder, told)
    return folder, told, info


def test_a_recipe_ends_in_a_weights_file(whole):
    folder, told, info = whole
    for stage, done in (
        ("scenes", 24),
        ("detector", 4),
        ("classifier", 2),
        ("fields", 36),
        ("field judge 1", 3),
        ("field judge 5", 3),
        ("fields to calibrate on", 3),
    ):
        assert told.stages[stage] == done
    assert load_weights(folder / "tiny.safetensors").info == info
    assert info.provenance["command"] == "test"
    assert info.provenance["recipe"]["seed"] == 2
    assert info.provenance["recipe"]["detector"] == info.detector == "fcrn"
    assert 0 <= info.threshold <= 1
    assert sum(Reliability.from_dict(info.provenance["reliability"]).count) > 0


def test_a_run_leaves_its_curve_and_pictures(whole):
    folder, _, _ = whole
    (row,) = csv.DictReader((folder / "run/curve.csv").open())
    assert row["step"] == "4"
    assert float(row["simulated_loss"]) > 0
    assert row["own_f"] == ""
    assert (folder / "run/curve.png").read_bytes()[:4] == b"\x89PNG"
    assert (folder / "run/scenes.png").read_bytes()[:4] == b"\x89PNG"
    assert not list((folder / "run").glob("*.safetensors"))


@pytest.mark.parametrize(("stage", "steps"), [("detector", 4), ("classifier", 2), ("field judge 2", 3)])
def test_an_interrupted_run_goes_on_to_the_same_weights(whole, tmp_path, stage, steps):
    with pytest.raises(KeyboardInterrupt):
        run(TINY, tmp_path, Told(stop_in=stage))
    assert not (tmp_path / "tiny.safetensors").exists()
    with pytest.raises(UsageError, match="recipe steps 4, now 5"):
        run(replace(TINY, steps=5), tmp_path)
    told = Told()
    run(TINY, tmp_path, told)
    assert f"{stage}: goes on after step 1 of {steps}" in told.said
    ours, theirs = tmp_path / "tiny.safetensors", whole[0] / "tiny.safetensors"
    assert ours.read_bytes() == theirs.read_bytes()


def test_fields_that_were_made_are_not_made_again(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("drpwatch.train.course._LOT", 5)
    with pytest.raises(KeyboardInterrupt):
        run(TINY, tmp_path, Told(stop_in="fields", stop_after=7))
    told = Told()
    run(TINY, tmp_path, told)
    assert "fields: goes on after 5 of 36" in told.said
    assert (tmp_path / "tiny.safetensors").read_bytes() == (whole[0] / "tiny.safetensors").read_bytes()
    assert not list((tmp_path / "run").glob("*.safetensors"))


def test_without_matplotlib_it_trains_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    told = Told()
    run(TINY, tmp_path, told)
    assert "no pictures: pictures of the training need matplotlib: pip install 'drpwatch[train]'" in told.said
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"run.json", "curve.csv"}


def test_own_micrographs_are_mixed_in(tmp_path, whole):
    rng = np.random.default_rng(0)
    own = []
    for number in range(2):
        path = tmp_path / f"{number}.mrc"
        write_mrc(path, rng.standard_normal((400, 400), dtype=np.float32), 1.5)
        yx = np.mgrid[30:380:30, 30:380:30].reshape(2, -1).T.astype(float)  # so many that some are hit
        own.append(OwnMicrograph(path, PickParams(45.0), yx))
    start = load_weights(whole[0] / "tiny.safetensors")
    ingredients = Ingredients(own=OwnData.split(own), start=start)
    told = Told()
    info = run(replace(TINY, own_share=0.5, scenes=48), tmp_path, told, ingredients)
    assert told.stages["own micrographs, training"] == told.stages["own micrographs, held back"] == 1
    assert told.stages["scenes"] == 24
    assert info.provenance["own_micrographs"] == 1
    assert info.provenance["started_from"]["sha256"] == start.sha256
    assert info.provenance["started_from"]["command"] == start.info.provenance["command"]
    (row,) = csv.DictReader((tmp_path / "run/curve.csv").open())
    assert float(row["own_loss"]) > 0
    identity = json.loads((tmp_path / "run/run.json").read_text())
    assert len(identity["own micrograph"]) == 2


def test_networks_that_are_there_can_be_kept(tmp_path, whole):
    start = load_weights(whole[0] / "tiny.safetensors")
    told = Told()
    kept = replace(TINY, steps=0, classifier_steps=0, scenes=36)
    info = run(kept, tmp_path, told, Ingredients(start=start))
    made = load_weights(tmp_path / "tiny.safetensors")
    for before, after in ((start.detector, made.detector), (start.classifier, made.classifier)):
        assert all(np.array_equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    assert not {"scenes", "validation", "detector", "classifier"} & told.stages.keys()
    assert told.stages["fields"] == 54  # three for each two scenes
    assert info.provenance["started_from"]["sha256"] == start.sha256
    assert info.calibration != start.info.calibration


def test_what_makes_no_sense_is_refused():
    with pytest.raises(UsageError, match="--detector yolo: there are fcrn, unet"):
        Recipe(detector="yolo")
    with pytest.raises(UsageError, match="--crop-px 90: unet takes multiples of 16"):
        Recipe(detector="unet", crop_px=90)
    with pytest.raises(UsageError, match="--own-share"):
        Recipe(own_share=2)
