"""From the detector's map to candidates: smoothed local maxima that stand out from each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.ndimage import label

from drpwatch.pick.preprocess import gaussian_blur
from drpwatch.pick.trees import tree_of

_REACH = 1.5  # diameters; saddles are looked for between peaks that are no farther apart

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PeakRule:
    """Constants that belong to a set of weights; lengths are in particle diameters."""

    smooth_sigma: float = 0.06
    least_height: float = 0.04
    least_prominence: float = 0.02
    spacing: float = 0.5  # no two candidates are closer
    border: float = 0.5  # no candidate is closer to the edge of the picture
    of_maximum: bool = False  # heights are shares of the map's maximum, as in the reference


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Peaks, highest first: `yx` (n, 2) in working pixels, `height` (n,), `prominence` (n,)."""

    yx: FloatArray
    height: FloatArray
    prominence: FloatArray

    @property
    def log_prominence(self) -> FloatArray:
        """The logarithm of the prominence, (n,)."""
        return np.log(np.maximum(self.prominence, 1e-6))

    def keep(self, mask: npt.NDArray[np.bool_]) -> Candidates:
        """Return the candidates where the mask is true."""
        return Candidates(self.yx[mask], self.height[mask], self.prominence[mask])


def find_candidates(distance_map: torch.Tensor, diameter_px: float, rule: PeakRule) -> Candidates:
    """Find the peaks of a (h, w) map.

    A peak's prominence is its height over the highest saddle towards a higher peak; peaks that lack it are the
    ones that the reference's h-maxima transform merges.
    """
    smooth = gaussian_blur(distance_map, rule.smooth_sigma * diameter_px)
    if rule.of_maximum:
        smooth = smooth / smooth.max().clamp_min(1e-12)
    yx = _local_maxima(smooth, max(1, int(0.2 * diameter_px)), rule.least_height)
    surface = smooth.cpu().numpy()
    height = surface[tuple(yx.T)]
    order = np.lexsort(
        (yx[:, 1], yx[:, 0], -height)
    )  # ties by place, so that order never depends on the device
    yx, height = yx[order], height[order]
    prominence = _prominence(surface, yx, height, _REACH * diameter_px)
    found = Candidates(refine(surface, yx), height, prominence).keep(prominence >= rule.least_prominence)
    return found.keep(_spaced(found.yx, rule.spacing * diameter_px))


def _local_maxima(surface: torch.Tensor, reach: int, least: float) -> npt.NDArray[np.int64]:
    """Return (n, 2) pixels that are the maximum of their square neighbourhood; one for each flat top."""
    size = 2 * reach + 1
    highest = F.max_pool2d(surface[None, None], (size, 1), stride=1, padding=(reach, 0))
    highest = F.max_pool2d(highest, (1, size), stride=1, padding=(0, reach))[0, 0]
    tops = ((surface == highest) & (surface >= least)).cpu().numpy()
    flat_tops, count = label(tops, structure=np.ones((3, 3)))
    found = np.argwhere(tops)
    _, first = np.unique(flat_tops[tops], return_index=True)
    return found[first] if count < len(found) else found


def _prominence(
    surface: FloatArray, yx: npt.NDArray[np.int64], height: FloatArray, reach_px: float
) -> FloatArray:
    """Return each peak's height over its highest saddle towards a higher peak, (n,); its height if there is none.

    Peaks within reach are joined, highest saddle first; when two groups meet, the lower group's summit has found
    its saddle. Ways lead over other peaks, and straight from peak to peak.
    """
    prominence = height.astype(np.float32).copy()
    pairs = (
        tree_of(yx).query_pairs(reach_px, output_type="ndarray")
        if len(yx) > 1
        else np.empty((0, 2), dtype=int)
    )
    if len(pairs) == 0:
        return prominence
    saddle = _saddles(surface, yx[pairs[:, 0]], yx[pairs[:, 1]])
    summit = list(range(len(yx)))  # peaks are sorted, so a group's summit is its smallest index

    def top(peak: int) -> int:
        while summit[peak] != peak:
            summit[peak] = summit[summit[peak]]
            peak = summit[peak]
        return peak

    for i in np.argsort(-saddle, kind="stable"):
        high, low = sorted((top(int(pairs[i, 0])), top(int(pairs[i, 1]))))
        if high != low:
            prominence[low] = height[low] - saddle[i]
            summit[low] = high
    return prominence


def _saddles(surface: FloatArray, start: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> FloatArray:
    """Return the lowest value on the straight way between pixels start and end, each (n, 2)."""
    steps = np.linspace(0, 1, 11)[None, :, None]
    way = np.rint(start[:, None, :] * (1 - steps) + end[:, None, :] * steps).astype(np.int64)  # (n, 11, 2)
    return np.asarray(surface[way[..., 0], way[..., 1]].min(axis=1))


def refine(surface: FloatArray, yx: npt.NDArray[np.int64]) -> FloatArray:
    """Return sub-pixel centres, (n, 2): the vertex of the parabola through three pixels, along each axis."""
    mode: Literal["reflect", "edge"] = "reflect" if min(surface.shape) > 1 else "edge"
    padded = np.pad(surface, 1, mode=mode)  # reflected, so that no peak moves over the border
    y, x = yx[:, 0] + 1, yx[:, 1] + 1
    here = padded[y, x]
    refined = yx.astype(np.float32)
    for axis, (dy, dx) in enumerate(((1, 0), (0, 1))):
        before, after = padded[y - dy, x - dx], padded[y + dy, x + dx]
        bend = before - 2 * here + after
        with np.errstate(divide="ignore", invalid="ignore"):
            shift = np.where(bend < 0, 0.5 * (before - after) / bend, 0)
        refined[:, axis] += np.clip(shift, -0.5, 0.5)
    return refined


def _spaced(yx: FloatArray, distance_px: float) -> npt.NDArray[np.bool_]:
    """Return the mask of peaks, highest first, that have no higher kept peak within the distance."""
    keep = np.ones(len(yx), dtype=bool)
    if len(yx) > 1:
        pairs = tree_of(yx).query_pairs(distance_px, output_type="ndarray")
        pairs.sort(axis=1)
        for high, low in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]:
            if keep[high]:
                keep[low] = False
    return keep
