"""A daemon of the demo's own: the real process, with its state below the demo's folder."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from drpwatch.cli.client import ControlClient
from drpwatch.config import Daemon
from drpwatch.errors import DaemonUnreachable, DrpwatchError

SETTLE_S = 1.0
_ANSWERS_WITHIN_S = 60.0
_STOPS_WITHIN_S = 40.0
_POLL_S = 0.1

_CONFIG = """\
# What the demo ran its daemon with: drpwatch run --config {path}
[daemon]
state_dir = {state}
socket = {socket}
http_port = {port}
log_format = "json"

[watch]
poll_interval_s = 1.0
settle_s = {settle_s}

[pick]
model = {model}
"""


class OwnDaemon:
    """`drpwatch run` for as long as the context lasts.

    It is started with `-P`: what lies in the current directory must not take drpwatch's place.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self._config = folder / "config.toml"
        self.log = folder / "daemon.log"
        self._state = folder / "state"
        self._port = _free_port()
        self.page = f"http://127.0.0.1:{self._port}"
        self._model = model
        # Not below the folder: the path of a socket may not be longer than 107 bytes.
        self._socket_folder = Path(tempfile.mkdtemp(prefix="drpwatch-"))
        self.client = ControlClient(self._socket_folder / "control.sock")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._config.write_text(self._settings(), encoding="utf-8")
            with self.log.open("wb") as log:
                self._process = subprocess.Popen(  # noqa: S603 - this very program
                    [sys.executable, "-P", "-m", "drpwatch", "run", "--config", str(self._config)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for the demo, which then stops the daemon
                )
            self._wait_until_it_answers()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        died = error is not None and self._process is not None and self._process.poll() is not None
        code = self._stop()
        if error is None and code != 0:
            raise DrpwatchError(f"the daemon stopped with exit code {code}: {self._last_words()}")
        if died and isinstance(error, DaemonUnreachable):
            raise self._ended(code) from error

    def check(self) -> None:
        """Raise DrpwatchError if the process has ended."""
        assert self._process is not None
        code = self._process.poll()
        if code is not None:
            raise self._ended(code)

    def _ended(self, code: int | None) -> DrpwatchError:
        return DrpwatchError(f"the daemon ended by itself, with exit code {code}: {self._last_words()}")

    def _settings(self) -> str:
        # A JSON string is a TOML string.
        values = {"state": self._state, "socket": self._socket_folder / "control.sock", "model": self._model}
        quoted = {key: json.dumps(str(value)) for key, value in values.items()}
        return _CONFIG.format(path=self._config, settle_s=SETTLE_S, port=self._port, **quoted)

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _ANSWERS_WITHIN_S
        while True:
            self.check()
            try:
                self.client.sessions()
            except DaemonUnreachable as error:
                if time.monotonic() > deadline:
                    raise DrpwatchError(
                        f"the daemon did not answer within {_ANSWERS_WITHIN_S:g} s: {self._last_words()}"
                    ) from error
                time.sleep(_POLL_S)
            else:
                return

    def _stop(self) -> int | None:
        """End the process, by force where it does not end by itself; return its exit code."""
        code = None
        if self._process is not None:
            self._process.terminate()
            try:
                code = self._process.wait(_STOPS_WITHIN_S)
            except BaseException:  # noqa: BLE001 - too late, or a second Ctrl-C: it must not outlive us
                self._process.kill()
                code = self._process.wait()
        shutil.rmtree(self._socket_folder, ignore_errors=True)
        return code

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines() or ["nothing"]
        return f"{self.log} ends with {lines[-1]}"


def _free_port() -> int:
    """Return the usual port of the page, or any that is free where another daemon has it."""
    for port in (Daemon().http_port, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DrpwatchError("no TCP port of 127.0.0.1 is free for the page")
