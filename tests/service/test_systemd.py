"""The notification protocol, against sockets like systemd's."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from drpwatch.service.systemd import Notifier
from tests.support import PATIENCE


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A bound socket and what `NOTIFY_SOCKET` says of it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@drpwatch-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0", 1))
        listener.settimeout(PATIENCE * 5)
        yield listener, name


def test_messages(manager) -> None:
    listener, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    assert notifier.active
    for say, expected in [
        (lambda: notifier.ready("2 sessions"), "READY=1\nSTATUS=2 sessions"),
        (lambda: notifier.status("12 waiting"), "STATUS=12 waiting"),
        (lambda: notifier.stopping("draining"), "STOPPING=1\nSTATUS=draining"),
        (lambda: notifier.alive(), "WATCHDOG=1"),
        (lambda: notifier.extend_timeout(12.5), "EXTEND_TIMEOUT_USEC=12500000"),
    ]:
        assert say() is True
        assert listener.recv(4096).decode() == expected


def test_reload_carries_the_monotonic_clock_of_now(manager) -> None:
    listener, name = manager
    before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert Notifier({"NOTIFY_SOCKET": name}).reloading()
    after_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    first, second = listener.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    assert before_us <= int(second.removeprefix("MONOTONIC_USEC=")) <= after_us


def test_status_cannot_smuggle_in_a_field_or_break(manager) -> None:
    listener, name = manager
    assert Notifier({"NOTIFY_SOCKET": name}).status("file a\nREADY=1\r\nb\udcff.mrc")
    assert listener.recv(4096).decode() == "STATUS=file a READY=1 b?.mrc"


@pytest.mark.parametrize("name", ["", "vsock:2:1234", "relative/path"])
def test_nothing_happens_without_a_manager(name: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": name})
    assert not notifier.active
    assert notifier.ready("x") is notifier.alive() is notifier.reloading() is False


def test_manager_that_has_gone_is_no_error(tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    assert notifier.alive() is False


def test_own_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert not Notifier().active
    assert Notifier().watchdog_interval_s == 30


@pytest.mark.parametrize(
    ("environment", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "me"}, None),
        ({"WATCHDOG_PID": str(os.getpid())}, None),
    ],
)
def test_watchdog_interval(environment: dict[str, str], interval_s: float | None) -> None:
    assert Notifier(environment).watchdog_interval_s == interval_s
