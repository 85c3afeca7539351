"""The clock, the port, and whose permissions count."""

import socket

import pytest

from drpwatch.config import Daemon
from drpwatch.doctor import machine
from tests.daemon.rig import free_port


@pytest.mark.parametrize(
    ("now", "kept", "level"), [(1.8e9, True, "ok"), (1.8e9, False, "warn"), (1e9, True, "fail")]
)
def test_clock(now: float, kept: bool, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.time, "time", lambda: now)
    monkeypatch.setattr(machine, "_kept_right", lambda: kept)
    assert machine.check_clock().level == level


def test_the_kernel_is_asked_about_its_clock() -> None:
    assert machine._kept_right() in (True, False)


def test_a_port_that_is_free_and_one_that_is_not() -> None:
    daemon = Daemon(http_port=free_port())
    assert machine.check_port(daemon).level == "ok"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", daemon.http_port))
        taken.listen()
        check = machine.check_port(daemon)
    assert (check.level, "address already in use" in check.found) == ("fail", True)
    assert machine.check_port(Daemon(http_host="192.0.2.1")).level == "fail"  # of no machine


@pytest.mark.parametrize(("uid", "level"), [(0, "warn"), (65_432_101, "ok")])
def test_user(uid: int, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "geteuid", lambda: uid)
    assert machine.check_user().level == level
