"""Reading the journal: sessions, micrographs, what the outputs hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from statistics import median_low
from typing import Any

from drpwatch.errors import SessionError
from drpwatch.micrograph import Fingerprint, ReadyMicrograph
from drpwatch.session import rows
from drpwatch.session.database import Database
from drpwatch.session.lifecycle import SessionState
from drpwatch.session.records import (
    CrashKind,
    MedianPicks,
    MicrographRecord,
    MicrographState,
    OutputLength,
    ParamsVersion,
    PublishedPicks,
    SessionRecord,
    Totals,
)

NEWEST = 20
"""So many micrographs, recorded last, tell what the microscope does now."""

BATCH_ROWS = 200
"""Published micrographs read at a time, so that memory stays flat."""


SESSIONS = (
    "SELECT session.*, json, version, weights_sha256, default_threshold,"
    " params.created_at AS params_created_at FROM session JOIN params ON params.id = session.params_id"
)
"""The beginning of a statement whose rows are sessions with their parameters in force."""


class Views(Database):
    """All questions to the journal.

    A condition such as `+published = 1`, with its plus, keeps SQLite from going through all that is published,
    which it would do rather than look up one name.
    """

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
        found = self._all(f"{SESSIONS} {where} ORDER BY session.id", values)
        return [rows.session(row) for row in found]

    def versions(self, session_id: int) -> list[ParamsVersion]:
        """Return all versions of a session's parameters, oldest first."""
        found = self._all("SELECT * FROM params WHERE session_id = ? ORDER BY id", (session_id,))
        return [rows.version(row) for row in found]

    def next_ready(
        self, session: SessionRecord, taken: frozenset[int], newest_first_beyond: int
    ) -> ReadyMicrograph | None:
        """Return the next ready micrograph whose id is not in `taken`.

        It is the oldest; where more than `newest_first_beyond` are ready, the newest.
        """
        ready = "FROM micrograph WHERE session_id = ? AND latest = 1 AND state = 'ready'"
        behind = self._all(f"SELECT 1 {ready} LIMIT 1 OFFSET ?", (session.id, newest_first_beyond))
        order = "ready_at DESC, id DESC" if behind else "ready_at, id"
        found = self._all(f"SELECT * {ready} ORDER BY {order} LIMIT ?", (session.id, len(taken) + 1))
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
            "SELECT * FROM micrograph WHERE session_id = ? AND name = ? AND +latest = 1 AND +state = 'ready'",
            (session.id, name),
        )
        for row in found:
            return rows.ready(row, session)
        raise SessionError(f"session {session.spec.name}: {name} is not ready to be picked")

    def passed_over(self, session_id: int) -> dict[str, Fingerprint]:
        """Return the files that were there before the session and are not picked, as they were then."""
        found = self._all(
            "SELECT name, size_bytes, mtime_ns, inode FROM passed_over WHERE session_id = ?", (session_id,)
        )
        return {row["name"]: Fingerprint(*row[1:]) for row in found}

    def last_seen_at(self, session_id: int) -> float | None:
        """Return when a micrograph of a session was last seen to be new; None for never."""
        (row,) = self._all(
            "SELECT max(first_seen_at) AS last FROM micrograph WHERE session_id = ?", (session_id,)
        )
        return None if row["last"] is None else float(row["last"])

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
            " WHERE new.id = ? AND old.id <> new.id AND +old.published = 1 LIMIT 1",
            (micrograph_id,),
        )
        return bool(found)

    def published(self, session_id: int) -> Iterator[PublishedPicks]:
        """Yield what the outputs hold, in the order of their rows."""
        last = 0
        while True:
            batch = self._all(
                "SELECT id, name, record_seq, yx_score, threshold FROM micrograph"
                " JOIN candidates ON candidates.micrograph_id = micrograph.id"
                " WHERE session_id = ? AND published = 1 AND record_seq > ? ORDER BY record_seq LIMIT ?",
                (session_id, last, BATCH_ROWS),
            )
            if not batch:
                return
            last = batch[-1]["record_seq"]
            yield from map(rows.published, batch)

    def last_with_rows(self, session_id: int) -> PublishedPicks | None:
        """Return the micrograph whose rows are the last ones in the outputs; None if there are no rows."""
        found = self._all(
            "SELECT id, name, yx_score, threshold FROM micrograph"
            " JOIN candidates ON candidates.micrograph_id = micrograph.id"
            " WHERE session_id = ? AND +published = 1 AND +n_picks > 0 ORDER BY record_seq DESC LIMIT 1",
            (session_id,),
        )
        return rows.published(found[0]) if found else None

    def soiled_picks(self, session_id: int, limit: int) -> list[PublishedPicks]:
        """Return what the picks files should hold that are to be written, at most so many."""
        found = self._all(
            "SELECT id, name, yx_score, threshold FROM micrograph"
            " JOIN candidates ON candidates.micrograph_id = micrograph.id"
            " WHERE session_id = ? AND +published = 1 AND file_dirty = 1 LIMIT ?",
            (session_id, limit),
        )
        return [rows.published(row) for row in found]

    def crashes(self, micrograph_id: int | None = None) -> Counter[CrashKind]:
        """Count the crashes by kind: all, or those in which a generation of a micrograph was on the device."""
        found = self._all(
            "SELECT kind, count(DISTINCT number) AS n FROM crash"
            " WHERE :id IS NULL OR micrograph_id = :id GROUP BY kind",
            {"id": micrograph_id},
        )
        return Counter({CrashKind(row["kind"]): row["n"] for row in found})

    def suspects(self) -> frozenset[int]:
        """Return the ids of micrographs to be picked that were on a device in a crash."""
        found = self._all(
            "SELECT DISTINCT micrograph_id FROM crash"
            " JOIN micrograph ON micrograph.id = micrograph_id WHERE state = 'ready'",
            (),
        )
        return frozenset(int(row["micrograph_id"]) for row in found)

    def count_quarantined(self, session_id: int) -> int:
        """Return how many micrographs of a session are failed by the crash that was one too many."""
        (row,) = self._all(
            "SELECT count(DISTINCT micrograph.id) AS n FROM crash"
            " JOIN micrograph ON micrograph.id = micrograph_id"
            " WHERE session_id = ? AND latest = 1 AND state = 'failed' AND micrograph.recorded_at = crash.at",
            (session_id,),
        )
        return int(row["n"])

    def revision(self, session_id: int) -> int:
        """Return a number that changes with what the outputs should hold, but for outcomes recorded."""
        (row,) = self._all("SELECT revision FROM session WHERE id = ?", (session_id,))
        return int(row["revision"])

    def sessions_behind(self) -> set[int]:
        """Return the ids of sessions whose outputs do not hold what the journal says."""
        found = self._all(
            "SELECT session_id FROM output WHERE dirty = 1"
            " UNION SELECT session_id FROM micrograph WHERE file_dirty = 1 AND published = 1",
            (),
        )
        return {row["session_id"] for row in found}

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
        outdated, values = self._outdated(session_id)
        found = self._all(
            "SELECT micrograph.*, params.version,"  # noqa: S608 - conditions and marks are ours
            f" {outdated} AS outdated FROM micrograph LEFT JOIN params ON params.id = params_id"
            f" WHERE micrograph.session_id = ? AND latest = 1 AND state IN ({marks})"
            " ORDER BY record_seq DESC, micrograph.id DESC LIMIT ?",
            (*values, session_id, *wanted, -1 if limit is None else limit),
        )
        return [rows.micrograph(row) for row in found]

    def count_outdated(self, session_id: int) -> int:
        """Return how many micrographs were picked with other parameters or weights than those in force."""
        outdated, values = self._outdated(session_id)
        (row,) = self._all(
            "SELECT count(*) AS n FROM micrograph"  # noqa: S608 - the condition is ours
            f" WHERE session_id = ? AND latest = 1 AND state = 'picked' AND {outdated}",
            (session_id, *values),
        )
        return int(row["n"])

    def _outdated(self, session_id: int) -> tuple[str, list[Any]]:
        """Return the SQL condition for outdated rows of `micrograph`, and its values.

        A row is up to date if its version finds the same candidates as the one in force, with the same
        weights, and is cut where the one in force cuts it.
        """
        versions = self.versions(session_id)
        (row,) = self._all("SELECT params_id FROM session WHERE id = ?", (session_id,))
        (in_force,) = (one for one in versions if one.id == row["params_id"])
        fresh, values = [], list[Any]()
        for one in versions:
            if in_force.picks_like(one):
                fresh.append("params_id = ? AND threshold IS coalesce(?, threshold)")
                values += [one.id, in_force.threshold_for(one)]
        condition = f"({' OR '.join(fresh)})"
        if in_force.weights is not None:
            condition += " AND micrograph.weights_sha256 IS ?"  # NULL: not known
            values.append(in_force.weights.sha256)
        return f"(state = 'picked' AND NOT ({condition}))", values

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
            sources_missing=self._count_missing(session_id),
            **{state.value: count for state, count in counts.items()},
            picks=int(sums["picks"]),
            last_recorded_at=sums["last"],
        )

    def _count_missing(self, session_id: int) -> int:
        (row,) = self._all(
            "SELECT count(*) AS n FROM micrograph WHERE session_id = ? AND source_missing = 1 AND latest = 1"
            " AND state IN ('picked', 'failed')",
            (session_id,),
        )
        return int(row["n"])

    def recorded_since(self, session_id: int, since: float) -> int:
        """Return how many micrographs were recorded after `since`."""
        (row,) = self._all(
            "SELECT count(*) AS n FROM micrograph WHERE session_id = ? AND latest = 1"
            " AND state IN ('picked', 'failed') AND recorded_at > ?",
            (session_id, since),
        )
        return int(row["n"])

    def median_picks(self, session_id: int) -> MedianPicks | None:
        """Return the median of the picks per micrograph, now and in all; None before any is picked."""
        newest = self._all(
            "SELECT n_picks FROM micrograph WHERE session_id = ? AND published = 1"
            " ORDER BY record_seq DESC LIMIT ?",
            (session_id, NEWEST),
        )
        # The lower of two middle ones, because it is in an index.
        middle = self._all(
            "SELECT n_picks FROM micrograph WHERE session_id = :id AND published = 1 ORDER BY n_picks LIMIT 1"
            " OFFSET (SELECT (count(*) - 1) / 2 FROM micrograph WHERE session_id = :id AND published = 1)",
            {"id": session_id},
        )
        if not middle:
            return None
        return MedianPicks(median_low([row["n_picks"] for row in newest]), middle[0]["n_picks"])

    def enlargement(self, session_id: int) -> float:
        """Return how many times the diameter given the particles of the newest micrographs are across, in the median.

        1 where they are no larger, or the parameters have changed since.
        """
        newest = self._all(
            "SELECT coalesce(enlargement, 1.0) AS times FROM (SELECT enlargement, params_id FROM micrograph"
            " WHERE session_id = :id AND published = 1 ORDER BY record_seq DESC LIMIT :limit)"
            " WHERE params_id = (SELECT params_id FROM session WHERE id = :id)",
            {"id": session_id, "limit": NEWEST},
        )
        return float(median_low([row["times"] for row in newest] or [1.0]))

    def oldest_unpicked(self, session_id: int) -> float | None:
        """Return when the oldest ready micrograph was first seen; None if none is ready."""
        (row,) = self._all(
            "SELECT min(first_seen_at) AS oldest FROM micrograph"
            " WHERE session_id = ? AND latest = 1 AND state = 'ready'",
            (session_id,),
        )
        return None if row["oldest"] is None else float(row["oldest"])
