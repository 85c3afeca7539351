"""Pickers without torch: the picks follow from the pixels alone, so a test knows what must come out."""

from __future__ import annotations

import threading
import time
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from drpwatch.errors import DeviceFault, DeviceNotReady, UnusableMicrograph, WeightsError
from drpwatch.micrograph import PickParams, Picks

SHA256 = "a" * 64


def picks_of(pixels: npt.NDArray[Any], params: PickParams) -> Picks:
    """Return picks that any change of the pixels changes."""
    values = pixels.astype(np.float32)
    if not np.isfinite(values).any():
        raise UnusableMicrograph("no pixel is finite")
    if values.min() == values.max():
        raise UnusableMicrograph("the image is blank")
    random = np.random.default_rng(zlib.crc32(np.ascontiguousarray(values).tobytes()))
    n = int(random.integers(1, 20))
    yx = (random.random((n, 2)) * np.array(pixels.shape)).astype(np.float32)
    score = np.sort(random.random(n).astype(np.float32))[::-1].copy()
    return Picks(yx, score, 0.5 if params.threshold is None else params.threshold, SHA256)


@dataclass
class FakePickers:
    """A `PickerFactory`, and the picker that it returns."""

    pick_s: float = 0.0
    not_ready_s: float = 0.0  # how long the device takes to come
    fault_at: int | None = None  # the device fails for good at this micrograph, counted from 0
    models: tuple[str, ...] = ("general",)
    weights_sha256: str = SHA256
    picked: int = 0
    breaks: type[Exception] | None = None
    started: float = field(default_factory=time.monotonic)
    gate: threading.Event | None = None  # detect waits for it

    def __call__(self, model: str) -> FakePickers:
        if time.monotonic() - self.started < self.not_ready_s:
            raise DeviceNotReady("the fake device is not there yet")
        self.check(model)
        return self

    def check(self, model: str) -> None:
        if model not in self.models:
            raise WeightsError(f"model {model!r}: no such file")

    def prepare(self, pixels: Any, pixel_size_yx: tuple[float, float], params: PickParams) -> Any:
        return pixels

    def detect(self, prepared: Any, params: PickParams) -> Any:
        if self.gate is not None:
            assert self.gate.wait(30)
        time.sleep(self.pick_s)
        if self.fault_at is not None and self.picked == self.fault_at:
            raise DeviceFault("the fake device failed")
        self.picked += 1
        if self.breaks is not None:
            raise self.breaks("as the test wants it")
        return prepared, params

    def memory_bytes(self) -> dict[str, int]:
        return {"allocated": 1000}

    def choose(self, candidate_map: Any) -> Picks:
        return picks_of(*candidate_map)
