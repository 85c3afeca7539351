"""The supervisor: it starts the daemon, and starts it again whenever it has ended, as systemd does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_RESTART_S = 0.1


@dataclass(frozen=True, slots=True)
class Exit:
    """One end of the daemon that nobody had asked for."""

    code: int
    lived_s: float


class Supervisor:
    """Keeps one daemon running.

    Parameters
    ----------
    control_socket
        On which the daemon listens.
    end_within_s
        How long the daemon has to end after SIGTERM.
    """

    def __init__(self, arguments: list[str], control_socket: Path, log: Path, end_within_s: float) -> None:
        self._command = [sys.executable, *arguments]
        self._socket = control_socket
        self._log = log
        self._end_within_s = end_within_s
        self._asked: set[int] = set()  # exit codes that signals to this process may lead to
        self._owed: Counter[int] = Counter()  # exit codes that other faults will lead to, some time
        self._over = threading.Event()
        self._changed = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self.stopped = False  # by SIGSTOP
        self.exits: Counter[int] = Counter()
        self.unexpected: list[Exit] = []

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            begun = time.monotonic()
            with self._log.open("ab") as log, self._changed:
                self._asked = set()
                self._process = subprocess.Popen(self._command, cwd=ROOT, stdout=log, stderr=log)
            code = self._process.wait()
            self.stopped = False
            self.exits[code] += 1
            if self._owed[code] > 0:
                self._owed[code] -= 1
            elif code not in self._asked:
                self.unexpected.append(Exit(code, round(time.monotonic() - begun, 2)))
            self._over.wait(_RESTART_S)

    def answers(self) -> bool:
        """Tell whether the daemon listens, and is not suspended."""
        if self.stopped:
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self._socket))
            except OSError:
                return False
            return True

    def kill(self) -> bool:
        """Send SIGKILL; return whether there was somebody to kill."""
        return self._send(signal.SIGKILL, {-int(signal.SIGKILL)})

    def terminate(self) -> bool:
        """Send SIGTERM; a daemon that has not begun to listen for it ends at once."""
        return self._send(signal.SIGTERM, {0, -int(signal.SIGTERM)})

    def pause(self) -> None:
        """Send SIGSTOP."""
        self.stopped = self._send(signal.SIGSTOP, set())

    def go_on(self) -> None:
        """Send SIGCONT."""
        self._send(signal.SIGCONT, set())
        self.stopped = False

    def expect(self, code: int, times: int = 1) -> None:
        """Take so many more exits with this code as asked for."""
        self._owed[code] += times

    def _send(self, number: int, codes: set[int]) -> bool:
        with self._changed:
            if self._process is None or self._process.poll() is not None:
                return False
            self._asked |= codes
            os.kill(self._process.pid, number)
            return True

    def finish(self) -> int:
        """End the daemon with SIGTERM, for good, and return its exit code."""
        self._over.set()
        self.go_on()
        self.terminate()
        self._thread.join(self._end_within_s)
        assert self._process is not None
        if self._thread.is_alive():
            self.close()
            raise AssertionError(f"the daemon did not end within {self._end_within_s} s of SIGTERM")
        return int(self._process.returncode)

    def close(self) -> None:
        """Kill the daemon, whatever it does."""
        self._over.set()
        self.kill()
        self._thread.join(10)
