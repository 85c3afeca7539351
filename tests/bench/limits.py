"""What a machine allows and a micrograph asks for: reads, copies, operations, launches and waits."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from drpwatch.formats import mrc

T = TypeVar("T")

WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize")
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel")
FETCHES = ("aten::_local_scalar_dense", "aten::nonzero")  # on a GPU each of them would be a wait


def device_seconds(device: torch.device, work: Callable[[], T]) -> tuple[float, T]:
    """Return how long the device takes, by events on the stream of this thread, and what came of it."""
    if device.type != "cuda":
        started = time.perf_counter()
        done = work()
        return time.perf_counter() - started, done
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    done = work()
    after.record()
    after.synchronize()
    return before.elapsed_time(after) / 1000, done


def host_seconds(device: torch.device, work: Callable[[], T]) -> tuple[float, T]:
    """Return how long it takes until the device has nothing more to do, and what came of it."""
    settle(device)
    started = time.perf_counter()
    done = work()
    settle(device)
    return time.perf_counter() - started, done


def settle(device: torch.device) -> None:
    """Wait for all that was given to the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def page_locked(pixels: npt.NDArray[Any], device: torch.device) -> npt.NDArray[Any]:
    """Return a copy in memory that a GPU reads by itself."""
    if device.type != "cuda":
        return pixels.copy()
    copy: npt.NDArray[Any] = torch.from_numpy(pixels).pin_memory().numpy()
    return copy


def read_bytes_per_s(files: list[Path], readers: int, rounds: int) -> float:
    """Return how fast so many threads read files out of the page cache, into buffers of their own."""
    headers = [mrc.read_header(path) for path in files]
    size = max(header.data_bytes for header in headers)
    buffers = [np.zeros(size, np.uint8) for _ in range(readers)]  # written to, so that their pages are there

    def read(reader: int) -> None:
        for path, header in list(zip(files, headers, strict=True))[reader::readers]:
            mrc.read_pixels(path, header, None, buffers[reader])

    seconds = []
    for _ in range(rounds + 1):
        threads = [threading.Thread(target=read, args=(reader,)) for reader in range(readers)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds.append(time.perf_counter() - started)
    return sum(header.data_bytes for header in headers) / statistics.median(seconds[1:])


def copy_bytes_per_s(device: torch.device, size_bytes: int, rounds: int) -> float:
    """Return how fast page-locked memory comes to the device, which for a GPU is its PCIe link."""
    source = torch.from_numpy(page_locked(np.ones(size_bytes, np.uint8), device))
    target = torch.empty_like(source, device=device)
    seconds = [
        device_seconds(device, lambda: target.copy_(source, non_blocking=True))[0] for _ in range(rounds + 1)
    ]
    return size_bytes / statistics.median(seconds[1:])


def multiply_flops_per_s(device: torch.device, kind: torch.dtype, side: int, rounds: int) -> float:
    """Return how fast the device multiplies matrices, which is about the most that it does of anything."""
    one = torch.rand((side, side), device=device).to(kind)
    seconds = [device_seconds(device, lambda: one @ one)[0] for _ in range(rounds + 2)]
    return 2 * side**3 / statistics.median(seconds[2:])


def flops_of(work: Callable[[], object]) -> int:
    """Return the floating-point operations of the networks in some work, a multiplication and an addition being two."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def calls_of(device: torch.device, work: Callable[[], object]) -> dict[str, int]:
    """Return how often some work waits for the device, starts a kernel, and asks for a value."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    settle(device)
    with profile(activities=activities) as seen:
        work()
    count = Counter(event.name for event in seen.events())
    return {
        "waits": sum(count[name] for name in WAITS),
        "launches": sum(count[name] for name in LAUNCHES),
        "fetches": sum(count[name] for name in FETCHES),
    }
