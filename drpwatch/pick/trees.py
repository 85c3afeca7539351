"""Trees of points, for whoever asks what is near."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
from scipy.spatial import cKDTree


def tree_of(points: npt.NDArray[Any]) -> cKDTree:
    """Return a tree of points (n, d).

    A balanced one, scipy's default, splits just above the median; just above 0 there are only denormal numbers.
    Where these are flushed to zero, as in every process that runs the networks on a CPU, it would split for
    ever, and the process would die of its stack, if most points of a branch had a coordinate of 0.
    """
    return cKDTree(points, balanced_tree=False)
