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
from drpwatch.session.records import MicrographState, OutputLength, SessionRecord, SessionSpec
from drpwatch.session.views import Views


class Journal(Views):
    """All that must survive; see `Views` for the questions that it answers."""

    def add_session(self, spec: SessionSpec, now: float) -> SessionRecord:
        """Add a session in state created.

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
            session_id = cursor.lastrowid
            params_id = self._db.execute(
                "INSERT INTO params (session_id, version, json, created_at) VALUES (?, 1, ?, ?)",
                (session_id, json.dumps(spec.params.as_dict()), now),
            ).lastrowid
            self._db.execute("UPDATE session SET params_id = ? WHERE id = ?", (params_id, session_id))
            return self.session(spec.name)

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

    def respecify(self, spec: SessionSpec, now: float) -> SessionRecord:
        """Give a session another specification; other parameters become a new version of them.

        The outputs become dirty where they would look different. Other parameters leave the pixel size of
        the outputs open again, unless they have it. What was picked stays as it is: see `withdraw`.

        Raises
        ------
        SessionError
            There is no session of that name.
        """
        with self.transaction():
            session = self.session(spec.name)
            if spec == session.spec:
                return session
            self._db.execute(
                "UPDATE session SET watch_root = ?, out_dir = ?, glob = ?, micrograph_prefix = ? WHERE id = ?",
                (str(spec.watch_root), str(spec.out_dir), spec.glob, spec.micrograph_prefix, session.id),
            )
            if spec.params != session.spec.params:
                params_id = self._db.execute(
                    "INSERT INTO params (session_id, version, json, created_at)"
                    " SELECT ?, max(version) + 1, ?, ? FROM params WHERE session_id = ?",
                    (session.id, json.dumps(spec.params.as_dict()), now, session.id),
                ).lastrowid
                self._db.execute(
                    "UPDATE session SET params_id = ?, pixel_size_angstrom = ? WHERE id = ?",
                    (params_id, spec.params.pixel_size_angstrom, session.id),
                )
            self._db.execute("UPDATE output SET dirty = 1 WHERE session_id = ?", (session.id,))
            return self.session(spec.name)

    def set_pixel_size(self, session_id: int, pixel_size_angstrom: float) -> None:
        """Fix the pixel size that the outputs carry; those written with another one become dirty."""
        with self.transaction():
            self._db.execute("UPDATE output SET dirty = 1 WHERE session_id = ?", (session_id,))
            self._db.execute(
                "UPDATE session SET pixel_size_angstrom = ? WHERE id = ?", (pixel_size_angstrom, session_id)
            )

    # ---- micrographs on their way ---------------------------------------------------------------

    def note_waiting(self, session_id: int, name: str, reason: str, now: float) -> None:
        """Note that a file was seen and why it is not picked yet; a recorded name opens a new generation."""
        with self.transaction():
            micrograph_id = self._open(session_id, name, now)
            self._db.execute(
                "UPDATE micrograph SET state = 'waiting', reason = ? WHERE id = ?", (reason, micrograph_id)
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
                "UPDATE micrograph SET state = 'ready', reason = NULL, ready_at = ?, height_px = ?,"
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
            self._finish(micrograph_id, session_id, now, reason=reason)
            if self._unpublish_older(micrograph_id):
                self._db.execute("UPDATE output SET dirty = 1 WHERE session_id = ?", (session_id,))

    def _mark(self, micrograph_id: int, fingerprint: Fingerprint) -> None:
        """Keep which state of the file is meant."""
        self._db.execute(
            "UPDATE micrograph SET size_bytes = ?, mtime_ns = ?, inode = ? WHERE id = ?",
            (fingerprint.size_bytes, fingerprint.mtime_ns, fingerprint.inode, micrograph_id),
        )

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
            self._db.execute("UPDATE output SET dirty = 1 WHERE session_id = ?", (session_id,))

    def _open(self, session_id: int, name: str, now: float) -> int:
        """Return the row to note on: the latest if it is still open, else that of a new generation."""
        row = self._db.execute(
            "SELECT id, generation, state FROM micrograph WHERE session_id = ? AND name = ? AND latest = 1",
            (session_id, name),
        ).fetchone()
        if row is not None and row["state"] in ("waiting", "ready"):
            return int(row["id"])
        generation = 1
        if row is not None:
            generation = row["generation"] + 1
            self._db.execute("UPDATE micrograph SET latest = 0 WHERE id = ?", (row["id"],))
        cursor = self._db.execute(
            "INSERT INTO micrograph (session_id, name, generation, state, first_seen_at)"
            " VALUES (?, ?, ?, 'waiting', ?)",
            (session_id, name, generation, now),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def record(self, outcome: Outcome, lengths: Mapping[str, OutputLength], now: float) -> bool:
        """Record an outcome and the lengths that the output files have with it, at once.

        Earlier generations of the micrograph are no longer published. Returns False, and records
        nothing, where the journal no longer waits for this outcome: see `awaits`.
        """
        ready, picks = outcome.ready, outcome.picks
        with self.transaction():
            if not self.awaits(ready):
                return False
            session_id = self.session(ready.session).id
            self._finish(ready.micrograph_id, session_id, now, outcome.failure, picks, outcome.seconds)
            self._db.execute(
                "UPDATE micrograph SET params_id = ? WHERE id = ?", (ready.params_id, ready.micrograph_id)
            )
            self._unpublish_older(ready.micrograph_id)
            self.set_outputs(session_id, lengths)
            return True

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
                "weights_sha256": picks.weights_sha256,
                "n_picks": picks.count,
                "n_candidates": len(picks.score),
                "threshold": float(picks.threshold),
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
            "UPDATE micrograph SET published = 0 WHERE published = 1 AND id <> :id AND (session_id, name) ="
            " (SELECT session_id, name FROM micrograph WHERE id = :id)",
            {"id": micrograph_id},
        )
        return cursor.rowcount > 0

    def set_outputs(self, session_id: int, lengths: Mapping[str, OutputLength]) -> None:
        """Account for output files."""
        with self.transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO output (session_id, file, length_bytes, dirty) VALUES (?, ?, ?, ?)",
                [(session_id, file, state.length_bytes, int(state.dirty)) for file, state in lengths.items()],
            )
