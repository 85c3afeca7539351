"""What the page is answered: plain JSON values, made small where there are many."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from drpwatch.session.scores import THRESHOLDS
from drpwatch.session.series import Group, Series
from drpwatch.session.statistics import Candidates, Recorded

Json = dict[str, Any]
_PER_MILLE = 1000


def of_micrograph(recorded: Recorded, has_pictures: bool, candidates: Candidates | None) -> Json:
    """Return one micrograph with its candidates, if these are wanted, as `circles` has them."""
    found = np.empty((0, 3), np.float32) if candidates is None else candidates
    return asdict(recorded) | {"pictures": has_pictures, "circles": circles(found)}


def chosen(recorded: Recorded, candidates: Candidates) -> Candidates:
    """Return those of (n, 3) candidates that are picks."""
    if recorded.threshold is None:
        return candidates[:0]
    return candidates[candidates[:, 2] >= np.float32(recorded.threshold)]


def circles(candidates: Candidates) -> list[int]:
    """Return (n, 3) candidates as x, y, score, x, y, ...: whole pixels of the file, and per mille.

    Scores are rounded down, so that one below a threshold in hundredths stays below it.
    """
    flat = np.empty((len(candidates), 3), np.int64)
    flat[:, 0] = np.rint(candidates[:, 1])
    flat[:, 1] = np.rint(candidates[:, 0])
    # A step of float32 more, so that 0.57 is 570 and not 569.
    flat[:, 2] = np.nextafter(candidates[:, 2], np.float32(2)).astype(np.float64) * _PER_MILLE
    values: list[int] = flat.ravel().tolist()
    return values


def of_series(series: Series | None) -> Json:
    """Return the intervals, null where there is nothing to tell."""
    if series is None:
        return {"step_s": None}
    columns = {
        name: [None if math.isnan(value) else round(value, 3) for value in column.tolist()]
        for name, column in asdict(series).items()
        if name != "step_s"
    }
    return columns | {"step_s": series.step_s}


def of_groups(groups: Iterable[Group]) -> Json:
    """Return the map."""
    return {"groups": [asdict(group) for group in groups]}


def of_scores(picks: npt.NDArray[np.int64], in_force: float | None) -> Json:
    """Return how many picks there would be at each threshold, and which one is in force."""
    return {"threshold": THRESHOLDS.tolist(), "picks": picks.tolist(), "in_force": in_force}
