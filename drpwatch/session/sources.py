"""What became of the files that were picked: only touched, gone, back, or at another path.

What was picked of a file outlives it. A file whose pixels are the same is the same micrograph, whatever its
times say; and where its name is another one, and the first is gone, it has moved.
"""

from __future__ import annotations

from drpwatch import __version__
from drpwatch.micrograph import Fingerprint, Picks, ReadyMicrograph
from drpwatch.session import rows
from drpwatch.session.parameters import Parameters


class Sources(Parameters):
    """Keeping records in step with the files that they are of."""

    def fingerprints(self, session_id: int) -> dict[str, Fingerprint | None]:
        """Return the files that are queued or finished, each in the state that is meant.

        None for one that was picked, and of which nothing else is known: see `Journal.restore`.
        """
        found = self._all(
            "SELECT name, size_bytes, mtime_ns, inode FROM micrograph WHERE session_id = ? AND latest = 1"
            " AND state <> 'waiting' AND (size_bytes IS NOT NULL OR state = 'picked')",
            (session_id,),
        )
        return {row["name"]: None if row["size_bytes"] is None else Fingerprint(*row[1:]) for row in found}

    def missing_sources(self, session_id: int) -> set[str]:
        """Return the names whose file is not there any more."""
        found = self._all(
            "SELECT name FROM micrograph WHERE session_id = ? AND latest = 1 AND source_missing = 1",
            (session_id,),
        )
        return {row["name"] for row in found}

    def note_gone(self, session_id: int, name: str, reason: str) -> Fingerprint | None:
        """Note that a file is not there any more; what was picked of it stays.

        One that waits to replace what was picked of it gives way to that; any other one waits on, with
        `reason`.

        Returns
        -------
        Fingerprint or None
            Which state of the file counts again, where a waiting one gave way.
        """
        with self.transaction():
            row = self._latest(session_id, name)
            if row is None:
                return None
            restored = self._give_way(row["id"]) if row["state"] == "waiting" else None
            if row["state"] == "waiting" and restored is None:
                self._db.execute("UPDATE micrograph SET reason = ? WHERE id = ?", (reason, row["id"]))
                return None
            self._db.execute(
                "UPDATE micrograph SET source_missing = 1 WHERE session_id = ? AND name = ? AND +latest = 1",
                (session_id, name),
            )
            self._retire_moved(session_id, name)
            return restored

    def note_left_out(self, session_id: int, name: str) -> None:
        """Forget a micrograph that is none any more; what was picked of it is taken out of the outputs."""
        with self.transaction():
            row = self._latest(session_id, name)
            if row is not None and row["state"] in ("waiting", "ready"):
                restored = self._give_way(row["id"])
                if restored is None:
                    self._delete(row["id"])
            cursor = self._db.execute(
                "UPDATE micrograph SET published = 0, latest = 0, file_dirty = 0"
                " WHERE session_id = ? AND name = ? AND +latest = 1",
                (session_id, name),
            )
            if cursor.rowcount > 0:
                self._soil(session_id)

    def note_back(self, session_id: int, name: str) -> bool:
        """Note that a file is there again; return whether anything is recorded of it."""
        with self.transaction():
            cursor = self._db.execute(
                "UPDATE micrograph SET source_missing = 0 WHERE session_id = ? AND name = ? AND +latest = 1",
                (session_id, name),
            )
            return cursor.rowcount > 0

    def keep(self, ready: ReadyMicrograph) -> bool:
        """Let what the outputs hold of a micrograph stand, if its file was only touched.

        Returns
        -------
        bool
            False, and nothing is changed, where the content is another one, or somebody asked to have it
            picked again.
        """
        if ready.asked or ready.content is None:
            return False
        with self.transaction():
            session_id = self.session(ready.session).id
            found = self._all(
                "SELECT id FROM micrograph WHERE session_id = ? AND name = ? AND +content = ?"
                " AND +state = 'picked' AND +published = 1",
                (session_id, ready.name, ready.content),
            )
            if not found or not self.awaits(ready):
                return False
            self._give_way(ready.micrograph_id)
            self._mark(found[0]["id"], ready.fingerprint)
            return True

    def picks_of_content(self, ready: ReadyMicrograph) -> dict[str, Picks]:
        """Return what was picked of the same pixels in the same way, under whatever names, newest first."""
        if ready.asked or ready.weights_sha256 is None:
            return {}
        session_id = self.session(ready.session).id
        versions = self.versions(session_id)
        (version,) = (one for one in versions if one.id == ready.params_id)
        like = [one.id for one in versions if version.picks_like(one)]
        threshold = version.threshold_for(version)
        if threshold is None:
            return {}
        marks = ", ".join("?" * len(like))
        found = self._all(
            "SELECT name, yx_score FROM micrograph JOIN candidates ON micrograph_id = id"  # noqa: S608 - marks
            " WHERE session_id = ? AND content = ? AND state = 'picked' AND weights_sha256 = ?"
            f" AND code_version = ? AND params_id IN ({marks}) ORDER BY id DESC",
            (session_id, ready.content, ready.weights_sha256, __version__, *like),
        )
        picks: dict[str, Picks] = {}
        for row in found:
            candidates = rows.unpack(row["yx_score"])  # (n, 3): y, x, score
            picks.setdefault(
                row["name"], Picks(candidates[:, :2], candidates[:, 2], threshold, ready.weights_sha256)
            )
        return picks

    def _give_way(self, micrograph_id: int) -> Fingerprint | None:
        """Drop a generation that is not recorded, if the outputs hold an earlier one, which counts again."""
        found = self._all(
            "SELECT old.* FROM micrograph AS old JOIN micrograph AS new USING (session_id, name)"
            " WHERE new.id = ? AND old.id <> new.id AND +old.published = 1",
            (micrograph_id,),
        )
        if not found:
            return None
        (old,) = found
        self._delete(micrograph_id)
        self._db.execute("UPDATE micrograph SET latest = 1, source_missing = 0 WHERE id = ?", (old["id"],))
        return Fingerprint(old["size_bytes"], old["mtime_ns"], old["inode"])

    def _delete(self, micrograph_id: int) -> None:
        """Drop a generation of which nothing is recorded."""
        self._db.execute("UPDATE crash SET micrograph_id = NULL WHERE micrograph_id = ?", (micrograph_id,))
        self._db.execute("DELETE FROM micrograph WHERE id = ?", (micrograph_id,))

    def _retire_moved(self, session_id: int, name: str) -> None:
        """Take out what is in the outputs twice, of a file that moved: what is recorded of its first name.

        `name` is either of the two.
        """
        cursor = self._db.execute(
            "UPDATE micrograph SET published = 0, latest = 0, file_dirty = 0 WHERE id IN ("
            "SELECT old.id FROM micrograph AS old JOIN micrograph AS new USING (session_id, content)"
            " WHERE session_id = :session_id AND :name IN (old.name, new.name) AND old.name <> new.name"
            " AND +old.latest = 1 AND +old.published = 1 AND +old.source_missing = 1"
            " AND +new.latest = 1 AND +new.published = 1 AND +new.source_missing = 0"
            " AND content = (SELECT content FROM micrograph"
            " WHERE session_id = :session_id AND name = :name AND +latest = 1))",
            {"session_id": session_id, "name": name},
        )
        if cursor.rowcount > 0:
            self._soil(session_id)

    def _mark(self, micrograph_id: int, fingerprint: Fingerprint) -> None:
        """Keep which state of the file is meant."""
        self._db.execute(
            "UPDATE micrograph SET size_bytes = ?, mtime_ns = ?, inode = ? WHERE id = ?",
            (fingerprint.size_bytes, fingerprint.mtime_ns, fingerprint.inode, micrograph_id),
        )
