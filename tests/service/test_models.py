"""The daemon's models: copies of what was given, under their SHA-256."""

from __future__ import annotations

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from drpwatch.config import Pick
from drpwatch.errors import DeviceNotReady, OutputError, WeightsError
from drpwatch.pick.weights import find
from drpwatch.service.models import Models


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return Models(Pick(device="cpu", cpu_threads=1), tmp_path / "state" / "weights")


def test_a_model_is_what_it_was_when_it_was_pinned(models: Models, tmp_path: Path) -> None:
    own = tmp_path / "own.safetensors"
    shutil.copyfile(find("general"), own)
    pinned = models.pin(str(own))
    assert pinned == models.pin("general")
    assert pinned.sha256 == hashlib.sha256(own.read_bytes()).hexdigest()
    own.write_bytes(b"something else")
    assert models(pinned.sha256, 0).weights_sha256 == pinned.sha256
    with pytest.raises(WeightsError, match=r"own\.safetensors: not a safetensors file"):
        models.pin(str(own))
    assert [path.name for path in (tmp_path / "state/weights").iterdir()] == [f"{pinned.sha256}.safetensors"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_number_stands_for_its_device(tmp_path: Path) -> None:
    models = Models(Pick(devices=[0, 3]), tmp_path / "weights")
    pinned = models.pin("general")
    for number, name in enumerate(("cuda:0", "cuda:3")):
        with pytest.raises(DeviceNotReady, match=f'device "{name}"'):
            models(pinned.sha256, number)


def test_threads_that_want_the_same_model_all_get_it(models: Models) -> None:
    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(models.pin, ["general"] * 8))) == 1


def test_a_copy_that_is_gone_or_changed_is_not_used(models: Models, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is gone: give the session its model again"):
        models("0" * 64, 0)
    models.pin("general")
    (copy,) = (tmp_path / "state/weights").iterdir()
    copy.rename(copy.with_name(f"{'0' * 64}.safetensors"))
    with pytest.raises(WeightsError, match="was changed: give the session its model again"):
        models("0" * 64, 0)


def test_a_store_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    models = Models(Pick(device="cpu"), tmp_path / "file" / "weights")
    with pytest.raises(OutputError, match="a copy of the weights cannot be kept: "):
        models.pin("general")
