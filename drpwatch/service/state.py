"""The state directory: one daemon at a time, and its journal."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from drpwatch.errors import ConfigError, JournalError

JOURNAL = "journal.db"


class StateDirectory:
    """Holds the directory for this process as long as it lives.

    Raises
    ------
    ConfigError
        The directory cannot be made or used.
    JournalError
        Another daemon uses it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Whoever can enter it may steer a daemon that has its socket there; systemd makes the service's.
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise ConfigError(
                f"daemon.state_dir: {path} cannot be used: {(error.strerror or '').lower()}"
            ) from error
        try:
            # The kernel drops the lock with the process, so there is never a stale one.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(self._lock, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._lock)
            raise JournalError(f"another daemon (pid {owner}) uses {path}") from error
        self._sign()

    def _sign(self) -> None:
        """Say who holds it; over what was said before, for which a full disk has room."""
        name = f"{os.getpid()}\n".encode()
        with suppress(OSError):  # it is held all the same
            os.pwrite(self._lock, name, 0)
            os.ftruncate(self._lock, len(name))

    @property
    def journal(self) -> Path:
        """Where the journal lies."""
        return self.path / JOURNAL

    def close(self) -> None:
        """Let another daemon have the directory."""
        os.close(self._lock)
