"""What the command line says when the daemon does not answer, or something else does."""

import os
import socket
import threading

import pytest

from drpwatch.cli.client import ControlClient
from drpwatch.errors import DaemonUnreachable, DrpwatchError, SessionError, UsageError
from tests.support import PATIENCE


def refusal(path, timeout_s: float = 5.0) -> str:
    with pytest.raises(DaemonUnreachable) as caught:
        ControlClient(path, timeout_s).sessions()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def answering(tmp_path):
    """Return a function that makes a socket which gives one raw answer to one caller."""
    listener = socket.socket(socket.AF_UNIX)
    threads = []

    def serve(answer: bytes):
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def talk() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        threads.append(threading.Thread(target=talk, daemon=True))
        threads[0].start()
        return tmp_path / "s"

    yield serve
    for thread in threads:
        thread.join(PATIENCE * 5)
    listener.close()


def test_no_socket(tmp_path):
    sentence = refusal(tmp_path / "s")
    assert sentence.startswith(
        f"no daemon listens on {tmp_path / 's'}: there is no such socket; start the daemon with"
    )
    assert "--socket or DRPWATCH_SOCKET" in sentence


def test_a_socket_left_behind(tmp_path):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "s"))
    assert "the socket is left from one that has ended" in refusal(tmp_path / "s")


def test_a_plain_file(tmp_path):
    (tmp_path / "s").write_text("")
    assert "it is not a socket" in refusal(tmp_path / "s")
    assert "there is no such socket" in refusal(tmp_path / "s" / "below")


@pytest.mark.skipif(os.getuid() == 0, reason="root may use every socket")
def test_a_socket_of_others(tmp_path):
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(tmp_path / "s"))
        theirs.listen()
        (tmp_path / "s").chmod(0)
        assert "permission denied; user " in refusal(tmp_path / "s")


def test_permission_denied_names_the_group(tmp_path, monkeypatch):
    def deny(self, address):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("drpwatch.cli.client._UnixConnection.connect", lambda self: deny(self, None))
    sentence = refusal(tmp_path / "s")
    assert "permission denied; user " in sentence
    assert "must be root or in the group " in sentence


def test_a_path_that_is_too_long(tmp_path):
    assert "AF_UNIX path too long" in refusal(tmp_path / ("x" * 200))


def test_a_daemon_that_does_not_answer_in_time(tmp_path):
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "s"))
        deaf.listen()
        assert "did not answer within 0.05 s" in refusal(tmp_path / "s", timeout_s=0.05)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    ],
)
def test_somebody_else_answers(answering, answer):
    assert "what answers there is not drpwatch" in refusal(answering(answer))


def test_the_connection_is_closed_before_the_answer(answering):
    assert "closed the connection before it answered" in refusal(answering(b""))


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, UsageError), (404, SessionError), (409, SessionError), (503, DrpwatchError), (500, DrpwatchError)],
)
def test_a_refusal_is_the_daemons_own_sentence(answering, status, kind):
    body = b'{"error": "a sentence"}'
    path = answering(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
    with pytest.raises(DrpwatchError, match=r"^a sentence$") as caught:
        ControlClient(path).session("s1")
    assert type(caught.value) is kind
