"""The journal: the one truth about sessions, micrographs and what the outputs hold.

One SQLite file on local disk that any thread may use. Each method is one transaction unless the
caller opens `transaction()` around several. The journal does not know files; `session.outputs`
brings files and journal together. Times are handed in.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from drpwatch import __version__
from drpwatch.errors import SessionError
from drpwatch.micrograph import Fingerprint, ImageHeader, Outcome, Picks
from drpwatch.session import rows
from drpwatch.session.lifecycle import SessionState, Verb, advance
from drpwatch.session.records import (
    Crash,
    CrashKind,
    MicrographState,
    OutputLength,
    PinnedWeights,
    SessionRecord,
    SessionSpec,
)
from drpwatch.session.sources import Sources

LOOK_AGAIN = "to be looked at again"
MOST_CRASHES = 2
"""A micrograph that was on the device in so many crashes is quarantined."""
MOST_KILLS = 10
"""And one in so many ends without a word: these are mostly not its fault."""
_FILE = (
    "size_bytes, mtime_ns, inode, height_px, width_px, dtype, data_offset_bytes, compressed,"
    " pixel_y_angstrom, pixel_x_angstrom"
)


class Journal(Sources):
    """All that must survive.

    See `Views` for the questions that it answers, `Parameters` for changes of these, `Sources` for what becomes
    of files.
    """

    def add_session(
        self, spec: SessionSpec, now: float, weights: PinnedWeights | None = None
    ) -> SessionRecord:
        """Add a session in state created; `weights` are those that its model's name stands for.

        Raises
        ------
        SessionError
            The name is taken.
        """
        with self.transaction():
            if self._db.execute("SELECT 1 FROM session WHERE name = ?", (spec.name,)).fetchone():
                raise SessionError(f"session {spec.name} exists already: reopen it, or take another name")
            values = (spec.name, str(spec.watch_root), str(spec.out_dir), spec.glob, spec.micrograph_prefix)
            cursor = self._db.execute(
                "INSERT INTO session (name, watch_root, out_dir, glob, micrograph_prefix, state,"
                " pixel_size_angstrom, created_at, changed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, SessionState.CREATED, spec.params.pixel_size_angstrom, now, now),
            )
            assert cursor.lastrowid is not None
            self._add_version(cursor.lastrowid, spec.params, weights, now)
            return self.session(spec.name)

    def pass_over(self, session_id: int, backfill: str, files: Mapping[str, Fingerprint]) -> None:
        """Note which files that are there already are not to be picked, unless they change."""
        with self.transaction():
            self._db.execute("UPDATE session SET backfill = ? WHERE id = ?", (backfill, session_id))
            self._db.executemany(
                "INSERT INTO passed_over (session_id, name, size_bytes, mtime_ns, inode) VALUES (?, ?, ?, ?, ?)",
                [
                    (session_id, name, marks.size_bytes, marks.mtime_ns, marks.inode)
                    for name, marks in files.items()
                ],
            )

    def advance(self, name: str, verb: Verb, now: float, reason: str | None = None) -> SessionRecord:
        """Take one step of the session's life and keep it as a transition.

        Raises
        ------
        SessionError
            There is no such session, or its state forbids the verb.
        """
        with self.transaction():
            session = self.session(name)
            try:
                state = advance(session.state, verb)
            except SessionError as error:
                raise SessionError(f"session {name}: {error}") from None
            self._db.execute(
                "UPDATE session SET state = ?, reason = ?, changed_at = ? WHERE id = ?",
                (state, reason, now, session.id),
            )
            self._db.execute(
                "INSERT INTO transition (session_id, verb, from_state, to_state, reason, at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (session.id, verb, session.state, state, reason, now),
            )
            return self.session(name)

    # ---- micrographs on their way ---------------------------------------------------------------

    def note_waiting(self, session_id: int, name: str, reason: str, now: float) -> None:
        """Note that a file was seen and why it is not picked yet; a recorded name opens a new generation."""
        with self.transaction():
            micrograph_id = self._open(session_id, name, now)
            self._db.execute(
                "UPDATE micrograph SET state = 'waiting', reason = ?, source_missing = 0 WHERE id = ?",
                (reason, micrograph_id),
            )

    def note_ready(
        self, session_id: int, name: str, header: ImageHeader, fingerprint: Fingerprint, now: float
    ) -> None:
        """Queue a whole file to be picked; a recorded name opens a new generation."""
        pixel_size = header.pixel_size_yx_angstrom or (None, None)
        image = (*header.shape_yx, header.dtype.str, header.data_offset_bytes, int(header.compressed))
        with self.transaction():
            micrograph_id = self._open(session_id, name, now)
            self._db.execute(
                "UPDATE micrograph SET state = 'ready', reason = NULL, source_missing = 0, ready_at = ?, height_px = ?,"
                " width_px = ?, dtype = ?, data_offset_bytes = ?, compressed = ?,"
                " pixel_y_angstrom = ?, pixel_x_angstrom = ? WHERE id = ?",
                (now, *image, *pixel_size, micrograph_id),
            )
            self._mark(micrograph_id, fingerprint)

    def note_failed(
        self, session_id: int, name: str, reason: str, fingerprint: Fingerprint | None, now: float
    ) -> None:
        """Record a file that cannot be picked, before anything of it was read.

        The rows of an earlier generation no longer stand for the file: the outputs become dirty.
        """
        with self.transaction():
            micrograph_id = self._open(session_id, name, now)
            if fingerprint is not None:
                self._mark(micrograph_id, fingerprint)
            # What was known of an earlier state of the file says nothing of this one.
            self._db.execute("UPDATE micrograph SET height_px = NULL WHERE id = ?", (micrograph_id,))
            self._finish(micrograph_id, session_id, now, reason=reason)
            if self._unpublish_older(micrograph_id):
                self._soil(session_id)

    def put_back(self, micrograph_id: int, reason: str) -> None:
        """Let a ready micrograph wait again: it changed before it was read."""
        with self.transaction():
            self._db.execute(
                "UPDATE micrograph SET state = 'waiting', reason = ? WHERE id = ? AND state = 'ready'",
                (reason, micrograph_id),
            )

    def withdraw(self, session_id: int, names: Iterable[str], reason: str, now: float) -> None:
        """Take micrographs out of what the outputs hold; a new generation of each waits to be picked."""
        with self.transaction():
            for name in names:
                self.note_waiting(session_id, name, reason, now)
                self._unpublish_older(self._open(session_id, name, now))
            self._soil(session_id)

    def pick_again(self, session_id: int, names: Iterable[str], now: float) -> tuple[list[str], list[str]]:
        """Open a new generation of recorded micrographs; their rows stay until it is recorded.

        One whose file is known is ready at once, for whoever reads it finds out whether it changed. Of the
        others nothing is known but the name: they wait to be found whole. Names that are not recorded are
        left out.

        Returns
        -------
        tuple
            Names that are ready, and names that wait.
        """
        ready: list[str] = []
        waiting: list[str] = []
        with self.transaction():
            for name in names:
                old = self._db.execute(
                    "SELECT id, size_bytes, height_px FROM micrograph WHERE session_id = ? AND name = ?"
                    " AND +latest = 1 AND +state IN ('picked', 'failed')",
                    (session_id, name),
                ).fetchone()
                if old is None:
                    continue
                micrograph_id = self._open(session_id, name, now)
                self._db.execute("UPDATE micrograph SET asked = 1 WHERE id = ?", (micrograph_id,))
                known = old["size_bytes"] is not None and old["height_px"] is not None
                if known:
                    self._db.execute(
                        f"UPDATE micrograph SET state = 'ready', ready_at = ?, ({_FILE}) ="  # noqa: S608 - ours
                        f" (SELECT {_FILE} FROM micrograph WHERE id = ?) WHERE id = ?",
                        (now, old["id"], micrograph_id),
                    )
                else:
                    self._db.execute(
                        "UPDATE micrograph SET reason = ? WHERE id = ?", (LOOK_AGAIN, micrograph_id)
                    )
                (ready if known else waiting).append(name)
        return ready, waiting

    def _open(self, session_id: int, name: str, now: float) -> int:
        """Return the row to note on: the latest if it is still open, else that of a new generation."""
        row = self._latest(session_id, name)
        if row is not None and row["state"] in ("waiting", "ready"):
            return int(row["id"])
        if row is not None:
            self._db.execute("UPDATE micrograph SET latest = 0 WHERE id = ?", (row["id"],))
        # There may be generations though none is the latest: the file had moved away.
        cursor = self._db.execute(
            "INSERT INTO micrograph (session_id, name, generation, state, first_seen_at)"
            " SELECT :session_id, :name, coalesce(max(generation), 0) + 1, 'waiting', :now FROM micrograph"
            " WHERE session_id = :session_id AND name = :name",
            {"session_id": session_id, "name": name, "now": now},
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def record(
        self, outcome: Outcome, lengths: Mapping[str, OutputLength], now: float, revision: int
    ) -> Outcome | None:
        """Record an outcome and the lengths that the output files have with it, at once.

        Earlier generations of the micrograph are no longer published. Where the tables hold rows of these,
        or what they should hold changed since `revision`, they become dirty.

        Returns
        -------
        Outcome or None
            What was recorded, see `in_force`. None, and nothing is recorded, where the journal no longer
            waits for this outcome: see `awaits`.
        """
        with self.transaction():
            if not self.awaits(outcome.ready):
                return None
            outcome = self.in_force(outcome)
            ready, picks = outcome.ready, outcome.picks
            session_id = self.session(ready.session).id
            self._finish(ready.micrograph_id, session_id, now, outcome.failure, picks, outcome.seconds)
            moved = self.revision(session_id) != revision
            self._db.execute(
                "UPDATE micrograph SET params_id = ?, file_dirty = ?, content = ? WHERE id = ?",
                (ready.params_id, int(moved and picks is not None), ready.content, ready.micrograph_id),
            )
            self.set_outputs(session_id, lengths, revision)
            if self._unpublish_older(ready.micrograph_id):
                self._soil(session_id)
            self._retire_moved(session_id, ready.name)
            return outcome

    def note_crash(self, crash: Crash, now: float) -> tuple[str, str] | None:
        """Keep how an earlier process ended; a micrograph that may have caused too many of these is failed.

        Not while there are others that may have caused this one: suspects are picked alone from then on.

        Returns
        -------
        tuple or None
            Session and reason, where the micrograph was quarantined.
        """
        with self.transaction():
            found = [
                row
                for suspect in crash.suspects
                for row in self._all(
                    "SELECT micrograph.id, session_id, session.name FROM micrograph"
                    " JOIN session ON session.id = session_id"
                    " WHERE micrograph.id = ? AND micrograph.name = ? AND micrograph.state = 'ready'",
                    (suspect.micrograph_id, suspect.name),
                )
            ]
            ((number,),) = self._all("SELECT coalesce(max(number), 0) + 1 FROM crash", ())
            self._db.executemany(
                "INSERT INTO crash (number, at, kind, reason, micrograph_id) VALUES (?, ?, ?, ?, ?)",
                [
                    (number, now, crash.kind, crash.reason, micrograph_id)
                    for micrograph_id in ([row[0] for row in found] or [None])
                ],
            )
            if not found or len(crash.suspects) > 1:
                return None
            micrograph_id, session_id, session = int(found[0][0]), int(found[0][1]), str(found[0][2])
            counts = self.crashes(micrograph_id)
            kills = counts.pop(CrashKind.KILLED, 0)
            if counts.total() < MOST_CRASHES and kills < MOST_KILLS:
                return None
            times = f"{kills} times" if kills >= MOST_KILLS else "twice"
            reason = (
                f"quarantined: drpwatch ended {times} while it picked this file ({crash.reason});"
                f" 'drpwatch session retry {session}' tries it again"
            )
            self._finish(micrograph_id, session_id, now, reason=reason)
            if self._unpublish_older(micrograph_id):
                self._soil(session_id)
            return session, reason

    def restore(
        self, session_id: int, name: str, picks: Picks, fingerprint: Fingerprint | None, now: float
    ) -> int:
        """Take in picks that outputs have of a micrograph, and no journal any more; return its id.

        With which parameters they were made is not known: while they have no weights, they are outdated.
        """
        with self.transaction():
            micrograph_id = self._open(session_id, name, now)
            if fingerprint is not None:
                self._mark(micrograph_id, fingerprint)
            self._finish(micrograph_id, session_id, now, picks=picks)
            self._db.execute(
                "UPDATE micrograph SET code_version = NULL, enlargement = NULL, params_id ="
                " (SELECT params_id FROM session WHERE id = ?) WHERE id = ?",
                (session_id, micrograph_id),
            )
            return micrograph_id

    def _finish(
        self,
        micrograph_id: int,
        session_id: int,
        now: float,
        reason: str | None = None,
        picks: Picks | None = None,
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        """Write the end of one generation: its picks, or the reason why there are none."""
        values: dict[str, Any] = {"state": MicrographState.FAILED, "reason": reason, "published": 0}
        if picks is not None:
            values |= {
                "state": MicrographState.PICKED,
                "published": 1,
                "weights_sha256": picks.weights_sha256 or None,
                "n_picks": picks.count,
                "n_candidates": len(picks.score),
                "threshold": float(picks.threshold),
                "enlargement": picks.enlargement,
            }
        values |= {
            "code_version": __version__,
            "seconds": json.dumps(dict(seconds or {})),
            "recorded_at": now,
        }
        columns = ", ".join(f"{name} = :{name}" for name in values)
        self._db.execute(
            f"UPDATE micrograph SET {columns}, record_seq ="  # noqa: S608 - column names are ours
            " (SELECT coalesce(max(record_seq), 0) + 1 FROM micrograph WHERE session_id = :session_id)"
            " WHERE id = :id",
            values | {"id": micrograph_id, "session_id": session_id},
        )
        if picks is not None:
            self._db.execute(
                "INSERT OR REPLACE INTO candidates (micrograph_id, yx_score) VALUES (?, ?)",
                (micrograph_id, rows.pack(picks)),
            )

    def _unpublish_older(self, micrograph_id: int) -> bool:
        """Take earlier generations out of what the outputs hold; return whether there were any."""
        cursor = self._db.execute(
            "UPDATE micrograph SET published = 0, file_dirty = 0"
            " WHERE +published = 1 AND id <> :id AND (session_id, name) ="
            " (SELECT session_id, name FROM micrograph WHERE id = :id)",
            {"id": micrograph_id},
        )
        return cursor.rowcount > 0

    def forget_output(self, session_id: int, file: str) -> None:
        """Account no more for an output file, which is gone."""
        with self.transaction():
            self._db.execute("DELETE FROM output WHERE session_id = ? AND file = ?", (session_id, file))

    def set_outputs(self, session_id: int, lengths: Mapping[str, OutputLength], revision: int) -> None:
        """Account for output files, which are dirty if what they should hold changed since `revision`."""
        with self.transaction():
            moved = self.revision(session_id) != revision
            self._db.executemany(
                "INSERT OR REPLACE INTO output (session_id, file, length_bytes, dirty) VALUES (?, ?, ?, ?)",
                [
                    (session_id, file, state.length_bytes, int(state.dirty or moved))
                    for file, state in lengths.items()
                ],
            )
