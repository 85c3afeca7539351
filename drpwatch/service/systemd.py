"""What the daemon tells systemd: the notification protocol of sd_notify(3), spoken by hand.

Does nothing where no service manager listens. A manager that does not answer is never an error:
picking goes on.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

_SEND_WITHIN_S = 1.0
"""A manager that does not read must not stop a loop."""


class Notifier:
    """The way to the service manager.

    Parameters
    ----------
    environment
        Where `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` are looked up; None is our own.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self.watchdog_interval_s = _watchdog_interval_s(environment)
        """How often to call `alive`: half of what the manager allows; None: it does not ask."""

    @property
    def active(self) -> bool:
        """Whether a manager listens."""
        return self._address is not None

    def ready(self, status: str) -> bool:
        """Say that start-up, or a reload, is over."""
        return self._send(READY="1", STATUS=status)

    def status(self, status: str) -> bool:
        """Give the line that `systemctl status` shows."""
        return self._send(STATUS=status)

    def reloading(self) -> bool:
        """Say that a reload begins; `ready` ends it."""
        # systemd matches the reload with its request by this clock, and waits in vain without it.
        return self._send(RELOADING="1", MONOTONIC_USEC=str(time.monotonic_ns() // 1000))

    def stopping(self, status: str) -> bool:
        """Say that shutdown has begun."""
        return self._send(STOPPING="1", STATUS=status)

    def alive(self) -> bool:
        """Feed the watchdog; to be called only while every loop makes progress."""
        return self._send(WATCHDOG="1")

    def extend_timeout(self, seconds: float) -> bool:
        """Ask for that much more time, from now, for starting or stopping."""
        return self._send(EXTEND_TIMEOUT_USEC=str(int(seconds * 1e6)))

    def _send(self, **fields: str) -> bool:
        """Send one message; say whether the manager took it."""
        if self._address is None:
            return False
        lines = (f"{key}={' '.join(value.splitlines())}" for key, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.settimeout(_SEND_WITHIN_S)
                channel.connect(self._address)
                channel.sendall("\n".join(lines).encode(errors="replace"))
        except OSError:
            return False
        return True


def _address(name: str) -> str | None:
    """Return the address to connect to; `@name` is an abstract socket."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else None


def _watchdog_interval_s(environment: Mapping[str, str]) -> float | None:
    """Return half the watchdog time, if it is meant for this process."""
    try:
        limit_s = int(environment["WATCHDOG_USEC"]) / 1e6
        process = int(environment.get("WATCHDOG_PID", os.getpid()))
    except (KeyError, ValueError):
        return None
    return limit_s / 2 if limit_s > 0 and process == os.getpid() else None
