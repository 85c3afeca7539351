"""The command line's side of the control API: JSON over HTTP on a Unix socket, by the standard library."""

from __future__ import annotations

import grp
import http.client
import json
import os
import pwd
import socket
import stat
from pathlib import Path
from typing import Any
from urllib.parse import quote

from drpwatch.errors import DaemonUnreachable, DrpwatchError, SessionError, UsageError

Json = dict[str, Any]

SESSIONS = "/api/v1/sessions"
_ALL = 100_000  # the most that the daemon lists
_LISTENS_WITHIN_S = 2.0
_REPORT_WITHIN_S = 120.0  # it may read micrographs
_HOW_TO_START = "start the daemon with 'drpwatch run', or as a service with 'systemctl start drpwatch'"
_WHERE = "name its socket with --socket or DRPWATCH_SOCKET if it is elsewhere"


class _UnixConnection(http.client.HTTPConnection):
    """An HTTP connection whose other end is a socket in the file system."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("drpwatch", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


class ControlClient:
    """Talks to the daemon that listens on a socket; every call is one connection.

    All methods raise `DaemonUnreachable` when nobody answers, `SessionError` and `UsageError` with the
    daemon's own sentence when it refuses, and `DrpwatchError` when it fails.
    """

    def __init__(self, socket_path: Path, timeout_s: float = 30.0) -> None:
        self._path = socket_path
        self._timeout_s = timeout_s

    def sessions(self) -> list[Json]:
        """Return all sessions, newest first."""
        return list(self.get(SESSIONS)["sessions"])

    def daemon(self) -> Json:
        """Return what there is to know about the daemon itself."""
        return self.get("/api/v1/daemon")

    def health(self) -> Json:
        """Return whether micrographs are being picked and recorded, and why if they are not."""
        return self._ask("GET", "/readyz", None, answers=(503,))

    def session(self, name: str) -> Json:
        """Return one session with its waiting, failed and newest micrographs."""
        return self.get(f"{SESSIONS}/{quote(name, safe='')}")

    def start(self, request: Json) -> Json:
        """Start a session; the fields are those of `service.bodies.StartSession`."""
        return self.post(SESSIONS, request)

    def change(self, name: str, verb: str) -> Json:
        """Stop, pause, resume or reopen a session and return it as it is then."""
        return self.ask(name, verb)

    def set(self, name: str, changes: Json) -> Json:
        """Change values of a session; the fields are those of `service.bodies.SetSession`."""
        return self._ask("PATCH", f"{SESSIONS}/{quote(name, safe='')}", changes)

    def ask(self, name: str, verb: str, body: Json | None = None) -> Json:
        """Return the answer to a verb of a session that needs more than the name."""
        return self.post(f"{SESSIONS}/{quote(name, safe='')}/{verb}", body)

    def micrographs(self, name: str, state: str) -> list[Json]:
        """Return all micrographs of a session that are in a state, the last recorded first."""
        path = f"{SESSIONS}/{quote(name, safe='')}/micrographs?state={state}&limit={_ALL}"
        return list(self.get(path)["micrographs"])

    def report(self, name: str) -> bytes:
        """Return the report of a session, as an HTML file."""
        path = f"{SESSIONS}/{quote(name, safe='')}/report"
        status, content = self._exchange("GET", path, None, _REPORT_WITHIN_S)
        if status >= 400:
            self._judge(status, content)
        return content

    def get(self, path: str) -> Json:
        """Return the answer to GET."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Json | None = None) -> Json:
        """Return the answer to POST."""
        return self._ask("POST", path, body)

    def _ask(self, method: str, path: str, body: Json | None, *, answers: tuple[int, ...] = ()) -> Json:
        status, content = self._exchange(method, path, body, self._timeout_s)
        return self._judge(200 if status in answers else status, content)

    def _exchange(self, method: str, path: str, body: Json | None, timeout_s: float) -> tuple[int, bytes]:
        """Return status and content of the answer."""
        connection = _UnixConnection(self._path, timeout_s)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, response.read()
        except OSError as error:
            raise _explain(self._path, error, timeout_s) from error
        except http.client.HTTPException as error:
            raise _stranger(self._path) from error
        finally:
            connection.close()

    def _judge(self, status: int, content: bytes) -> Json:
        """Return the answer, or raise the refusal that it is."""
        try:
            answer = json.loads(content)
        except ValueError as error:
            raise _stranger(self._path) from error
        if not isinstance(answer, dict):
            raise _stranger(self._path)
        if status < 400:
            return answer
        sentence = str(answer.get("error", f"the daemon answered with HTTP status {status}"))
        kinds = {400: UsageError, 404: SessionError, 409: SessionError}
        raise kinds.get(status, DrpwatchError)(sentence)


def listens(path: Path) -> bool:
    """Tell whether somebody listens on a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(_LISTENS_WITHIN_S)
        try:
            caller.connect(os.fspath(path))
        except OSError:
            return False
        return True


def _stranger(path: Path) -> DaemonUnreachable:
    return DaemonUnreachable(f"{path}: what answers there is not drpwatch; {_WHERE}")


def _explain(path: Path, error: OSError, timeout_s: float) -> DaemonUnreachable:
    """Return why the daemon cannot be reached, and what to do about it."""
    if isinstance(error, TimeoutError):
        sentence = f"{path}: the daemon did not answer within {timeout_s:g} s; its log may say why"
    elif isinstance(error, PermissionError):
        sentence = f"{path}: permission denied; {_who_may(path)}"
    elif isinstance(error, FileNotFoundError | NotADirectoryError):
        sentence = f"no daemon listens on {path}: there is no such socket; {_HOW_TO_START}, or {_WHERE}"
    elif isinstance(error, ConnectionRefusedError):
        left = "the socket is left from one that has ended" if _is_socket(path) else "it is not a socket"
        sentence = f"no daemon listens on {path}: {left}; {_HOW_TO_START}, or {_WHERE}"
    elif isinstance(error, ConnectionResetError | BrokenPipeError):
        sentence = f"{path}: the daemon closed the connection before it answered; its log may say why"
    else:
        sentence = f"{path}: cannot be connected to ({error.strerror or error}); {_WHERE}"
    return DaemonUnreachable(sentence)


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False


def _who_may(path: Path) -> str:
    """Return who may use the socket: the group of the first thing on the way that can be seen."""
    me = _name(pwd.getpwuid, os.getuid())
    for place in (path, *path.parents):
        try:
            group = _name(grp.getgrgid, place.stat().st_gid)
        except OSError:
            continue
        return (
            f"user {me} must be root or in the group {group}: 'usermod -aG {group} {me}', then log in again"
        )
    return f"user {me} may not use it"


def _name(look_up: Any, number: int) -> str:
    try:
        return str(look_up(number)[0])
    except KeyError:
        return str(number)
