"""The SQLite connection of the journal: one, behind a lock, and its transactions."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from drpwatch.errors import JournalError, OutputError
from drpwatch.session import schema


class Database:
    """One connection that any thread may use.

    Raises
    ------
    JournalError
        From the constructor: see `schema.connect`. From any method: the database does not work.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.on_commit: Callable[[float], None] | None = None
        """Told the seconds that each commit took."""
        self._lock = threading.RLock()
        self._depth = 0
        self._db = schema.connect(path)
        self._db.row_factory = sqlite3.Row

    def close(self) -> None:
        """Close the database; calling twice is harmless."""
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all calls inside one transaction; inner transactions join the outer one.

        Raises
        ------
        OutputError
            The disk of the journal is full, read-only or failing: nothing was committed, try again.
        JournalError
            The database does not work.
        """
        with self._lock:
            try:
                if self._depth == 0:
                    self._db.execute("BEGIN IMMEDIATE")
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1
                if self._depth == 0:
                    started = time.perf_counter()
                    self._commit()
                    if self.on_commit is not None:
                        self.on_commit(time.perf_counter() - started)
            except sqlite3.OperationalError as error:
                self._roll_back()
                raise OutputError(f"journal {self.path}: cannot be written ({error})") from error
            except sqlite3.Error as error:
                self._roll_back()
                raise JournalError(f"journal {self.path}: {error}") from error
            except BaseException:
                self._roll_back()
                raise

    def _commit(self) -> None:
        """Commit; a method of its own so that tests can fail here."""
        self._db.execute("COMMIT")

    def _roll_back(self) -> None:
        if self._depth == 0 and self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _latest(self, session_id: int, name: str) -> sqlite3.Row | None:
        """Return the row of the latest generation of a micrograph."""
        found = self._all(
            "SELECT * FROM micrograph WHERE session_id = ? AND name = ? AND +latest = 1", (session_id, name)
        )
        return found[0] if found else None

    def _all(self, sql: str, values: tuple[Any, ...] | dict[str, Any]) -> list[sqlite3.Row]:
        """Run one reading statement."""
        with self._lock:
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise JournalError(f"journal {self.path}: cannot be read ({error})") from error
