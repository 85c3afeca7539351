"""The device and the weights, with GPUs that are there, broken, closed to us, or full, as fakes."""

from pathlib import Path

import pytest
import torch

from drpwatch.config import Pick
from drpwatch.doctor import device
from drpwatch.doctor.check import Check
from drpwatch.errors import DeviceNotReady

VERSION = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\nGCC version:"


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A GPU as far as this code can see, with 79 of 80 GB free; return its node."""
    (tmp_path / "version").write_text(VERSION)
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(device, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(device, "NODES", tmp_path)
    monkeypatch.setattr("drpwatch.pick.device.resolve", lambda *_: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100")
    show_memory(monkeypatch, 79e9)
    return tmp_path / "nvidia0"


def show_memory(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    kinds = {"free": int(free), "total": 80_000_000_000, "allocated": 0}
    monkeypatch.setattr("drpwatch.pick.device.memory_bytes", lambda _: kinds)


def found(**pick: object) -> dict[str, Check]:
    return {check.name: check for check in device.check_device(Pick.model_validate(pick))}


def levels(**pick: object) -> dict[str, str]:
    return {name: check.level.value for name, check in found(**pick).items()}


def test_a_cpu_is_fine_where_it_was_asked_for_or_there_is_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "NODES", tmp_path)
    assert levels(device="cpu") == {"device": "ok"}


def test_a_gpu_that_is_well(gpu: Path) -> None:
    assert levels() == {"driver": "ok", "device": "ok", "device memory": "ok"}
    checks = found(device="cuda")
    assert checks["driver"].found == "NVIDIA 570.86.15"
    assert checks["device"].found.startswith("NVIDIA H100, ")
    assert checks["device memory"].found == "79.0 GB of 80.0 GB are free"


def test_memory_that_others_use_is_told(gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    show_memory(monkeypatch, 1e9)
    check = found()["device memory"]
    assert (check.level, "nvidia-smi" in check.advice) == ("warn", True)


def test_a_driver_that_is_not_loaded(gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise DeviceNotReady('device "cuda": Found no NVIDIA driver on your system.')

    (gpu.parent / "version").unlink()
    gpu.unlink()
    monkeypatch.setattr("drpwatch.pick.device.resolve", missing)
    assert levels(device="cuda") == {"driver": "fail", "device": "fail"}
    assert "Found no NVIDIA driver" in found(device="cuda")["device"].found


def test_each_of_several_gpus_is_checked(gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def second_is_missing(name: str, threads: int) -> torch.device:
        if name == "cuda:1":
            raise DeviceNotReady('device "cuda:1": CUDA error: invalid device ordinal')
        return torch.device(name)

    monkeypatch.setattr("drpwatch.pick.device.resolve", second_is_missing)
    assert levels(devices=[0, 1]) == {
        "driver": "ok",
        "device cuda:0": "ok",
        "device cuda:0 memory": "ok",
        "device cuda:1": "fail",
    }
    assert "invalid device ordinal" in found(devices=[0, 1])["device cuda:1"].found


def test_nodes_that_are_closed_to_us(gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.os, "access", lambda *_: False)
    assert found()["device nodes"].found == f"no permission to use {gpu}"


def test_weights(tmp_path: Path) -> None:
    assert device.check_weights(Pick()).level == "ok"
    (tmp_path / "damaged.safetensors").write_bytes(b"no weights")
    check = device.check_weights(Pick(model=str(tmp_path / "damaged.safetensors")))
    assert (check.level, "damaged.safetensors" in check.found) == ("fail", True)
