"""A user's own labelled micrographs as examples: prepared exactly as for picking, then cut.

The labels count as complete: what is not labelled teaches that it is no particle. Only padding, and the border
where picks are never made, teach nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from drpwatch.errors import MicrographError, UsageError
from drpwatch.formats import mrc
from drpwatch.micrograph import PickParams
from drpwatch.pick.matched import matched
from drpwatch.pick.peaks import PeakRule
from drpwatch.pick.preprocess import PreparedImage, Preprocessing, prepare
from drpwatch.train import dataset
from drpwatch.train.dataset import Example, distance_map
from drpwatch.train.scenes import packed

_HELD_BACK_EVERY = 5


@dataclass(frozen=True, slots=True, eq=False)
class OwnMicrograph:
    """One labelled micrograph: `yx_px` is (n, 2), full-frame pixels."""

    path: Path
    params: PickParams
    yx_px: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class OwnData:
    """A user's micrographs, those to train on and those that are held back for validation."""

    training: tuple[OwnMicrograph, ...]
    held_back: tuple[OwnMicrograph, ...]

    @classmethod
    def split(cls, micrographs: Sequence[OwnMicrograph]) -> OwnData:
        """Hold back every fifth micrograph, at least one.

        Raises
        ------
        UsageError
            There are fewer than two.
        """
        if len(micrographs) < 2:
            raise UsageError("training needs two labelled micrographs or more: one of them is held back")
        first = min(len(micrographs), _HELD_BACK_EVERY) - 1
        held_back = set(range(first, len(micrographs), _HELD_BACK_EVERY))
        return cls(
            tuple(one for i, one in enumerate(micrographs) if i not in held_back),
            tuple(one for i, one in enumerate(micrographs) if i in held_back),
        )


def read_micrograph(path: Path, params: PickParams) -> tuple[npt.NDArray[Any], tuple[float, float]]:
    """Return the pixels of a micrograph, (h, w) in the dtype of the file, and their size along y and x.

    Raises
    ------
    MicrographError
        It cannot be read, or nobody tells its pixel size.
    """
    header = mrc.read_header(path)
    return mrc.read_pixels(path, header), params.pixel_size_yx(header)


def own_examples(
    micrographs: Sequence[OwnMicrograph],
    constants: Preprocessing,
    rule: PeakRule,
    crop_px: int,
    progress: Callable[[int], None],
) -> list[Example]:
    """Prepare micrographs, and cut them into examples of about the size of a simulated scene.

    None is smaller than `crop_px` along either axis.

    Raises
    ------
    UsageError
        One of them cannot be used.
    """
    examples: list[Example] = []
    for number, one in enumerate(micrographs):
        try:
            pixels, size_yx = read_micrograph(one.path, one.params)
            prepared = prepare(torch.from_numpy(pixels), size_yx, one.params, constants)
        except MicrographError as error:
            raise UsageError(f"{one.path}: {error}") from error
        whole = _labelled(prepared, one.yx_px / np.asarray(prepared.scale_yx), rule)
        examples += [packed(part) for part in _cut(whole, crop_px)]
        progress(number + 1)
    return examples


def _labelled(prepared: PreparedImage, yx_px: npt.NDArray[np.float64], rule: PeakRule) -> Example:
    """Return a whole prepared micrograph with its label; `yx_px` in working pixels."""
    weight = torch.zeros(prepared.image.shape)
    bounds, margin = prepared.bounds, rule.border * prepared.diameter_px
    ends = [
        (low / scale + margin, (high - 1) / scale - margin)
        for low, high, scale in (
            (bounds.top, bounds.bottom, prepared.scale_yx[0]),
            (bounds.left, bounds.right, prepared.scale_yx[1]),
        )
    ]
    (top, bottom), (left, right) = ends
    weight[max(0, round(top)) : max(0, round(bottom) + 1), max(0, round(left)) : max(0, round(right) + 1)] = 1
    centres = yx_px.astype(np.float32)
    radius_px = dataset.LABEL_RADIUS * prepared.diameter_px / 2
    label = torch.from_numpy(distance_map(centres, tuple(prepared.image.shape), radius_px))
    image = prepared.image.clone()
    return Example(image, matched(image), label, weight, centres, prepared.diameter_px)


def _cut(whole: Example, crop_px: int) -> list[Example]:
    """Return tiles of nearly equal size that cover an example."""
    h, w = whole.image.shape
    rows, columns = _edges(h), _edges(w)
    tiles = []
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            area = slice(top, bottom), slice(left, right)
            weight = whole.weight[area]
            y, x = whole.yx_px[:, 0], whole.yx_px[:, 1]
            here = (y >= top) & (y < bottom) & (x >= left) & (x < right)
            yx = whole.yx_px[here] - np.array([top, left], dtype=np.float32)
            # Labels on the border can be no pick's, and must not count as missed.
            pixel = tuple(np.clip(np.round(yx).astype(int), 0, np.array(weight.shape) - 1).T)
            yx = yx[weight.numpy()[pixel] > 0]
            cut = (whole.image[area], whole.matched[area], whole.label[area], weight)
            image, seen, label, weight = (_at_least(crop_px, layer) for layer in cut)
            tiles.append(Example(image, seen, label, weight, yx, whole.diameter_px))
    return tiles


def _edges(length: int) -> list[int]:
    """Return where tiles begin and end along one axis."""
    count = max(1, round(length / dataset.SCENE_PX))
    return [round(edge) for edge in np.linspace(0, length, count + 1)]


def _at_least(side_px: int, layer: torch.Tensor) -> torch.Tensor:
    """Return (h, w) with zeros below and to the right, where it is too small for a crop."""
    h, w = layer.shape
    return F.pad(layer, (0, max(0, side_px - w), 0, max(0, side_px - h)))
