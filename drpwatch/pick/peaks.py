"""From the detector's map to candidates: smoothed local maxima that stand out from each other.

First what needs the map, on its device and without a wait for it: the peaks, where they are to a fraction of a
pixel, which are near to each other, and how low the way between those goes (`find_peaks`). Then, on the host,
what depends on one another, and is little: which of them stand out (`standing_out`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree

from drpwatch.pick.preprocess import gaussian_blur
from drpwatch.pick.trees import tree_of

PEAKS_PER_DIAMETER = 2.0
"""Where the number of peaks is fixed, so many for each square of a diameter's side, the highest ones.

Particles side by side are 1.15. Noise, with next to nothing for a least height, has 1.1.
"""
PEAKS_STEP = 256
"""A fixed number of peaks is a multiple of it: a whole number of batches."""
MOST_PEAKS = 16_384
"""No larger number is fixed: all distances between them are looked at. That is a working image of 1,600 px."""

_REACH = 1.5  # diameters; saddles are looked for between peaks that are no farther apart
_PAIRS_PER_PEAK = 16  # where their number is fixed; noise has 3.2
_STEPS = 10  # between two peaks, at which the way is looked at
_DISTANCES = 1 << 22  # of a matrix of all, at a time

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


@dataclass(frozen=True, slots=True, eq=False)
class Peaks:
    """The local maxima of a map, highest first, on the map's device, and the ways between them.

    `place` (k, 2) int64 is their pixel and `yx` (k, 2) their centre, in working pixels; `height` (k,). `pairs`
    (p, 2) int64 are the numbers of peaks near to each other, and `saddle` (p,) is the lowest value on the straight
    way from one to the other. Where k and p are fixed, what is not there has the height, or the saddle, -inf.
    """

    place: torch.Tensor
    yx: torch.Tensor
    height: torch.Tensor
    pairs: torch.Tensor
    saddle: torch.Tensor

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All that they are, in the order of the arguments."""
        return self.place, self.yx, self.height, self.pairs, self.saddle


def find_candidates(distance_map: torch.Tensor, diameter_px: float, rule: PeakRule) -> Candidates:
    """Find the candidates of a (h, w) map."""
    peaks = find_peaks(distance_map, diameter_px, rule)
    arrays = [tensor.cpu().numpy() for tensor in peaks.tensors]
    return standing_out(arrays, diameter_px, rule)[0]


def most_peaks(shape_yx: tuple[int, ...], diameter_px: float) -> int:
    """Return the fixed number of peaks of a map: it depends on the map's shape alone, and is never reached."""
    wanted = PEAKS_PER_DIAMETER * math.prod(shape_yx) / diameter_px**2
    return min(PEAKS_STEP * math.ceil(wanted / PEAKS_STEP), math.prod(shape_yx))


def find_peaks(
    distance_map: torch.Tensor, diameter_px: float, rule: PeakRule, at_most: int | None = None
) -> Peaks:
    """Find the peaks of a (h, w) map, as many as there are, or as `at_most` says whether or not they are there.

    A fixed number lets the device go on without a word to the host. Of more peaks the highest are taken.
    """
    surface = gaussian_blur(distance_map, rule.smooth_sigma * diameter_px)
    if rule.of_maximum:
        surface = surface / surface.max().clamp_min(1e-12)
    tops = _tops(surface, max(1, int(0.2 * diameter_px)), rule.least_height)
    reach_px = _REACH * diameter_px
    if at_most is None:
        place, height = _all_of(surface, tops)
        pairs = _near(place, reach_px)
        saddle = _saddles(surface, place[pairs[:, 0]], place[pairs[:, 1]])
    else:
        place, height = _highest_of(surface, tops, at_most)
        pairs, real = _fixed_near(place, height, reach_px)
        saddle = _saddles(surface, place[pairs[:, 0]], place[pairs[:, 1]]).where(real, -torch.inf)
    return Peaks(place, refine(surface, place), height, pairs, saddle)


def standing_out(
    peaks: list[npt.NDArray[Any]], diameter_px: float, rule: PeakRule
) -> tuple[Candidates, npt.NDArray[np.int64]]:
    """Return the candidates among peaks, given as `Peaks.tensors` on the host, and which of the peaks they are.

    A peak's prominence is its height over the highest saddle towards a higher peak; peaks that lack it are the
    ones that the reference's h-maxima transform merges.
    """
    place, yx, height, pairs, saddle = peaks
    # Ties by place, so that order never depends on the device.
    order = np.lexsort((place[:, 1], place[:, 0], -height))[: np.isfinite(height).sum()]
    rank = np.zeros(len(height), dtype=np.int64)
    rank[order] = np.arange(len(order))
    yx, height = yx[order], height[order]
    real = np.isfinite(saddle)
    prominence = _prominence(height, rank[pairs[real]], saddle[real])
    stands = np.flatnonzero(prominence >= rule.least_prominence)
    kept = stands[_spaced(yx[stands], rule.spacing * diameter_px)]
    return Candidates(yx[kept], height[kept], prominence[kept]), order[kept]


def _tops(surface: torch.Tensor, reach: int, least: float) -> torch.Tensor:
    """Return the mask of pixels of (h, w) that are the maximum of their square neighbourhood; one for a flat top."""
    size = 2 * reach + 1
    highest = F.max_pool2d(surface[None, None], (size, 1), stride=1, padding=(reach, 0))
    highest = F.max_pool2d(highest, (1, size), stride=1, padding=(0, reach))[0, 0]
    tops = (surface == highest) & (surface >= least)
    padded = F.pad(tops, (1, 1, 1, 0))  # the first pixel of a flat top has none of it above or to the left
    above = padded[:-1, :-2] | padded[:-1, 1:-1] | padded[:-1, 2:]
    return tops & ~(above | padded[1:, :-2])


def _all_of(surface: torch.Tensor, tops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the places (n, 2) and heights (n,) of all tops, highest first."""
    place = tops.nonzero()
    height = surface[place[:, 0], place[:, 1]]
    order = height.argsort(descending=True, stable=True)  # equal ones in the order of their places
    return place[order], height[order]


def _highest_of(surface: torch.Tensor, tops: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the places (k, 2) and heights (k,) of the k highest tops; -inf where there are fewer."""
    height, index = surface.where(tops, -torch.inf).flatten().topk(k)
    place = torch.stack([index // surface.shape[1], index % surface.shape[1]], dim=1)
    return place, height


def _near(place: torch.Tensor, reach_px: float) -> torch.Tensor:
    """Return the pairs (p, 2) of places (n, 2) that are within reach of each other."""
    if len(place) < 2:
        return torch.empty((0, 2), dtype=torch.int64, device=place.device)
    pairs = tree_of(place.cpu().numpy()).query_pairs(reach_px, output_type="ndarray")
    return torch.from_numpy(pairs.astype(np.int64, copy=False)).to(place.device)


def _fixed_near(
    place: torch.Tensor, height: torch.Tensor, reach_px: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a fixed number of pairs (p, 2) of places (k, 2), and which of them (p,) are within reach.

    Of more pairs, those of the highest peaks are taken.
    """
    k = len(place)
    p = _PAIRS_PER_PEAK * k
    low = torch.zeros(p + 1, dtype=torch.int64, device=place.device)
    high = torch.zeros_like(low)
    number = torch.arange(k, device=place.device)
    there = height > -torch.inf
    found = torch.zeros((), dtype=torch.int64, device=place.device)
    for rows in torch.split(number, max(1, _DISTANCES // k)):
        apart = (place[rows][:, None] - place[None]).square().sum(dim=2)  # (rows, k)
        near = (apart <= reach_px**2) & (number < rows[:, None]) & there[rows][:, None]
        slot = (near.flatten().cumsum(0) + found - 1).view(near.shape)
        slot = slot.where(near, p).clamp_max(p)  # the last slot is for all that is not taken
        low.scatter_(0, slot.flatten(), rows[:, None].expand_as(near).flatten())
        high.scatter_(0, slot.flatten(), number.expand_as(near).flatten())
        found = found + near.sum()
    return torch.stack([high, low], dim=1)[:p], torch.arange(p, device=place.device) < found


def _saddles(surface: torch.Tensor, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Return the lowest value on the straight way between pixels start and end, each (n, 2)."""
    steps = torch.arange(_STEPS + 1, dtype=torch.float64, device=surface.device)[None, :, None] * (1 / _STEPS)
    way = (start[:, None, :] * (1 - steps) + end[:, None, :] * steps).round().long()  # (n, 11, 2)
    return surface[way[..., 0], way[..., 1]].amin(dim=1)


def refine(surface: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Return sub-pixel centres, (n, 2): the vertex of the parabola through three pixels, along each axis."""
    last = torch.stack([torch.full_like(place[:, 0], length - 1) for length in surface.shape], dim=1)
    here = surface[place[:, 0], place[:, 1]]
    shifts = []
    for axis in range(2):
        step = torch.zeros_like(place)
        step[:, axis] = 1
        # Beyond the border it is reflected, so that no peak moves over it.
        before, after = (place - step).abs(), last - (last - place - step).abs()
        low, high = (surface[at[:, 0], at[:, 1]] for at in (before.minimum(last), after.clamp_min(0)))
        bend = low - 2 * here + high
        shifts.append((0.5 * (low - high) / bend).where(bend < 0, 0).clamp(-0.5, 0.5))
    return place.to(surface.dtype) + torch.stack(shifts, dim=1)


def _prominence(height: FloatArray, pairs: npt.NDArray[np.int64], saddle: FloatArray) -> FloatArray:
    """Return the height of peaks (n,), highest first, over their highest saddle towards a higher one, (n,).

    Peaks are joined, highest saddle first; when two groups meet, the lower group's summit has found its saddle;
    the height itself is left to a peak that never meets a higher one. Ways lead over other peaks.
    """
    prominence = height.astype(np.float32)
    summit = list(range(len(height)))  # peaks are sorted, so a group's summit is its smallest index

    def top(peak: int) -> int:
        while summit[peak] != peak:
            summit[peak] = summit[summit[peak]]
            peak = summit[peak]
        return peak

    pairs, saddle = _joining(len(height), pairs, saddle)
    for (one, other), lowest in zip(pairs.tolist(), saddle, strict=True):
        high, low = sorted((top(one), top(other)))
        prominence[low] = height[low] - lowest
        summit[low] = high
    return prominence


def _joining(
    n: int, pairs: npt.NDArray[np.int64], saddle: FloatArray
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Return the pairs that join two groups when the highest saddle comes first: the others change nothing."""
    order = np.argsort(-saddle, kind="stable")
    pairs, saddle = pairs[order], saddle[order]
    place = np.arange(1, len(pairs) + 1)  # a weight of 0 would be no edge
    tree = minimum_spanning_tree(coo_array((place, (pairs[:, 0], pairs[:, 1])), shape=(n, n)).tocsr())
    chosen = np.sort(tree.data).astype(np.int64) - 1
    return pairs[chosen], saddle[chosen]


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
