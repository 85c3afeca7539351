"""Training data: simulated scenes at the working scale, brought through the same normalisation as real images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from drpwatch.pick.matched import matched
from drpwatch.pick.preprocess import (
    Preprocessing,
    Region,
    fourier_resize,
    levelled,
    normalise_robust,
    without_outliers,
)
from drpwatch.pick.rings import typical_rings
from drpwatch.pick.size import enlargement
from drpwatch.train.shapes import Species
from drpwatch.train.simulate import Scene, draw_conditions, simulate

FloatArray = npt.NDArray[np.float32]

LABEL_RADIUS = 0.6
"""Radius of the labelled disc in particle radii (the paper: about 0.57)."""

SCENE_PX = 320

_LARGEST = 2
"""Sides of scenes in which scores are learned, at most, as multiples of that: so large are most micrographs, and what a
field tells as a whole it tells the better, the larger it is."""

_TRUE_DIAMETERS = 0.65, 1.25
"""Of the diameter that a user gives: many give that of the box, and some a fifth too little."""


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One normalised scene: tensors are (h, w) float32, `yx_px` (n, 2) the true centres.

    `matched` is the image under its matched filter: as the whole scene gives it, for networks see only crops.
    """

    image: torch.Tensor
    matched: torch.Tensor
    label: torch.Tensor
    weight: torch.Tensor
    yx_px: FloatArray
    diameter_px: float


def make_example(
    species: Sequence[Species], constants: Preprocessing, seed: int, number: int, *, true_ice: bool = False
) -> Example:
    """Simulate scene `number` of a seed, (320, 320), or with `true_ice` up to twice as long: see `draw_conditions`.

    The diameter that a user gives is rarely exact, so the particle is drawn somewhat larger or smaller than
    the working diameter that the label assumes; with `true_ice`, rings that show it are followed as `prepare` does.
    """
    rng = np.random.default_rng((seed, number))
    kind = species[int(rng.integers(len(species)))]
    true_px = constants.working_diameter_px * rng.uniform(*_TRUE_DIAMETERS)
    conditions = draw_conditions(rng, true_ice=true_ice)
    side_px = round(SCENE_PX * _LARGEST ** rng.random()) if true_ice else SCENE_PX
    scene = simulate(kind, species, conditions, (side_px, side_px), kind.diameter_angstrom / true_px, rng)
    image, inside = _normalised(scene, constants)
    if true_ice:
        picture = image[inside]
        times = float(enlargement(typical_rings(picture), picture.numel(), constants.working_diameter_px))
        if times > 1:
            scene = _smaller(scene, times)
            image, inside = _normalised(scene, constants)
    label = distance_map(scene.yx_px, scene.pixels.shape, LABEL_RADIUS * constants.working_diameter_px / 2)
    return Example(
        image=image,
        matched=matched(image),
        label=torch.from_numpy(label),
        weight=torch.from_numpy(scene.inside),
        yx_px=scene.yx_px,
        diameter_px=constants.working_diameter_px,
    )


def _normalised(scene: Scene, constants: Preprocessing) -> tuple[torch.Tensor, Region]:
    """Return the image as networks see it, and which region of it is picture."""
    rows, columns = np.flatnonzero(scene.inside.any(axis=1)), np.flatnonzero(scene.inside.any(axis=0))
    inside = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    return normalise_robust(without_outliers(torch.from_numpy(scene.pixels)), inside, constants), inside


def _smaller(scene: Scene, times: float) -> Scene:
    """Return a scene at so many times the pixel size."""
    full = scene.pixels.shape
    h, w = (max(2, 2 * round(side / times / 2)) for side in full)
    scale_yx = full[0] / h, full[1] / w
    rows, columns = ((np.arange(n) * scale).astype(int) for n, scale in zip((h, w), scale_yx, strict=True))
    limited = levelled(without_outliers(torch.from_numpy(scene.pixels)))
    return replace(
        scene,
        pixels=fourier_resize(limited, (h, w)).numpy(),
        yx_px=(scene.yx_px / scale_yx).astype(np.float32),
        inside=scene.inside[np.ix_(rows, columns)],
        pixel_size_angstrom=scene.pixel_size_angstrom * times,
    )


def distance_map(yx_px: FloatArray, shape_yx: tuple[int, ...], radius_px: float) -> FloatArray:
    """Return (h, w): the distance to the border of a disc around each centre, 1 at the centre, 0 outside."""
    h, w = shape_yx[0], shape_yx[1]
    label = np.zeros((h, w), dtype=np.float32)
    reach = math.ceil(radius_px) + 1
    for y, x in yx_px:
        top, left = max(0, round(y) - reach), max(0, round(x) - reach)
        rows, columns = (
            np.arange(top, min(h, round(y) + reach + 1)),
            np.arange(left, min(w, round(x) + reach + 1)),
        )
        cone = 1 - np.hypot(rows[:, None] - y, columns[None, :] - x) / radius_px
        window = label[top : top + len(rows), left : left + len(columns)]
        np.maximum(window, cone, out=window)
    return label


def crops(
    examples: Sequence[Example], size_px: int, count: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return layers (count, 2, size, size), labels and weights, (count, 1, size, size): random crops, turned, mirrored.

    Layers are the image, and the image under its matched filter.
    """
    stack = []
    for _ in range(count):
        example = examples[int(rng.integers(len(examples)))]
        h, w = example.image.shape
        top, left = int(rng.integers(h - size_px + 1)), int(rng.integers(w - size_px + 1))
        area = slice(top, top + size_px), slice(left, left + size_px)
        crop = torch.stack(
            [example.image[area], example.matched[area], example.label[area], example.weight[area]]
        )
        crop = torch.rot90(crop, int(rng.integers(4)), (1, 2))
        stack.append(crop.flip(2) if rng.random() < 0.5 else crop)
    batch = torch.stack(stack)
    return batch[:, :2], batch[:, 2:3], batch[:, 3:]
