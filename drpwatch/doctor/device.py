"""The picking devices, their driver and memory, and the weights."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from drpwatch.config import Pick
from drpwatch.doctor.check import Check, fail, gigabytes, ok, warn
from drpwatch.errors import DeviceNotReady, WeightsError

DRIVER = Path("/proc/driver/nvidia/version")
NODES = Path("/dev")
ROOM_BYTES = 4e9
"""Room on the device that picking is never short of; with less, tiles become smaller."""


def check_device(config: Pick) -> Iterator[Check]:
    """Check what picks: driver, device and memory."""
    nodes = sorted(NODES.glob("nvidia[0-9]*"))
    names = dict.fromkeys(config.picking_devices)
    if nodes or any(name.startswith("cuda") for name in names):
        yield _driver()
        closed = [str(node) for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
        if closed:
            yield fail(
                "device nodes",
                f"no permission to use {', '.join(closed)}",
                "add the daemon's user to the group that owns them (often video or render)",
            )
    for name in names:
        yield from _check_one(name, config.cpu_threads, f" {name}" if len(names) > 1 else "")


def _check_one(name: str, threads: int, which: str) -> Iterator[Check]:
    """Check one device; `which` tells it apart from others in the names of checks."""
    import torch

    from drpwatch.pick.device import memory_bytes, resolve

    try:
        device = resolve(name, threads)
    except DeviceNotReady as error:
        yield fail(
            f"device{which}",
            str(error),
            "look at nvidia-smi and dmesg (Xid); a driver that was upgraded needs a reboot;"
            ' pick.device = "cpu" picks without a GPU',
        )
        return
    if device.type == "cpu":
        found = f"CPU, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
        yield ok(f"device{which}", f"{found}; this machine has no GPU" if name == "auto" else found)
        return
    yield ok(
        f"device{which}",
        f"{torch.cuda.get_device_name(device)}, PyTorch {torch.__version__}, CUDA {torch.version.cuda}",
    )
    yield _memory(which, **memory_bytes(device))


def _driver() -> Check:
    try:
        text = DRIVER.read_text()
    except OSError:
        return fail(
            "driver",
            "the NVIDIA driver is not loaded",
            "install it, or load it with: modprobe nvidia nvidia_uvm",
        )
    match = re.search(r"\b\d{3}\.[\d.]+\b", text)
    return ok("driver", f"NVIDIA {match[0]}" if match else text.splitlines()[0])


def _memory(which: str, free: int, total: int, **_: int) -> Check:
    found = f"{gigabytes(free)} of {gigabytes(total)} are free"
    if free >= ROOM_BYTES:
        return ok(f"device{which} memory", found)
    return warn(
        f"device{which} memory",
        found,
        "nvidia-smi names who uses it; motion correction may be better on another GPU",
    )


def check_weights(config: Pick) -> Check:
    """Check the weights that are loaded at the start."""
    from drpwatch.pick.weights import find, load_weights

    try:
        weights = load_weights(find(config.model))
    except WeightsError as error:
        return fail(
            "weights",
            str(error),
            "set pick.model to a name that `drpwatch model info` lists, or reinstall drpwatch",
        )
    return ok("weights", f"{config.model}, SHA-256 {weights.sha256[:12]}")
