"""Other versions of one micrograph, and how many picks they have in common with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from drpwatch.assess.detection import match
from drpwatch.micrograph import PickParams
from drpwatch.pick.picker import Picker

Pixels = npt.NDArray[Any]


def as_float32(pixels: Pixels) -> Pixels:
    """Return the numbers as they are."""
    return pixels.astype(np.float32)


def as_float16(pixels: Pixels) -> Pixels:
    """Return the numbers, halved where float16 does not hold them."""
    return (pixels / (2.0 if pixels.max() > 32767 else 1.0)).astype(np.float16)


def as_int8(pixels: Pixels) -> Pixels:
    """Return the whole range in 254 steps, as programs do that save disk."""
    low, high = float(pixels.min()), float(pixels.max())
    return ((pixels - low) / (high - low) * 254 - 127).round().astype(np.int8)


PIXEL_TYPES: dict[str, Callable[[Pixels], Pixels]] = {
    "float32": as_float32,
    "float16": as_float16,
    "int8": as_int8,
}


def half_size(pixels: Pixels) -> Pixels:
    """Return (h/2, w/2): the inner half of the spectrum, so that pixel (0, 0) keeps its place."""
    h, w = pixels.shape
    rows, columns = h // 4, w // 4
    spectrum = np.fft.rfft2(pixels.astype(np.float64))
    kept = np.concatenate([spectrum[:rows, :columns], spectrum[-rows:, :columns]])
    kept = np.pad(kept, ((0, 0), (0, 1)))  # without the Nyquist column, which has no partner
    return np.fft.irfft2(kept, s=(2 * rows, 2 * columns)).astype(np.float32) / 4


def picks_of(picker: Picker, pixels: Pixels, params: PickParams, binned: int = 1) -> npt.NDArray[np.float32]:
    """Return the picks, (n, 2), in pixels of the frame that was not binned."""
    assert params.pixel_size_angstrom is not None
    size = params.pixel_size_angstrom * binned
    found = picker.pick(pixels, (size, size), replace(params, pixel_size_angstrom=size))
    return found.yx_px[found.chosen] * binned


def in_common(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32], within_px: float) -> float:
    """Return the share of picks, of the larger number, that are the same; where neither has one, they agree."""
    most = max(len(one), len(other))
    return len(match(one, other, within_px).pick) / most if most else 1.0


def shares(picker: Picker, pixels: Pixels, params: PickParams) -> Iterator[tuple[str, float]]:
    """Yield for each version of a micrograph which share of its picks it has in common with float32.

    Picks of the half-sized version are multiplied by two and held against those of the whole frame, within one
    pixel of the whole frame, and then within one of its own.
    """
    reference = picks_of(picker, as_float32(pixels), params)
    for name, convert in PIXEL_TYPES.items():
        if name != "float32":
            yield name, in_common(picks_of(picker, convert(pixels), params), reference, 1.0)
    halved = picks_of(picker, half_size(pixels), params, binned=2)
    yield "half-sized, within 1 px of the whole frame", in_common(halved, reference, 1.0)
    yield "half-sized, within 1 px of its own", in_common(halved, reference, 2.0)
