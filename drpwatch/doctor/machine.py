"""The machine around: clock, port, user."""

from __future__ import annotations

import ctypes
import http.client
import os
import pwd
import socket
import time

from drpwatch.config import Daemon
from drpwatch.doctor.check import Check, fail, ok, warn

EARLIEST_UNIX_S = 1_767_225_600.0
"""The first of January 2026: a clock that is before it was never set."""

_TIME_ERROR = 5  # of adjtimex(2): nothing keeps the clock right
_TIMEX_BYTES = 512  # more than `struct timex` has anywhere


def check_clock() -> Check:
    """Check that the clock is set, and kept right."""
    name, now = "clock", time.time()
    shown = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(now))
    if now < EARLIEST_UNIX_S:
        return fail(
            name, f"{shown} is in the past", "set the clock, and let NTP keep it (timedatectl set-ntp true)"
        )
    if not _kept_right():
        return warn(
            name,
            f"{shown}, and no time service keeps it right",
            "timedatectl set-ntp true; picking does not depend on it, but times in tables and alerts do",
        )
    return ok(name, f"{shown}, kept right by a time service")


def _kept_right() -> bool:
    """Tell whether the kernel's clock is disciplined; where it cannot be asked, take it that it is."""
    try:
        return bool(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)) != _TIME_ERROR)
    except (OSError, AttributeError):
        return True


def check_port(daemon: Daemon) -> Check:
    """Check that the page and the metrics can be served, or are."""
    name, place = "port", f"{daemon.http_host}:{daemon.http_port}"
    if _is_ours(daemon):
        return ok(name, f"{place} is served by drpwatch")
    try:
        family = socket.AF_INET6 if ":" in daemon.http_host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((daemon.http_host, daemon.http_port))
    except OSError as error:
        return fail(
            name,
            f"{place} cannot be bound: {(error.strerror or str(error)).lower()}",
            "set daemon.http_host to an address of this machine and daemon.http_port to a free port;"
            f" `ss -ltnp sport = :{daemon.http_port}` names who has this one",
        )
    return ok(name, f"{place} is free")


def _is_ours(daemon: Daemon) -> bool:
    """Tell whether drpwatch answers there, well or not."""
    host = "127.0.0.1" if daemon.http_host in ("0.0.0.0", "::") else daemon.http_host  # noqa: S104 - not bound
    connection = http.client.HTTPConnection(host, daemon.http_port, timeout=2)
    try:
        connection.request("GET", "/livez")
        return b'"healthy"' in connection.getresponse().read(4096)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def check_user() -> Check:
    """Tell whose permissions the other checks looked at."""
    if os.geteuid() == 0:
        return warn(
            "user",
            "permissions were checked for root, who may do everything",
            "check them for the daemon: runuser -u drpwatch -- drpwatch doctor",
        )
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = str(os.geteuid())
    return ok("user", f"permissions were checked for {name}")
