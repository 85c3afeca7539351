"""What is plotted of a session: its history in intervals of time, and its map by directory. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drpwatch.session.statistics import History

_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400)
_MOST_STEPS = 120
_LEAST_PER_STEP = 2.0  # micrographs: a rate of fewer says nothing
_LEAST_SHARE = 0.25  # of an interval that must have passed before a rate is made of it
_HOUR_S = 3600.0

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Intervals of equal length, (n,) each; NaN where there is nothing to tell."""

    step_s: float
    begins_at: Floats  # unix seconds
    per_hour: Floats  # micrographs recorded
    failed: Floats  # micrographs
    picks_low: Floats  # of each picked micrograph: tenth percentile, median, ninetieth
    picks_median: Floats
    picks_high: Floats
    latency_median_s: Floats  # from whole and settled to recorded
    latency_most_s: Floats
    backlog: Floats  # whole and not recorded, at the end of the interval


@dataclass(frozen=True, slots=True)
class Group:
    """The micrographs of one directory, in the order in which their files were written."""

    name: str
    first_at: float  # unix seconds, by the file server's clock
    last_at: float
    id: tuple[int, ...]
    n_picks: tuple[int, ...]  # -1: it failed


def series(history: History, now: float) -> Series | None:
    """Return a session in at most 120 intervals that begin at round times; None before anything was ready."""
    ready, recorded = _known(history.ready_at), _known(history.recorded_at)
    if len(recorded) == 0 and len(ready) == 0:
        return None
    first = min(times.min() for times in (ready, recorded) if len(times))
    last = max(times.max() for times in (ready, recorded) if len(times))
    waits = bool(np.isnan(history.recorded_at).any())
    last = max(last, now) if waits else last
    step_s = _step_s(last - first, len(recorded))
    begins_at = np.arange(first // step_s, last // step_s + 1) * step_s
    done = ~np.isnan(history.recorded_at)
    place = ((history.recorded_at[done] - begins_at[0]) // step_s).astype(np.int64)
    n_picks, generation = history.n_picks[done], history.generation[done]
    latency = history.recorded_at[done] - history.ready_at[done]
    count = len(begins_at)
    # What is picked again on request may have been whole for days.
    timely = (generation == 1) & np.isfinite(latency)
    low, median, high = _quantiles(
        place[n_picks >= 0], n_picks[n_picks >= 0].astype(np.float64), count, (0.1, 0.5, 0.9)
    )
    usual_s, most_s = _quantiles(place[timely], latency[timely], count, (0.5, 1.0))
    ends_at = begins_at + step_s
    backlog = np.searchsorted(np.sort(ready), ends_at) - np.searchsorted(
        np.sort(history.recorded_at[done & ~np.isnan(history.ready_at)]), ends_at
    )
    return Series(
        step_s=step_s,
        begins_at=begins_at,
        per_hour=_per_hour(np.bincount(place, minlength=count), begins_at, step_s, max(now, last)),
        failed=np.bincount(place[n_picks < 0], minlength=count).astype(np.float64),
        picks_low=low,
        picks_median=median,
        picks_high=high,
        latency_median_s=usual_s,
        latency_most_s=most_s,
        backlog=backlog.astype(np.float64),
    )


def groups(history: History) -> list[Group]:
    """Return the recorded micrographs by directory, in the order in which these were begun."""
    found: dict[str, list[int]] = {}
    order = np.argsort(history.written_at, kind="stable")
    for place in order[~np.isnan(history.recorded_at[order])].tolist():
        found.setdefault(history.name[place].rpartition("/")[0], []).append(place)
    return [
        Group(
            name,
            float(history.written_at[places[0]]),
            float(history.written_at[places[-1]]),
            tuple(history.id[places].tolist()),
            tuple(history.n_picks[places].tolist()),
        )
        for name, places in found.items()
    ]


def _step_s(span_s: float, count: int) -> float:
    """Return the shortest round interval of which there are not too many, nor too empty ones."""
    intervals = min(_MOST_STEPS - 2, max(1.0, count / _LEAST_PER_STEP))
    return next((float(step) for step in _STEPS_S if span_s / step <= intervals), float(_STEPS_S[-1]))


def _known(times: Floats) -> Floats:
    return np.asarray(times[~np.isnan(times)])


def _per_hour(count: npt.NDArray[np.int64], begins_at: Floats, step_s: float, now: float) -> Floats:
    """Return rates; that of the interval which is not over, from the part that has passed."""
    passed_s = np.clip(now - begins_at, 0.0, step_s)
    rate = count / np.maximum(passed_s, 1e-9) * _HOUR_S
    rate[passed_s < _LEAST_SHARE * step_s] = np.nan
    return np.asarray(rate)


def _quantiles(
    place: npt.NDArray[np.int64], values: Floats, count: int, at: tuple[float, ...]
) -> list[Floats]:
    """Return quantiles of (n,) values in each interval, (count,) for each of `at`."""
    result = [np.full(count, np.nan) for _ in at]
    order = np.argsort(place, kind="stable")
    edges = np.searchsorted(place[order], np.arange(count + 1))
    for interval in np.flatnonzero(np.diff(edges)):
        part = values[order[edges[interval] : edges[interval + 1]]]
        for quantile, column in zip(np.quantile(part, at), result, strict=True):
            column[interval] = quantile
    return result
