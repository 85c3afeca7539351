"""The seam to the device: what a loaded model does, where models come from, and one micrograph's way through.

Whatever is on the other side, a GPU, a CPU or a fake, says what is wrong with it by the errors below
`DeviceError`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy.typing as npt

from drpwatch.errors import DeviceNotReady, DeviceOutOfMemory, UnusableMicrograph
from drpwatch.micrograph import Outcome, PickParams, Picks, Pictures, ReadyMicrograph
from drpwatch.service.channel import Allocate
from drpwatch.service.tiles import TileSizes
from drpwatch.session.records import PinnedWeights

_SHARE_OF_OTHERS = 0.2  # of the device's memory: more than a driver, or a screen, takes


class Uploaded(Protocol):
    """Pixels on their way to a device."""

    def wait(self) -> None:
        """Return when nothing is read any more from where they came from."""
        ...


class Picker(Protocol):
    """A loaded model: pixels to picks in steps that are timed apart.

    Each step raises DeviceOutOfMemory where it needs more memory than there is, and DeviceFault after an
    error that nothing on this device recovers from.
    """

    weights_sha256: str
    device_name: str
    """What people call the device."""
    tile_sizes_px: tuple[int, ...]
    """In which tiles the detector can run, the usual ones first, then smaller ones; with the same picks."""
    uploads_beside: bool
    """Whether an upload goes on while the device computes."""
    host_memory: Allocate
    """Allocates memory, (n,), from which uploads are quickest; raises DeviceNotReady where there is none of it.

    From any thread, and whether or not the model is still loaded.
    """
    imprecise: str | None
    """Why the networks do not compute in half precision, where that was wanted."""

    @property
    def precision(self) -> str:
        """The numbers in which the networks compute."""
        ...

    def upload(self, pixels: npt.NDArray[Any]) -> Uploaded:
        """Begin to bring (h, w) pixels to the device."""
        ...

    def prepare(self, uploaded: Any, pixel_size_yx: tuple[float, float], params: PickParams) -> Any:
        """Bring pixels to the networks' scale and contrast."""
        ...

    def detect(self, prepared: Any, params: PickParams, tile_px: int) -> Any:
        """Run the detector."""
        ...

    def choose(self, candidate_map: Any) -> Picks:
        """Turn the detector's map into picks."""
        ...

    def draw(self, uploaded: Any, prepared: Any) -> Pictures:
        """Make what people see of a micrograph."""
        ...

    def memory_bytes(self) -> dict[str, int]:
        """Return the device's memory by kind; empty for a CPU."""
        ...


class PickerFactory(Protocol):
    """Where pickers come from; a fake one keeps tests away from torch."""

    def __call__(self, weights_sha256: str, device: int) -> Picker:
        """Load weights that were pinned, onto a device; raises WeightsError or DeviceNotReady.

        Called in the device's picking thread; `device` counts from 0 those that are configured.
        """
        ...

    def pin(self, model: str) -> PinnedWeights:
        """Check a model and keep its weights as they are now; raises WeightsError. From any thread."""
        ...

    def release(self) -> None:
        """Give memory of the device that no picker uses any more to others."""
        ...


def pick_in_steps(
    picker: Picker,
    ready: ReadyMicrograph,
    pixels: npt.NDArray[Any],
    read_s: float,
    tiles: TileSizes,
    beat: Callable[[], None] = lambda: None,
    draw: Callable[[Any, Any], bool] = lambda *_: False,
    uploaded: Uploaded | None = None,
) -> Outcome:
    """Pick one micrograph, (h, w) pixels, and time each step; with too little memory, again in smaller tiles.

    Parameters
    ----------
    draw
        Called with what was uploaded and prepared, for whoever makes pictures of it; returns whether they were
        made.
    uploaded
        What came of the pixels if they were uploaded before. Either way nothing reads them any more when this
        returns or raises.

    Raises
    ------
    MicrographError
        It cannot be picked.
    DeviceError
        The device cannot be used, now or any more.
    """
    kind = picker.weights_sha256, ready.header.shape_yx
    try:
        while True:
            tile_px = tiles.of(kind, picker.tile_sizes_px)
            try:
                uploaded = uploaded or picker.upload(pixels)
                outcome = _in_tiles(picker, ready, uploaded, read_s, tile_px, beat, draw)
            except DeviceOutOfMemory as error:
                reason = str(error)
            else:
                tiles.worked(kind)
                return outcome
            # Here, where no traceback holds what was on the device.
            beat()
            if not tiles.failed(kind, picker.tile_sizes_px, reason):
                _give_up(picker, tile_px, reason)
    finally:
        if uploaded is not None:
            uploaded.wait()


def _in_tiles(
    picker: Picker,
    ready: ReadyMicrograph,
    uploaded: Uploaded,
    read_s: float,
    tile_px: int,
    beat: Callable[[], None],
    draw: Callable[[Any, Any], bool],
) -> Outcome:
    """Pick one micrograph in tiles of one size."""
    seconds = {"read": read_s}
    pixel_size_yx = ready.params.pixel_size_yx(ready.header)
    started = time.perf_counter()
    prepared = picker.prepare(uploaded, pixel_size_yx, ready.params)
    seconds["prepare"] = -started + (started := time.perf_counter())
    candidate_map = picker.detect(prepared, ready.params, tile_px)
    beat()
    seconds["detect"] = -started + (started := time.perf_counter())
    picks = picker.choose(candidate_map)
    seconds["choose"] = -started + (started := time.perf_counter())
    if draw(uploaded, prepared):
        seconds["draw"] = time.perf_counter() - started
    return Outcome(ready, picks, seconds=seconds)


def _give_up(picker: Picker, tile_px: int, reason: str) -> None:
    """Say why the smallest tiles were too large.

    Raises
    ------
    DeviceNotReady
        Others have the memory: the micrograph can be picked when they are done.
    UnusableMicrograph
        Nobody else has it.
    """
    memory = picker.memory_bytes()
    others = memory.get("total", 0) - memory.get("free", 0) - memory.get("reserved", 0)
    if others > _SHARE_OF_OTHERS * memory.get("total", 0):
        raise DeviceNotReady(f"{reason}; other programs hold {others / 2**30:.1f} GiB of the device's memory")
    raise UnusableMicrograph(f"{reason}, even in the smallest tiles ({tile_px} px)")
