"""Which device picks, and what its errors mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from drpwatch.errors import DeviceFault, DeviceNotReady, DeviceOutOfMemory

# Their errors are plain RuntimeErrors, and no less sticky.
_GPU_LIBRARIES = ("CUDA error", "cuDNN error", "CUDNN_STATUS", "CUBLAS_STATUS", "cuFFT error", "CUFFT_")
_NO_CPU_MEMORY = "DefaultCPUAllocator"


def resolve(device: str, threads: int = 0) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:N` into a usable device; `threads` (0: all cores) is for the CPU.

    `auto` means the GPU on a machine that has an NVIDIA device node, whether it works yet or not, and the CPU
    on a machine without one: a GPU that is late or broken is never replaced by the CPU.

    Raises
    ------
    DeviceNotReady
        A GPU was asked for and cannot be used now.
    """
    if device == "auto":
        device = "cuda" if any(Path("/dev").glob("nvidia[0-9]*")) else "cpu"
    if threads:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # trained weights hold denormals, which make a CPU ten times slower
    if device == "cpu":
        return torch.device("cpu")
    if torch.version.cuda is None:
        raise DeviceNotReady(
            f'device "{device}": this PyTorch is built without CUDA; install a CUDA build or set "cpu"'
        )
    try:
        torch.zeros(1, device=device)
    except RuntimeError as error:
        raise DeviceNotReady(f'device "{device}": {first_line(error)}') from error
    return torch.device(device)


@contextmanager
def faults() -> Iterator[None]:
    """Turn errors of the device into ours.

    Raises
    ------
    DeviceOutOfMemory
        Its memory is full, maybe with the work of others: the caller may try with less, or later.
    DeviceFault
        A sticky error, after which no result of this process can be trusted.
    """
    full = ""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        full = first_line(error)  # raised below, where no traceback holds the tensors of the failed work
    except torch.AcceleratorError as error:
        raise DeviceFault(f"CUDA error: {first_line(error)}") from error
    except RuntimeError as error:
        if _NO_CPU_MEMORY in str(error):
            full = first_line(error)
        elif any(library in str(error) for library in _GPU_LIBRARIES):
            raise DeviceFault(first_line(error)) from error
        else:
            raise
    if full:
        release()
        raise DeviceOutOfMemory(f"out of memory on the device: {full}")


def release() -> None:
    """Give memory that no tensor uses any more back to the device."""
    torch.cuda.empty_cache()


def name_of(device: torch.device) -> str:
    """Return what people call a device."""
    if device.type == "cpu":
        return f"CPU, {torch.get_num_threads()} threads"
    return str(torch.cuda.get_device_name(device))


def memory_bytes(device: torch.device) -> dict[str, int]:
    """Return the device's memory: what this process holds, and what there is; empty for a CPU."""
    if device.type != "cuda":
        return {}
    free, total = torch.cuda.mem_get_info(device)
    return {
        "allocated": torch.cuda.memory_allocated(device),
        "reserved": torch.cuda.memory_reserved(device),
        "peak": torch.cuda.max_memory_allocated(device),
        "free": free,
        "total": total,
    }


def first_line(error: BaseException) -> str:
    """Return the sentence of an error that may bring its whole backtrace."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
