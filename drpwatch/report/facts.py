"""All that a report tells, read from the journal at once, pictures apart."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from drpwatch.session.account import Account, PickedWith, Transition
from drpwatch.session.records import MicrographState, ParamsVersion, SessionRecord
from drpwatch.session.scores import Scores
from drpwatch.session.series import Group, Series, groups, series
from drpwatch.session.statistics import History, Recorded, Show

MOST_FAILURES = 200
_MOST_REASONS = 20


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """One session as it stood when it was read. Times are unix seconds."""

    made_at: float
    session: SessionRecord
    versions: tuple[ParamsVersion, ...]
    picked_with: tuple[PickedWith, ...]
    transitions: tuple[Transition, ...]
    counts: dict[Show, int]
    unfinished: dict[MicrographState, int]
    history: History
    series: Series | None
    groups: tuple[Group, ...]
    picks_at_thresholds: npt.NDArray[np.int64]  # (101,), at `session.scores.THRESHOLDS`
    stage_s: dict[str, float]  # mean of each stage
    failures: tuple[Recorded, ...]  # at most `MOST_FAILURES`, the newest first
    reasons: tuple[tuple[str, int], ...]  # why micrographs failed, and how many

    @property
    def n_picks(self) -> npt.NDArray[np.int64]:
        """Picks of each micrograph that was picked, (n,)."""
        return np.asarray(self.history.n_picks[self.history.n_picks >= 0])

    @property
    def median_picks(self) -> float | None:
        """Median of the picks per micrograph; None before any was picked."""
        return float(median(self.n_picks.tolist())) if len(self.n_picks) else None

    @property
    def latency_s(self) -> npt.NDArray[np.float64]:
        """Seconds from whole to recorded, (n,), of micrographs that were written once and recorded."""
        latency = self.history.recorded_at - self.history.ready_at
        # What is picked again on request may have been whole for days.
        return np.asarray(latency[np.isfinite(latency) & (self.history.generation == 1)])

    @property
    def span(self) -> tuple[float, float] | None:
        """When the first micrograph was ready and the last one recorded; None before any was."""
        times: npt.NDArray[Any] = np.concatenate([self.history.ready_at, self.history.recorded_at])
        times = times[np.isfinite(times)]
        return (float(times.min()), float(times.max())) if len(times) else None


def gather(account: Account, name: str, now: float) -> Facts:
    """Read a session.

    Raises
    ------
    SessionError
        There is none of that name.
    JournalError
        The journal cannot be read.
    """
    session = account.record(name)
    history = account.history(session.id)
    return Facts(
        made_at=now,
        session=session,
        versions=tuple(account.versions(session.id)),
        picked_with=tuple(account.picked_with(session.id)),
        transitions=tuple(account.transitions(session.id)),
        counts=account.count(session.id),
        unfinished=account.unfinished(session.id),
        history=history,
        series=series(history, now),
        groups=tuple(groups(history)),
        picks_at_thresholds=Scores(account).picks_at_thresholds(session.id),
        stage_s=account.stage_seconds(session.id),
        failures=tuple(account.recorded(session.id, Show.FAILED, MOST_FAILURES)),
        reasons=tuple(account.reasons(session.id, _MOST_REASONS)),
    )
