"""`drpwatch train ...` and the model card, as a user meets them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from drpwatch.cli import main
from drpwatch.cli.adapting import files_of_session, spread
from drpwatch.cli.card import reliability_svg
from drpwatch.cli.client import ControlClient
from drpwatch.errors import UsageError
from drpwatch.pick.weights import load_weights, save_weights
from drpwatch.train.calibrate import Reliability
from tests.assess.making import make_set
from tests.pick.making import disc_model
from tests.support import eventually

NAMED = Path("/nowhere")


def error_of(capsys, *arguments: object) -> str:
    """Return the one sentence of a refusal."""
    assert main(["train", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err.removeprefix("drpwatch: error: ").strip()


def test_options_that_make_no_sense(tmp_path, capsys):
    out = tmp_path / "own.safetensors"
    assert "--detector yolo: there are fcrn, unet, matched-unet" in error_of(
        capsys, "detector", "-o", out, "--detector", "yolo"
    )
    assert "--labels luck" in error_of(capsys, "detector", "-o", out, "--labels", "luck")
    assert "is a directory" in error_of(capsys, "detector", "-o", tmp_path)
    model = disc_model(tmp_path / "discs.safetensors")
    told = error_of(capsys, "detector", "-o", out, "--start-from", model, "--working-diameter-px", 24)
    assert told.startswith("--start-from brings its own")
    told = error_of(capsys, "detector", "-o", out, "--start-from", model, "--detector", "unet")
    assert told.startswith("--detector unet cannot go on from the fcrn of --start-from")
    assert error_of(capsys, "detector", "-o", out, "--steps", 0).startswith(
        "--steps 0: there is nothing to keep"
    )
    without = ("--start-from", model, "--classifier-steps", 0)
    assert "--classifier-steps 0: there is nothing to keep" in error_of(
        capsys, "detector", "-o", out, *without
    )
    assert not out.exists()


def test_own_data_must_be_labelled(tmp_path, capsys):
    out = tmp_path / "own.safetensors"
    folder = make_set(tmp_path / "set", "diameter_angstrom = 40")
    assert "names no truth" in error_of(capsys, "detector", "-o", out, "--data", folder)
    folder = make_set(tmp_path / "one", 'diameter_angstrom = 40\ntruth = "truth.star"', {"a": [(40, 50)]})
    assert "two labelled micrographs or more" in error_of(capsys, "detector", "-o", out, "--data", folder)


def test_an_interrupted_training_says_how_to_go_on(tmp_path):
    out = tmp_path / "own.safetensors"
    small = ("--scenes", "8", "--workers", "1", "--threads", "1")
    command = [sys.executable, "-m", "drpwatch", "train", "detector", "-o", str(out), *small]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        seen: list[str] = []

        def simulating() -> bool:
            seen.append(process.stderr.readline())
            return seen[-1].startswith("scenes")

        eventually(simulating, 50, "the first scene")
        os.kill(process.pid, signal.SIGINT)
        seen += process.stderr.read().splitlines()
        assert process.wait() == 130
    assert f"the state is in {out}.run; the same command goes on from there" in seen[-1]
    assert (tmp_path / "own.safetensors.run/run.json").is_file()
    assert not out.exists()


def test_what_to_adapt_to_must_be_said(tmp_path, capsys):
    out = tmp_path / "own.safetensors"
    assert "either --from-session or --from" in error_of(capsys, "classifier", "-o", out)
    assert "--diameter-angstrom" in error_of(capsys, "classifier", "-o", out, "--from", tmp_path)
    told = error_of(capsys, "classifier", "-o", out, "--from-session", "s1", "--diameter-angstrom", 3)
    assert told.startswith("--from-session brings the session's own parameters")
    nothing = error_of(capsys, "classifier", "-o", out, "--from", tmp_path, "--diameter-angstrom", 40)
    assert nothing.startswith("nothing to pick")


def test_no_daemon_no_session(tmp_path, capsys):
    socket = tmp_path / "none.sock"
    arguments = ["-o", str(tmp_path / "o.safetensors"), "--from-session", "s1", "--socket", str(socket)]
    assert main(["train", "classifier", *arguments]) == 69
    assert capsys.readouterr().err.startswith(f"drpwatch: error: no daemon listens on {socket}")


def test_too_little_to_adapt_to_writes_nothing(tmp_path, capsys):
    folder = make_set(tmp_path / "set", "diameter_angstrom = 40")
    model = disc_model(tmp_path / "discs.safetensors", classifier=True)
    out = tmp_path / "own.safetensors"
    arguments = ["-o", str(out), "--from", str(folder), "--diameter-angstrom", "40", "--model", str(model)]
    assert main(["train", "classifier", *arguments]) == 2
    assert "are needed to adapt to" in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists()


class FakeClient(ControlClient):
    """Answers with one session."""

    def __init__(self, root: Path, failed: list[str]) -> None:
        params = {"diameter_angstrom": 150.0, "pixel_size_angstrom": 1.5, "negative_stain": False}
        self._view = {
            "watch_root": str(root),
            "glob": "**/*.mrc",
            "params": {**params, "threshold": None, "model": "general"},
            "waiting": [],
            "failed": [{"name": name} for name in failed],
        }

    def session(self, name: str) -> dict:
        return self._view


def test_a_session_s_micrographs_but_those_that_failed(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.mrc").write_bytes(b"")
    chosen = files_of_session(FakeClient(tmp_path, ["b.mrc"]), "s1", None)
    assert chosen.paths == (tmp_path / "a.mrc", tmp_path / "c.mrc")
    assert (chosen.params.diameter_angstrom, chosen.params.model) == (150.0, "general")
    assert files_of_session(FakeClient(tmp_path, []), "s1", "other").params.model == "other"
    with pytest.raises(UsageError, match="session s1: no micrograph in"):
        files_of_session(FakeClient(tmp_path, ["a.mrc", "b.mrc", "c.mrc"]), "s1", None)


def test_few_are_spread_over_all():
    paths = [Path(str(i)) for i in range(100)]
    assert [int(path.name) for path in spread(paths, 4)] == [12, 37, 62, 87]
    assert spread(paths[:3], 20) == tuple(paths[:3])


@pytest.fixture
def told_model(tmp_path) -> Path:
    """A model that tells the reliability of its scores."""
    weights = load_weights(disc_model(tmp_path / "discs.safetensors"))
    weights.info.provenance["reliability"] = Reliability((0.1, 0.9), (0.12, 0.8), (300, 100)).as_dict()
    save_weights(tmp_path / "told.safetensors", weights.info, weights.detector, None)
    return tmp_path / "told.safetensors"


def test_the_reliability_is_shown(told_model, tmp_path, capsys):
    assert main(["model", "info", str(told_model)]) == 0
    assert "0.90           0.80         100" in capsys.readouterr().out
    assert main(["model", "info", str(told_model), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["provenance"]["reliability"]["count"] == [300, 100]
    assert main(["model", "info", str(tmp_path / "discs.safetensors")]) == 0
    assert "trained nothing" not in capsys.readouterr().out


def test_a_card_is_markdown_and_a_picture(told_model, tmp_path, capsys):
    assert main(["model", "card", str(told_model), "-o", str(tmp_path / "card")]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in written] == ["README.md", "reliability.svg"]
    text = written[0].read_text()
    assert "# discs" in text
    assert "| 0.90 | 0.80 | 100 |" in text
    assert "calibration error 0.040" in text
    assert "](reliability.svg)" in text
    assert main(["model", "card", str(tmp_path / "discs.safetensors"), "-o", str(tmp_path / "bare")]) == 0
    assert "The weights do not tell." in (tmp_path / "bare/README.md").read_text()
    assert main(["model", "card", str(told_model), "-o", str(told_model)]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_the_picture_shows_every_bin():
    import xml.etree.ElementTree as ElementTree

    drawn = reliability_svg(Reliability((0.1, 0.5, 0.9), (0.0, 0.5, 1.0), (10, 20, 40)))
    circles = [one for one in ElementTree.fromstring(drawn).iter() if one.tag.endswith("circle")]
    assert [(float(one.get("cx")), float(one.get("cy"))) for one in circles] == [
        (26, 260),
        (130, 130),
        (234, 0),
    ]
