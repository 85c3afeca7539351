import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from drpwatch.errors import UsageError
from drpwatch.formats.mrc import write_mrc
from drpwatch.micrograph import PickParams
from drpwatch.pick.picker import Picker
from drpwatch.pick.weights import load_weights
from drpwatch.train.adapt import Adaptation, Seen, adapt, label_by_certainty, look, save_adapted
from tests.pick.making import disc_model, discs

PARAMS = PickParams(40.0)
QUICK = Adaptation(steps=3, batch=16, anchor_scenes=40)


def micrograph(seed: int) -> np.ndarray:
    """Discs every 80 px, and between them others that are much fainter."""
    yx = [(y, x) for y in range(60, 940, 80) for x in range(60, 940, 80)]
    between = [(y + 40, x + 40) for y, x in yx if max(y, x) < 860]
    faint = discs((1000, 1000), between, (40, 40)) - discs((1000, 1000), [], (40, 40))
    return discs((1000, 1000), yx, (40, 40), seed) + np.float32(0.4) * faint


@pytest.fixture(scope="module")
def picker(tmp_path_factory) -> Picker:
    path = disc_model(tmp_path_factory.mktemp("model") / "discs.safetensors", classifier=True)
    weights = load_weights(path)
    peaks = replace(weights.info.peaks, least_height=0.02, least_prominence=0.01)
    info = replace(weights.info, peaks=peaks)
    return Picker(replace(weights, info=info), torch.device("cpu"))


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list:
    folder = tmp_path_factory.mktemp("discs")
    for number in range(2):
        write_mrc(folder / f"{number}.mrc", micrograph(number), 1.001)
    return [folder / "0.mrc", folder / "1.mrc"]


def look_at(picker: Picker, paths: list, told: list[str] | None = None) -> Seen:
    return look(picker, paths, PARAMS, (told if told is not None else []).append, threading.Event())


@pytest.fixture(scope="module")
def seen(picker, paths) -> Seen:
    return look_at(picker, paths)


def test_what_is_seen_is_what_is_picked(picker, paths, seen):
    n = len(seen.x)
    assert n > 2 * 200
    assert seen.patches.shape == (n, 1, 64, 64)
    assert seen.patches.dtype == torch.float16
    picks = picker.pick(micrograph(0), (1.001, 1.001), PARAMS)
    first = np.sort(seen.probability[seen.place[:, 0] == 0])[::-1]
    assert np.allclose(first[: len(picks.score)], picks.score, atol=1e-3)


def test_a_micrograph_that_cannot_be_used_is_told_and_left_out(picker, paths, tmp_path):
    (tmp_path / "bad.mrc").write_bytes(b"bad")
    told: list[str] = []
    seen = look_at(picker, [tmp_path / "bad.mrc", paths[0]], told)
    assert set(seen.place[:, 0]) == {1e6}
    assert "bad.mrc: left out: " in told[0]
    assert told[1] == ""
    with pytest.raises(UsageError, match="none of the 1 micrographs can be used"):
        look_at(picker, [tmp_path / "bad.mrc"])


def test_labels_are_of_the_most_and_least_certain(picker, seen):
    label = label_by_certainty(seen, Adaptation())
    sure, sure_not = label == 1, label == 0
    assert seen.probability[sure].min() >= 0.5 > seen.probability[sure_not].max()
    assert 64 <= sure.sum() <= 0.5 * seen.probability.sum()
    times = [picker.pick(micrograph(n), (1.001, 1.001), PARAMS).enlargement for n in range(2)]
    of_each = np.where(seen.place[:, 0] == 0, *times)
    spot = seen.place[:, 1:] * of_each[:, None] * 40 / 1.001
    off = np.abs((spot - 60 + 40) % 80 - 40).max(axis=1)
    assert (off[sure] < 10).all()
    assert (off[sure_not] > 20).mean() > 0.9


def test_too_little_to_be_sure_of_is_one_sentence(picker, seen):
    few = Seen(seen.x[:50], seen.probability[:50], seen.patches[:50], seen.place[:50], {}, seen.diameter_px)
    with pytest.raises(UsageError, match="and 64 of either are needed to adapt to: give more micrographs"):
        label_by_certainty(few, Adaptation())
    none = Seen(seen.x[:0], seen.probability[:0], seen.patches[:0], seen.place[:0], {}, seen.diameter_px)
    with pytest.raises(UsageError, match="among 0 candidates"):
        label_by_certainty(none, Adaptation())


def test_adapting_changes_the_classifier_alone(picker, seen, tmp_path, monkeypatch):
    monkeypatch.setattr("drpwatch.train.dataset.SCENE_PX", 240)
    before = {name: value.clone() for name, value in picker.weights.classifier.state_dict().items()}
    network, adapted = adapt(picker, seen, QUICK, lambda *_: None, threading.Event())
    assert all(torch.equal(v, before[k]) for k, v in picker.weights.classifier.state_dict().items())
    assert any(not torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert adapted.micrographs == 2
    assert min(adapted.sure, adapted.sure_not) >= 64
    path = tmp_path / "adapted.safetensors"
    save_adapted(path, "own", picker.weights, network, adapted, {"from": "discs"})
    written = load_weights(path)
    assert written.info.name == "own"
    assert written.info.threshold == picker.info.threshold
    assert written.info.provenance["adapted_from"]["name"] == "discs"
    assert written.info.provenance["adaptation"]["from"] == "discs"
    ours, theirs = written.detector.state_dict(), picker.weights.detector.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    # As many particles are expected as before.
    again = look_at_again(written, picker, seen)
    assert again == pytest.approx(seen.probability.sum(), rel=0.01)


def look_at_again(written, picker, seen) -> float:
    """Return the number of particles that adapted weights expect among the same candidates."""
    odds = written.classifier(seen.patches.float()).numpy()
    c = written.info.calibration
    logit = seen.x[:, :3] @ [c.offset, c.height, c.log_prominence] + c.classifier * odds
    return float((1 / (1 + np.exp(-logit))).sum())


def test_a_model_without_a_classifier_cannot_be_adapted(picker, seen):
    bare = Picker(replace(picker.weights, classifier=None), torch.device("cpu"))
    with pytest.raises(UsageError, match="model discs has no classifier to adapt"):
        adapt(bare, seen, QUICK, lambda *_: None, threading.Event())


def test_somebody_asks_to_stop(picker, seen, paths):
    stop = threading.Event()
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        look(picker, paths, PARAMS, lambda problem: None, stop)
    with pytest.raises(KeyboardInterrupt):
        adapt(picker, seen, QUICK, lambda *_: None, stop)
