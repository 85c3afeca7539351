import subprocess
import sys
from pathlib import Path

import pytest
import torch

from drpwatch.errors import DeviceFault, DeviceNotReady, DeviceOutOfMemory
from drpwatch.pick import device

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.fixture
def nodes(monkeypatch):
    """Say which NVIDIA device nodes the machine has."""

    def have(*names: str) -> None:
        monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([self / name for name in names]))

    return have


def test_auto_is_the_cpu_where_there_is_no_gpu(nodes):
    nodes()
    assert device.resolve("auto") == torch.device("cpu")


@no_gpu
def test_auto_does_not_fall_back_where_there_is_one(nodes):
    nodes("nvidia0")
    with pytest.raises(DeviceNotReady, match='device "cuda"'):
        device.resolve("auto")


@no_gpu
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
def test_a_gpu_that_is_asked_for_and_not_there_is_not_ready(name):
    with pytest.raises(DeviceNotReady, match=f'device "{name}"'):
        device.resolve(name)


def test_threads_are_set():
    before = torch.get_num_threads()
    device.resolve("cpu", threads=1)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)


def test_an_accelerator_error_is_a_fault():
    with pytest.raises(DeviceFault, match="CUDA error: an illegal memory access"), device.faults():
        raise torch.AcceleratorError("an illegal memory access\nCompile with ...")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_auto_is_the_gpu_where_there_is_one():
    assert device.resolve("auto").type == "cuda"


def test_full_memory_is_not_a_fault_of_the_micrograph():
    with (
        pytest.raises(DeviceNotReady, match="out of memory on the device: CUDA out of memory"),
        device.faults(),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")


def test_a_sticky_error_is_a_fault():
    with pytest.raises(DeviceFault, match="illegal memory access"), device.faults():
        raise torch.AcceleratorError("an illegal memory access was encountered")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:114] . DefaultCPUAllocator: can't allocate memory: 8 GB"
        ),
        MemoryError("Unable to allocate 8 GiB"),
    ],
)
def test_a_cpu_without_memory_is_told_the_same_way(error):
    with pytest.raises(DeviceOutOfMemory, match="allocate"), device.faults():
        raise error


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_real_sticky_error_is_a_fault():
    """In a process of its own: nothing of it can use the device afterwards."""
    program = (
        "import torch; from drpwatch.errors import DeviceFault; from drpwatch.pick.device import faults\n"
        "try:\n"
        "    with faults():\n"
        "        torch.zeros(4, device='cuda')[torch.tensor([9], device='cuda')].cpu()\n"
        "except DeviceFault as fault:\n"
        "    print(fault, flush=True)\n"
        "    import os; os._exit(fault.exit_code)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 70, ended.stderr
    assert "device-side assert" in ended.stdout


def test_a_cpu_has_no_device_memory():
    assert device.memory_bytes(torch.device("cpu")) == {}


@pytest.mark.parametrize(
    "text", ["cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", "cuFFT error: CUFFT_EXEC_FAILED"]
)
def test_an_error_of_a_gpu_library_is_a_fault(text):
    with pytest.raises(DeviceFault, match=text), device.faults():
        raise RuntimeError(text)


def test_any_other_error_stays_what_it_is():
    with pytest.raises(RuntimeError, match="shape"), device.faults():
        raise RuntimeError("shape mismatch")


@no_gpu
def test_without_a_gpu_no_memory_is_page_locked():
    with pytest.raises(DeviceNotReady, match="3 MiB of page-locked memory: "):
        device.page_locked(3 << 20)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_memory_is_page_locked():
    assert torch.from_numpy(device.page_locked(3 << 20)).is_pinned()
