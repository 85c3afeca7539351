"""Pickers without torch: the picks follow from the pixels alone, so a test knows what must come out."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from drpwatch.errors import DeviceFault, DeviceNotReady, UnusableMicrograph, WeightsError
from drpwatch.micrograph import PickParams, Picks, Pictures
from drpwatch.pick.scene import SHAPE_YX
from drpwatch.service.channel import Allocate
from drpwatch.session.records import PinnedWeights
from tests.daemon.fake_device import FakeDevice
from tests.daemon.rule import DEFAULT_THRESHOLD, candidates, sha256_of

SHA256 = sha256_of("general")


SEEN_DIAMETER_ANGSTROM = 120.0  # of particles, if that is more than what is given


def picks_of(pixels: npt.NDArray[Any], params: PickParams, weights_sha256: str = SHA256) -> Picks:
    """Return picks that any change of the pixels, the diameter or the weights changes."""
    values = pixels.astype(np.float32)
    if not np.isfinite(values).any():
        raise UnusableMicrograph("no pixel is finite")
    if values.min() == values.max():
        raise UnusableMicrograph("the image is blank")
    yx, score = candidates(values, params.diameter_angstrom, weights_sha256)
    threshold = DEFAULT_THRESHOLD if params.threshold is None else params.threshold
    enlargement = max(1.0, SEEN_DIAMETER_ANGSTROM / params.diameter_angstrom)
    return Picks(yx, score, threshold, weights_sha256, enlargement)


@dataclass
class FakePickers:
    """A `PickerFactory`; what its pickers pick follows from the pixels, the threshold and the weights.

    A model is one of `models`, or any file: its content stands for weights.
    """

    pick_s: float = 0.0
    fault_at: int | None = None  # the device fails for good at this micrograph, counted from 0
    models: tuple[str, ...] = ("general",)
    picked: int = 0
    breaks: type[Exception] | None = None
    is_there: Callable[[], bool] = lambda: True  # the device
    gate: threading.Event | None = None  # detect waits for it
    device: FakeDevice = field(default_factory=FakeDevice)
    others: list[FakeDevice] = field(default_factory=list)  # behind the first one
    released: int = 0
    uploads_beside: bool = False  # as on a GPU
    no_host_buffer: str | None = None
    host_buffers: list[npt.NDArray[np.uint8]] = field(default_factory=list)  # that were asked for
    loaded: list[str] = field(default_factory=list)  # SHA-256 of all weights that were loaded, in order

    def __call__(self, weights_sha256: str, device: int) -> FakePicker:
        fake = [self.device, *self.others][device]
        fake.use()
        if fake.is_away or not self.is_there():
            raise DeviceNotReady("the fake device is not there yet")
        if weights_sha256 == sha256_of("mine") and "mine" not in self.models:
            raise WeightsError("the copy of these weights is gone")
        self.loaded.append(weights_sha256)
        return FakePicker(self, fake, weights_sha256)

    def release(self) -> None:
        self.released += 1

    def host_buffer(self, size_bytes: int) -> npt.NDArray[np.uint8]:
        if self.no_host_buffer is not None:
            raise DeviceNotReady(self.no_host_buffer)
        self.host_buffers.append(np.empty(size_bytes, np.uint8))
        return self.host_buffers[-1]

    def pin(self, model: str) -> PinnedWeights:
        if model in self.models:
            return PinnedWeights(sha256_of(model), DEFAULT_THRESHOLD)
        path = Path(model)
        if not path.is_file():
            raise WeightsError(f"model {model!r}: no such file")
        if not path.read_bytes():
            raise WeightsError(f"{model}: not a safetensors file")
        return PinnedWeights(hashlib.sha256(path.read_bytes()).hexdigest(), DEFAULT_THRESHOLD)


@dataclass(eq=False)
class FakeUploaded:
    """Pixels that are where they were."""

    pixels: npt.NDArray[Any]
    waited: bool = False

    def wait(self) -> None:
        self.waited = True


@dataclass
class FakePicker:
    """A loaded model."""

    of: FakePickers
    device: FakeDevice
    weights_sha256: str
    device_name: str = "fake device"
    tile_sizes_px: tuple[int, ...] = (512, 256, 128)
    precision: str = "float32"
    imprecise: str | None = None

    @property
    def host_memory(self) -> Allocate:
        return self.of.host_buffer

    @property
    def uploads_beside(self) -> bool:
        return self.of.uploads_beside

    def upload(self, pixels: npt.NDArray[Any]) -> FakeUploaded:
        self.device.step("upload", pixels)
        self.device.uploads.append(FakeUploaded(pixels))
        return self.device.uploads[-1]

    def prepare(
        self, uploaded: FakeUploaded, pixel_size_yx: tuple[float, float], params: PickParams
    ) -> npt.NDArray[Any]:
        self.device.step("prepare", uploaded.pixels)
        return uploaded.pixels

    def detect(self, prepared: Any, params: PickParams, tile_px: int) -> Any:
        if prepared.shape != SHAPE_YX:  # the canary is picked whenever the daemon likes
            self._detect()
        self.device.step("detect", prepared, tile_px)
        return prepared, params

    def _detect(self) -> None:
        if self.of.gate is not None:
            assert self.of.gate.wait(300)
        time.sleep(self.of.pick_s)
        if self.of.fault_at is not None and self.of.picked == self.of.fault_at:
            raise DeviceFault("the fake device failed")
        self.of.picked += 1
        if self.of.breaks is not None:
            raise self.of.breaks("as the test wants it")

    def draw(self, uploaded: FakeUploaded, prepared: Any) -> Pictures:
        grey = np.clip(uploaded.pixels.astype(np.float32), 0, 255).astype(np.uint8)
        return Pictures(grey, grey[:32, :32])

    def memory_bytes(self) -> dict[str, int]:
        return self.device.memory_bytes()

    def choose(self, candidate_map: Any) -> Picks:
        pixels = candidate_map[0]
        self.device.step("choose", pixels)
        return self.device.computed(pixels, picks_of(*candidate_map, self.weights_sha256))
