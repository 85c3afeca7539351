"""Where a daemon keeps its state and its control socket unless told: that of a host, and anybody's own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Places:
    """What the daemon needs of the file system for itself."""

    state_dir: Path
    socket: Path


SERVICE = Places(Path("/var/lib/drpwatch"), Path("/run/drpwatch/control.sock"))
"""Of the one that a host runs as a service."""


def usual() -> Places:
    """Return the places of a daemon that this user starts: the service's for its user and root, else one's own.

    The socket is beside the journal, not in `XDG_RUNTIME_DIR`: that one ends with the login, and a daemon in a
    terminal multiplexer does not; and it is not told to what cron or `su` start.
    """
    if os.geteuid() == 0 or "RUNTIME_DIRECTORY" in os.environ:  # which systemd sets for the unit
        return SERVICE
    if any(os.access(place, os.W_OK) for place in (SERVICE.state_dir, SERVICE.socket.parent)):
        return SERVICE
    # The specification has a relative path ignored.
    base = os.environ.get("XDG_STATE_HOME", "")
    home = Path(base if os.path.isabs(base) else os.path.expanduser("~/.local/state"))
    if not home.is_absolute():  # a user without a home
        return SERVICE
    return Places(home / "drpwatch", home / "drpwatch" / "control.sock")
