"""How many picks a session would have at another threshold, from the candidates in the journal."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from drpwatch.session.statistics import Statistics

THRESHOLDS = np.arange(101) / 100
"""The thresholds that are counted at."""

# As candidates are cut: in float32.
_EDGES = THRESHOLDS.astype(np.float32)


def count_at_thresholds(score: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return how many of (n,) scores reach each of `THRESHOLDS`, (101,)."""
    return len(score) - np.searchsorted(np.sort(score), _EDGES, side="left")


@dataclass(slots=True)
class _Table:
    """Counts of the micrographs of one session: a row each, so that one that is picked again can go."""

    row_of: dict[int, int] = field(default_factory=dict)
    counts: npt.NDArray[np.uint16] = field(default_factory=lambda: np.zeros((0, len(_EDGES)), np.uint16))


class Scores:
    """Counts at all thresholds; what was read once is kept, at 202 bytes for each micrograph."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics
        self._lock = threading.Lock()
        self._tables: dict[int, _Table] = {}

    def picks_at_thresholds(self, session_id: int) -> npt.NDArray[np.int64]:
        """Return how many picks the session would have at each of `THRESHOLDS`, (101,)."""
        with self._lock:
            table = self._tables.setdefault(session_id, _Table())
            published = self._statistics.published_ids(session_id)
            self._read(table, [one for one in published if one not in table.row_of])
            chosen = [table.row_of[one] for one in published if one in table.row_of]
            return np.asarray(table.counts[chosen].sum(axis=0, dtype=np.int64))

    def _read(self, table: _Table, ids: list[int]) -> None:
        """Count what is not counted yet."""
        if not ids:
            return
        more = np.zeros((len(ids), len(_EDGES)), np.uint16)
        first = len(table.counts)
        for row, (micrograph_id, candidates) in enumerate(self._statistics.candidates(ids)):
            more[row] = np.minimum(count_at_thresholds(candidates[:, 2]), np.iinfo(np.uint16).max)
            table.row_of[micrograph_id] = first + row
        table.counts = np.concatenate([table.counts, more])
