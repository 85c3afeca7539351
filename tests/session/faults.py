"""A disk and a journal that fail, or end the process, at a chosen one of their calls."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from drpwatch.session import disk
from drpwatch.session.journal import Journal

MODES = ("die before", "die after", "die halfway", "refuse", "refuse halfway")


class Died(BaseException):
    """The process ended here, as kill -9 ends it: nothing runs after it."""


class Faults:
    """Lets the call number `at` go wrong in one of MODES; without `at` all is well."""

    def __init__(self) -> None:
        self.disarm()

    def arm(self, at: int, mode: str) -> None:
        self.left, self.mode, self.dead, self.calls = at, mode, False, []

    def disarm(self) -> None:
        self.left, self.mode, self.dead, self.calls = None, "", False, []

    @property
    def struck(self) -> bool:
        return self.left is not None and self.left < 0

    def call(self, name: str, act: Any, half: Any = None) -> Any:
        if self.dead:
            raise Died
        self.calls.append(name)
        if self.left is None:
            return act()
        self.left -= 1
        if self.left != -1:
            return act()
        if self.mode == "die before":
            self._die()
        if self.mode == "die after":
            act()
            self._die()
        if self.mode == "die halfway":
            (half or act)()
            self._die()
        if self.mode == "refuse halfway" and half is not None:
            return half()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _die(self) -> None:
        self.dead = True
        raise Died


class FaultyOs:
    """Stands for `os` in `session.disk`."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        return self._faults.call("open", lambda: os.open(path, flags, mode))

    def write(self, descriptor: int, data: bytes) -> int:
        half = bytes(data)[: len(data) // 2]
        return self._faults.call(
            "write", lambda: os.write(descriptor, data), lambda: os.write(descriptor, half)
        )

    def fsync(self, descriptor: int) -> None:
        self._faults.call("fsync", lambda: None)  # nothing here pulls the plug, and real ones take long

    def ftruncate(self, descriptor: int, length: int) -> None:
        self._faults.call("ftruncate", lambda: os.ftruncate(descriptor, length))

    def replace(self, source: Path, target: Path) -> None:
        self._faults.call("replace", lambda: os.replace(source, target))

    def unlink(self, path: Path) -> None:
        self._faults.call("unlink", lambda: os.unlink(path))

    def makedirs(self, path: Path, exist_ok: bool = False) -> None:
        self._faults.call("makedirs", lambda: os.makedirs(path, exist_ok=exist_ok))

    def close(self, descriptor: int) -> None:
        os.close(descriptor)


class FaultyJournal(Journal):
    """A journal whose commits can fail or be the last thing that the process does."""

    def __init__(self, path: Path, faults: Faults) -> None:
        self._faults = faults
        super().__init__(path)
        self._db.execute("PRAGMA synchronous = OFF")

    def _commit(self) -> None:
        try:
            self._faults.call("commit", super()._commit)
        except OSError as error:
            import sqlite3

            raise sqlite3.OperationalError("database or disk is full") from error


@contextmanager
def faulty_disk(faults: Faults) -> Iterator[None]:
    real = disk.os
    disk.os = FaultyOs(faults)  # type: ignore[assignment]
    try:
        yield
    finally:
        disk.os = real
