import json

import pytest
import torch

from drpwatch.errors import OutputError, UsageError
from drpwatch.train.checkpoint import RunDirectory, code_sha256
from drpwatch.train.fit import FitState

IDENTITY = {"recipe": {"steps": 10, "seed": 1}, "start": None}


def state(step: int) -> FitState:
    kernel = torch.arange(24.0).view(1, 2, 3, 4).to(memory_format=torch.channels_last)
    return FitState({"kernel": kernel, "count": torch.tensor(step)}, {"step": step, "random": 2**100})


def test_a_state_comes_back(tmp_path):
    with RunDirectory(tmp_path / "run", IDENTITY) as run:
        assert run.load("detector") is None
        run.save("detector", state(3))
        run.save("detector", state(4))
    with RunDirectory(tmp_path / "run", IDENTITY) as run:
        found = run.load("detector")
        assert found.values == {"step": 4, "random": 2**100}
        assert torch.equal(found.tensors["kernel"], state(4).tensors["kernel"])
        assert {path.name for path in run.path.iterdir()} == {"run.json", "detector.safetensors"}


def test_other_options_are_refused_by_name(tmp_path):
    RunDirectory(tmp_path, IDENTITY).close()
    with pytest.raises(UsageError, match=r"holds a run with other options \(recipe steps 10, now 20\)"):
        RunDirectory(tmp_path, {"recipe": {"steps": 20, "seed": 1}, "start": None})
    with pytest.raises(UsageError, match="start None, now abc"):
        RunDirectory(tmp_path, IDENTITY | {"start": "abc"})
    RunDirectory(tmp_path, IDENTITY).close()


def test_a_finished_run_keeps_no_state_and_is_not_begun_again(tmp_path):
    with RunDirectory(tmp_path, IDENTITY) as run:
        run.save("detector", state(1))
        run.write("curve.csv", b"step\n")
        run.finish(tmp_path / "own.safetensors")
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "curve.csv"}
    with pytest.raises(UsageError, match=r"finished run, whose weights went to .*own\.safetensors"):
        RunDirectory(tmp_path, IDENTITY)


def test_two_processes_do_not_train_in_one_directory(tmp_path):
    with RunDirectory(tmp_path, IDENTITY), pytest.raises(UsageError, match="another process trains here"):
        RunDirectory(tmp_path, IDENTITY)
    RunDirectory(tmp_path, IDENTITY).close()


def test_what_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("\\begin{document}")
    with pytest.raises(UsageError, match="neither empty nor the directory of a training run"):
        RunDirectory(tmp_path, IDENTITY)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        RunDirectory(tmp_path, IDENTITY)


def test_a_damaged_checkpoint_is_one_sentence(tmp_path):
    with RunDirectory(tmp_path, IDENTITY) as run:
        (tmp_path / "detector.safetensors").write_bytes(b"half of a checkp")
        with pytest.raises(UsageError, match="a damaged checkpoint"):
            run.load("detector")


def test_a_state_that_cannot_be_written_leaves_the_one_before(tmp_path):
    with RunDirectory(tmp_path, IDENTITY) as run:
        run.save("detector", state(1))
        (tmp_path / ".detector.safetensors.tmp").mkdir()  # where the new one would be written
        with pytest.raises(OutputError, match="cannot be written"):
            run.save("detector", state(2))
        assert run.load("detector").values["step"] == 1
    with pytest.raises(OutputError, match="not a directory"):
        RunDirectory(tmp_path / "run.json" / "run", IDENTITY)


def test_the_identity_is_read_as_it_was_written(tmp_path):
    RunDirectory(tmp_path, {"pair": (1, 2)}).close()
    RunDirectory(tmp_path, {"pair": (1, 2)}).close()
    assert json.loads((tmp_path / "run.json").read_text()) == {"pair": [1, 2]}
    assert len(code_sha256()) == 64
