"""Reading the journal: sessions, micrographs, what the outputs hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from drpwatch.errors import SessionError
from drpwatch.micrograph import ReadyMicrograph
from drpwatch.session import rows
from drpwatch.session.database import Database
from drpwatch.session.lifecycle import SessionState
from drpwatch.session.records import (
    MicrographRecord,
    MicrographState,
    OutputLength,
    PublishedPicks,
    SessionRecord,
    Totals,
)

_BATCH_ROWS = 200  # published micrographs read at a time while outputs are rebuilt


class Views(Database):
    """All questions to the journal."""

    def session(self, name: str) -> SessionRecord:
        """Return one session.

        Raises
        ------
        SessionError
            There is none of that name.
        """
        for record in self._sessions("WHERE session.name = ?", (name,)):
            return record
        raise SessionError(f"no session named {name}")

    def sessions(self, states: Iterable[SessionState] = tuple(SessionState)) -> list[SessionRecord]:
        """Return the sessions that are in one of `states`, oldest first."""
        wanted = tuple(states)
        marks = ", ".join("?" * len(wanted))
        return self._sessions(f"WHERE session.state IN ({marks})", wanted)

    def _sessions(self, where: str, values: tuple[Any, ...]) -> list[SessionRecord]:
        return [
            rows.session(row)
            for row in self._all(
                "SELECT session.*, params.json AS params FROM session"  # noqa: S608 - `where` is ours
                f" JOIN params ON params.id = session.params_id {where} ORDER BY session.id",
                values,
            )
        ]

    def next_ready(self, session: SessionRecord, taken: frozenset[int]) -> ReadyMicrograph | None:
        """Return the newest ready micrograph whose id is not in `taken`."""
        found = self._all(
            "SELECT * FROM micrograph WHERE session_id = ? AND latest = 1 AND state = 'ready'"
            " ORDER BY ready_at DESC, id DESC LIMIT ?",
            (session.id, len(taken) + 1),
        )
        for row in found:
            if row["id"] not in taken:
                return rows.ready(row, session)
        return None

    def ready(self, session: SessionRecord, name: str) -> ReadyMicrograph:
        """Return the ready micrograph of that name.

        Raises
        ------
        SessionError
            It is not ready.
        """
        found = self._all(
            "SELECT * FROM micrograph WHERE session_id = ? AND name = ? AND latest = 1 AND state = 'ready'",
            (session.id, name),
        )
        for row in found:
            return rows.ready(row, session)
        raise SessionError(f"session {session.spec.name}: {name} is not ready to be picked")

    def awaits(self, ready: ReadyMicrograph) -> bool:
        """Tell whether an outcome of this micrograph is still wanted.

        It is not when the outcome was recorded before, or the file changed after it was taken.
        """
        marks = ready.fingerprint
        found = self._all(
            "SELECT 1 FROM micrograph WHERE id = ? AND state = 'ready'"
            " AND size_bytes = ? AND mtime_ns = ? AND inode = ?",
            (ready.micrograph_id, marks.size_bytes, marks.mtime_ns, marks.inode),
        )
        return bool(found)

    def has_older_rows(self, micrograph_id: int) -> bool:
        """Tell whether the outputs hold rows of an earlier generation of this micrograph."""
        found = self._all(
            "SELECT 1 FROM micrograph AS old JOIN micrograph AS new USING (session_id, name)"
            " WHERE new.id = ? AND old.id <> new.id AND old.published = 1 LIMIT 1",
            (micrograph_id,),
        )
        return bool(found)

    def published(self, session_id: int, without_name: str | None = None) -> Iterator[PublishedPicks]:
        """Yield what the outputs hold, in the order of their rows; optionally all but one name."""
        last = 0
        while True:
            batch = self._all(
                "SELECT name, record_seq, yx_score, threshold FROM micrograph"
                " JOIN candidates ON candidates.micrograph_id = micrograph.id"
                " WHERE session_id = ? AND published = 1 AND record_seq > ? ORDER BY record_seq LIMIT ?",
                (session_id, last, _BATCH_ROWS),
            )
            if not batch:
                return
            last = batch[-1]["record_seq"]
            for row in batch:
                if row["name"] != without_name:
                    yield rows.published(row)

    def names_without_rows(self, session_id: int) -> set[str]:
        """Return the names of which the outputs hold no generation."""
        found = self._all(
            "SELECT name FROM micrograph WHERE session_id = ? AND published = 0"
            " EXCEPT SELECT name FROM micrograph WHERE session_id = ? AND published = 1",
            (session_id, session_id),
        )
        return {row["name"] for row in found}

    def outputs(self, session_id: int) -> dict[str, OutputLength]:
        """Return how much of each output file is accounted for."""
        found = self._all("SELECT * FROM output WHERE session_id = ?", (session_id,))
        return {row["file"]: OutputLength(row["length_bytes"], bool(row["dirty"])) for row in found}

    def micrographs(
        self, session_id: int, states: Iterable[MicrographState], limit: int | None = None
    ) -> list[MicrographRecord]:
        """Return the latest generation of each micrograph that is in one of `states`, newest first."""
        wanted = tuple(states)
        marks = ", ".join("?" * len(wanted))
        found = self._all(
            "SELECT id, name, generation, state, reason, size_bytes, mtime_ns, inode, n_picks, threshold,"  # noqa: S608
            " weights_sha256, first_seen_at, ready_at, recorded_at, seconds, params_id FROM micrograph"
            f" WHERE session_id = ? AND latest = 1 AND state IN ({marks})"
            " ORDER BY record_seq DESC, id DESC LIMIT ?",
            (session_id, *wanted, -1 if limit is None else limit),
        )
        return [rows.micrograph(row) for row in found]

    def totals(self, session_id: int) -> Totals:
        """Return the counts of one session."""
        counts = dict.fromkeys(MicrographState, 0)
        for row in self._all(
            "SELECT state, count(*) AS n FROM micrograph WHERE session_id = ? AND latest = 1 GROUP BY state",
            (session_id,),
        ):
            counts[MicrographState(row["state"])] = row["n"]
        (sums,) = self._all(
            "SELECT total(n_picks) AS picks, max(recorded_at) AS last FROM micrograph"
            " WHERE session_id = ? AND published = 1",
            (session_id,),
        )
        return Totals(
            **{state.value: count for state, count in counts.items()},
            picks=int(sums["picks"]),
            last_recorded_at=sums["last"],
        )

    def recorded_since(self, session_id: int, since: float) -> int:
        """Return how many micrographs were recorded after `since`."""
        (row,) = self._all(
            "SELECT count(*) AS n FROM micrograph WHERE session_id = ? AND latest = 1"
            " AND state IN ('picked', 'failed') AND recorded_at > ?",
            (session_id, since),
        )
        return int(row["n"])

    def oldest_unpicked(self, session_id: int) -> float | None:
        """Return when the oldest ready micrograph was first seen; None if none is ready."""
        (row,) = self._all(
            "SELECT min(first_seen_at) AS oldest FROM micrograph"
            " WHERE session_id = ? AND latest = 1 AND state = 'ready'",
            (session_id,),
        )
        return None if row["oldest"] is None else float(row["oldest"])
