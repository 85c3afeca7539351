"""The real daemon, its picker and wall clock at the mercy of files: `python -m tests.campaign.daemon CONFIG FAULTS`.

In the directory FAULTS, `not ready`, `slow`, `memory` (too little of it for large tiles) and `clock` (seconds that
the wall clock is off) hold as long as they are there; `sticky`, `crash` and `hang` happen once, to whatever is picked
next. A poisoned micrograph always crashes.
"""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from drpwatch.config import load_config
from drpwatch.errors import DeviceFault, DeviceNotReady, DeviceOutOfMemory, DrpwatchError
from drpwatch.micrograph import PickParams, Picks, Pictures
from drpwatch.pick.device import plain
from drpwatch.service.channel import Allocate
from drpwatch.service.clock import Clock
from drpwatch.service.daemon import run
from drpwatch.session.records import PinnedWeights
from tests.daemon.fake_picker import FakeUploaded, picks_of
from tests.daemon.rule import DEFAULT_THRESHOLD, POISONED_PIXEL, sha256_of

_PICK_S = 0.01
_SLOW_S = 0.5
_HANG_S = 600.0


@dataclass(frozen=True, slots=True)
class Faults:
    """What is wrong now."""

    directory: Path

    def holds(self, name: str) -> bool:
        return (self.directory / name).exists()

    def strikes(self, name: str) -> bool:
        """Tell, once, that something is to happen."""
        try:
            (self.directory / name).unlink()
        except FileNotFoundError:
            return False
        return True

    def wall(self) -> float:
        try:
            return time.time() + float((self.directory / "clock").read_text())
        except (OSError, ValueError):
            return time.time()


@dataclass(frozen=True, slots=True)
class Pickers:
    """A `PickerFactory` on a device that fails."""

    faults: Faults

    def __call__(self, weights_sha256: str, device: int) -> Picker:
        self.check_ready()
        return Picker(self, weights_sha256)

    def release(self) -> None:
        pass

    def pin(self, model: str) -> PinnedWeights:
        return PinnedWeights(sha256_of(model), DEFAULT_THRESHOLD)

    def check_ready(self) -> None:
        if self.faults.holds("not ready"):
            raise DeviceNotReady("the device is gone for a while")


@dataclass(frozen=True, slots=True)
class Picker:
    """What it picks follows from the pixels, the diameter and the threshold alone."""

    of: Pickers
    weights_sha256: str
    device_name: str = "faulty device"
    tile_sizes_px: tuple[int, ...] = (256, 64)
    uploads_beside: bool = True
    host_memory: Allocate = plain
    precision: str = "float32"
    imprecise: str | None = None

    def upload(self, pixels: Any) -> FakeUploaded:
        return FakeUploaded(pixels)

    def prepare(self, uploaded: FakeUploaded, pixel_size_yx: tuple[float, float], params: PickParams) -> Any:
        return uploaded.pixels, params

    def detect(self, prepared: Any, params: PickParams, tile_px: int) -> Any:
        faults = self.of.faults
        self.of.check_ready()
        if faults.holds("memory") and tile_px > min(self.tile_sizes_px):
            raise DeviceOutOfMemory("too little memory for such tiles")
        time.sleep(_SLOW_S if faults.holds("slow") else _PICK_S)
        if faults.strikes("hang"):
            time.sleep(_HANG_S)
        if faults.strikes("sticky"):
            raise DeviceFault("the device failed for good")
        if faults.strikes("crash") or prepared[0][0, 0] == POISONED_PIXEL:
            signal.raise_signal(signal.SIGSEGV)  # to this thread, as a bad address is
        return prepared

    def choose(self, candidate_map: Any) -> Picks:
        return picks_of(*candidate_map, self.weights_sha256)

    def draw(self, uploaded: FakeUploaded, prepared: Any) -> Pictures:
        grey = np.clip(uploaded.pixels.astype(np.float32), 0, 255).astype(np.uint8)
        return Pictures(grey, grey[:32, :32])

    def memory_bytes(self) -> dict[str, int]:
        return {"allocated": 1000}


def main() -> int:
    config_path, faults = Path(sys.argv[1]), Faults(Path(sys.argv[2]))
    try:
        return run(load_config(config_path), config_path, Pickers(faults), Clock(wall=faults.wall))
    except DrpwatchError as error:
        print(f"drpwatch: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
