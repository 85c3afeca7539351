"""The listening sockets: who may connect, and that the caller is known."""

import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from drpwatch.errors import ConfigError
from drpwatch.service.api import build_app
from drpwatch.service.servers import Server, bind_tcp, bind_unix
from tests.service.fakes import FakeControl, FakeMetrics
from tests.support import PATIENCE

NOBODY, STAFF = 65534, 50
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root may be somebody else")

REQUEST = (
    b"POST /api/v1/sessions HTTP/1.1\r\nhost: x\r\nx-uid: 0\r\nconnection: close\r\n"
    b"content-type: application/json\r\ncontent-length: 60\r\n\r\n"
    b'{"name": "s1", "watch_root": "/d", "diameter_angstrom": 150}'
)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may enter, as /run/drpwatch is not."""
    folder = Path(tempfile.mkdtemp(prefix="drpwatch-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def call(path: Path, groups: list[int]) -> tuple[int, bytes]:
    """Start a session as nobody; return the caller's process id, and the first line of the answer."""
    ours, theirs = os.pipe()
    pid = os.fork()  # not another program: nobody may not be allowed to run this Python
    if pid == 0:
        try:
            os.setgroups(groups)
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            with socket.socket(socket.AF_UNIX) as caller:
                caller.settimeout(PATIENCE * 20)
                caller.connect(str(path))
                caller.sendall(REQUEST)
                os.write(theirs, caller.recv(100).partition(b"\r\n")[0])
        except OSError as error:
            os.write(theirs, str(error.strerror).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    answer = os.read(ours, 1000)
    os.close(ours)
    os.close(theirs)
    return pid, answer


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_owner_and_group_alone_may_use_the_socket_whatever_the_umask(place, umask):
    before = os.umask(umask)
    try:
        listener = bind_unix(place / "control.sock")
    finally:
        assert os.umask(before) == umask  # it was put back
    with listener:
        status = os.stat(place / "control.sock")
    assert stat.S_IMODE(status.st_mode) == 0o660
    assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())


def test_the_socket_takes_the_place_of_no_other_file(place):
    path = place / "control.sock"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="there is something else than a socket"):
        bind_unix(path)
    assert path.read_text() == "precious"
    path.unlink()
    (place / "target").write_text("precious")
    path.symlink_to(place / "target")
    with pytest.raises(ConfigError, match="there is something else than a socket"):
        bind_unix(path)
    assert (place / "target").read_text() == "precious"


@pytest.fixture
def path(place) -> Iterator[Path]:
    path = place / "control.sock"
    server = Server(build_app(FakeControl(), FakeMetrics(), writable=True), bind_unix(path), "api-unix")
    server.start()
    yield path
    server.stop()


@ROOT_ONLY
def test_a_stranger_is_turned_away_and_a_member_of_the_group_is_named_in_the_log(path):
    os.chown(path, -1, STAFF)
    with structlog.testing.capture_logs() as entries:
        _, answer = call(path, groups=[])
        assert (answer, entries) == (b"Permission denied", [])
        pid, answer = call(path, groups=[STAFF])
    assert answer == b"HTTP/1.1 201 Created"
    [entry] = entries
    known = {key: entry[key] for key in ("event", "verb", "uid", "pid")}
    assert known == {"event": "session_changed", "verb": "start", "uid": NOBODY, "pid": pid}


@pytest.mark.parametrize(
    "host", ["a\0b", "a" * 70 + ".example", "..", "no such host", "256.256.256.256", "\udcff"]
)
def test_a_host_that_is_none_is_refused_by_name(host):
    with pytest.raises(ConfigError, match=r"daemon\.http_host: .* cannot be used"):
        bind_tcp(host, 0)


def test_a_port_is_bound_where_it_was_asked_for():
    with bind_tcp("127.0.0.1", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        assert listener.family == socket.AF_INET
