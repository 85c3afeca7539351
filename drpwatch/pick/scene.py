"""Micrographs that are made up, and always the same: what should be picked in them stays what it is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from drpwatch.micrograph import PickParams

SHAPE_YX = (1024, 1024)
PIXEL_SIZE_ANGSTROM = 2.0
PARAMS = PickParams(diameter_angstrom=160.0, pixel_size_angstrom=PIXEL_SIZE_ANGSTROM)

_SPACING_PX = 128


def picture(seed: int, depth: float) -> npt.NDArray[np.float32]:
    """Return a scene, (h, w): dark discs, so many deviations deep, in noise."""
    random = np.random.default_rng(seed)
    image = random.standard_normal(SHAPE_YX, dtype=np.float32)
    radius = PARAMS.diameter_angstrom / PIXEL_SIZE_ANGSTROM / 2
    y, x = np.ogrid[:_SPACING_PX, :_SPACING_PX]
    for top in range(0, SHAPE_YX[0], _SPACING_PX):
        for left in range(0, SHAPE_YX[1], _SPACING_PX):
            cell = image[top : top + _SPACING_PX, left : left + _SPACING_PX]
            cy, cx = random.normal(_SPACING_PX / 2, 6.0, 2)
            cell[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] -= depth
    return image
