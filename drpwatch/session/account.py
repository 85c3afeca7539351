"""What a session was, for its report: its record, and what was picked with what. Reads only."""

from __future__ import annotations

from dataclasses import dataclass

from drpwatch.errors import SessionError
from drpwatch.session import rows
from drpwatch.session.lifecycle import SessionState
from drpwatch.session.records import MicrographState, ParamsVersion, SessionRecord
from drpwatch.session.statistics import Statistics
from drpwatch.session.views import SESSIONS


@dataclass(frozen=True, slots=True)
class PickedWith:
    """The micrographs that stand for the session now and were picked alike."""

    params_id: int
    threshold: float
    weights_sha256: str
    code_version: str  # of drpwatch
    micrographs: int
    picks: int


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state."""

    at: float  # unix seconds
    verb: str
    to_state: SessionState
    reason: str | None


class Account(Statistics):
    """Reads one journal; safe to call from any thread."""

    def record(self, name: str) -> SessionRecord:
        """Return one session.

        Raises
        ------
        SessionError
            There is none of that name.
        """
        for row in self._all(f"{SESSIONS} WHERE session.name = ?", (name,)):
            return rows.session(row)
        raise SessionError(f"no session named {name}")

    def versions(self, session_id: int) -> list[ParamsVersion]:
        """Return all versions of a session's parameters, oldest first."""
        found = self._all("SELECT * FROM params WHERE session_id = ? ORDER BY id", (session_id,))
        return [rows.version(row) for row in found]

    def transitions(self, session_id: int) -> list[Transition]:
        """Return all changes of state, oldest first."""
        found = self._all(
            "SELECT at, verb, to_state, reason FROM transition WHERE session_id = ? ORDER BY id",
            (session_id,),
        )
        return [
            Transition(row["at"], row["verb"], SessionState(row["to_state"]), row["reason"]) for row in found
        ]

    def picked_with(self, session_id: int) -> list[PickedWith]:
        """Return how many micrographs were picked with which parameters, weights and code."""
        found = self._all(
            "SELECT params_id, threshold, weights_sha256, coalesce(code_version, '') AS code_version,"
            " count(*) AS micrographs, sum(n_picks) AS picks FROM micrograph"
            " WHERE session_id = ? AND published = 1 GROUP BY 1, 2, 3, 4 ORDER BY min(record_seq)",
            (session_id,),
        )
        return [PickedWith(**dict(row)) for row in found]

    def unfinished(self, session_id: int) -> dict[MicrographState, int]:
        """Return how many micrographs are not whole, and how many are still to be picked."""
        states = (MicrographState.WAITING, MicrographState.READY)
        found = self._all(
            "SELECT state, count(*) AS n FROM micrograph"
            " WHERE session_id = ? AND latest = 1 AND state IN (?, ?) GROUP BY state",
            (session_id, *states),
        )
        return dict.fromkeys(states, 0) | {MicrographState(row["state"]): row["n"] for row in found}

    def stage_seconds(self, session_id: int) -> dict[str, float]:
        """Return the mean seconds that a picked micrograph took in each stage."""
        found = self._all(
            "SELECT key, avg(value) AS mean FROM micrograph, json_each(micrograph.seconds)"
            " WHERE session_id = ? AND published = 1 GROUP BY key",
            (session_id,),
        )
        return {row["key"]: row["mean"] for row in found}

    def reasons(self, session_id: int, limit: int) -> list[tuple[str, int]]:
        """Return why micrographs failed, and how many for each reason, the most frequent first."""
        found = self._all(
            "SELECT reason, count(*) AS n FROM micrograph"
            " WHERE session_id = ? AND latest = 1 AND state = 'failed' GROUP BY reason ORDER BY n DESC LIMIT ?",
            (session_id, limit),
        )
        return [(row["reason"] or "no reason is known", row["n"]) for row in found]
