"""`drpwatch watch` on a real terminal, beside a real daemon that comes and goes."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading

import pytest

from tests.daemon.rig import ROOT, Rig
from tests.support import PATIENCE, eventually


class Terminal:
    """A command on a terminal of 200 columns and 30 lines, and all that it wrote: no sentence of ours is wrapped."""

    def __init__(self, *command: str) -> None:
        controller, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 200, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color"}
        environment = {key: value for key, value in environment.items() if key not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=terminal, stdout=terminal, stderr=terminal, env=environment
        )
        os.close(terminal)
        self._controller = controller
        self.written = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            while data := os.read(self._controller, 65536):
                self.written += data.decode(errors="replace")
        except OSError:
            return  # the other side is closed

    def shows(self, text: str, within_s: float = 30) -> None:
        """Wait until the screen is written with a text, from now on."""
        start = len(self.written)
        eventually(lambda: text in self.written[start:], within_s, f"{text!r} on the screen")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE * 10)
        os.close(self._controller)


@pytest.fixture
def rig(tmp_path):
    rig = Rig(tmp_path)
    yield rig
    rig.close()


def test_a_screen_outlives_the_daemon_and_ends_with_ctrl_c(rig):
    rig.start()
    rig.start_session("apo1")
    rig.write("G1/a.mrc", 1, session="apo1")
    rig.picked(1, "apo1")
    terminal = Terminal(sys.executable, "-m", "drpwatch", "watch", "--socket", str(rig.socket))
    try:
        terminal.shows("apo1: running")
        terminal.shows("G1/a.mrc")
        rig.write("G1/b.mrc", 2, session="apo1")
        terminal.shows("G1/b.mrc")
        rig.kill()
        terminal.shows("trying again")
        rig.start()
        rig.write("G1/c.mrc", 3, session="apo1")
        terminal.shows("G1/c.mrc")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(PATIENCE * 10) == 0
        assert "Traceback" not in terminal.written
    finally:
        terminal.close()
