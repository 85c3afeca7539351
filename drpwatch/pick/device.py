"""Which device picks, and what its errors mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from drpwatch.errors import DeviceFault, DeviceNotReady


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
        raise DeviceNotReady(f'device "{device}": {_first_line(error)}') from error
    return torch.device(device)


@contextmanager
def faults() -> Iterator[None]:
    """Turn a sticky CUDA error, after which no result of this process can be trusted, into a DeviceFault."""
    try:
        yield
    except torch.AcceleratorError as error:
        raise DeviceFault(f"CUDA error: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
