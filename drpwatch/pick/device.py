"""Which device picks, what its errors mean, and how numbers come from it to the host with one wait."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from drpwatch.cores import usable_cores
from drpwatch.errors import DeviceFault, DeviceNotReady, DeviceOutOfMemory

# Their errors are plain RuntimeErrors, and no less sticky.
_GPU_LIBRARIES = ("CUDA error", "cuDNN error", "CUDNN_STATUS", "CUBLAS_STATUS", "cuFFT error", "CUFFT_")
_NO_CPU_MEMORY = "DefaultCPUAllocator"


def resolve(device: str, threads: int = 0) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:N` into a usable device; `threads` is for the CPU.

    `auto` means the GPU on a machine that has an NVIDIA device node, whether it works yet or not, and the CPU
    on a machine without one: a GPU that is late or broken is never replaced by the CPU.

    With 0 threads there are as many as PyTorch takes by itself, one for each core, but not more than the cores
    that this process may use.

    Raises
    ------
    DeviceNotReady
        A GPU was asked for and cannot be used now.
    """
    if device == "auto":
        device = "cuda" if any(Path("/dev").glob("nvidia[0-9]*")) else "cpu"
    torch.set_num_threads(threads or min(torch.get_num_threads(), usable_cores()))
    torch.set_flush_denormal(True)  # trained weights hold denormals, which make a CPU ten times slower
    if device == "cpu":
        return torch.device("cpu")
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # the numbers that nvidia-smi gives to GPUs
    if torch.version.cuda is None:
        raise DeviceNotReady(
            f'device "{device}": this PyTorch is built without CUDA; install a CUDA build or set "cpu"'
        )
    try:
        torch.zeros(1, device=device)
    except RuntimeError as error:
        raise DeviceNotReady(f'device "{device}": {first_line(error)}') from error
    return torch.device(device)


def settle_on(device: torch.device) -> None:
    """Make a GPU the one that this thread's work goes to where no other is named."""
    if device.index is not None:
        torch.cuda.set_device(device)


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


def exact_arithmetic() -> None:
    """Have a GPU compute float32 as float32, and find out once which way is quickest for each shape.

    TF32, PyTorch's default for convolutions, has no more digits than float16. Shapes are few, and run once
    before anything is picked.
    """
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.benchmark = True


def scalar(value: torch.Tensor) -> Any:
    """Return a tensor of one number as what arithmetic with it is quickest with, and waits for nothing.

    On a CPU that is the number, on a GPU the tensor: to ask it for its number is to wait for the device.
    """
    return value.item() if value.device.type == "cpu" else value


def quantiles(values: torch.Tensor, at: tuple[float, ...]) -> torch.Tensor:
    """Return quantiles of a flat tensor, (k,), without regard to NaN."""
    # Written into place one by one: a list would be copied to a GPU, and waited for.
    places = torch.stack([torch.full((), share, dtype=values.dtype, device=values.device) for share in at])
    return torch.nanquantile(values, places)


def middle_and_deviation(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the median of a flat tensor, and the deviation that its quartiles tell of normal values, both float64."""
    low, middle, high = quantiles(values, (0.25, 0.5, 0.75)).double()
    return middle, (high - low) / 1.349


def on_host(*tensors: torch.Tensor) -> list[npt.NDArray[Any]]:
    """Bring tensors of any shapes and types from the device, all with one copy, and wait for it."""
    flat = torch.cat([tensor.detach().contiguous().view(-1).view(torch.uint8) for tensor in tensors])
    content = flat.cpu().numpy()
    arrays, start = [], 0
    for tensor in tensors:
        dtype = np.dtype(str(tensor.dtype).removeprefix("torch."))
        end = start + tensor.numel() * dtype.itemsize
        arrays.append(content[start:end].view(dtype).reshape(tuple(tensor.shape)))
        start = end
    return arrays


def plain(size_bytes: int) -> npt.NDArray[np.uint8]:
    """Return memory of the host, (n,), as it comes."""
    return np.empty(size_bytes, np.uint8)


def page_locked(size_bytes: int) -> npt.NDArray[np.uint8]:
    """Return memory of the host, (n,), from which a GPU can be uploaded to beside all else.

    Raises
    ------
    DeviceNotReady
        There is none.
    """
    try:
        return np.asarray(torch.empty(size_bytes, dtype=torch.uint8, pin_memory=True).numpy())
    except RuntimeError as error:
        raise DeviceNotReady(
            f"{size_bytes / 2**20:.0f} MiB of page-locked memory: {first_line(error)}"
        ) from error


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
