"""Where a campaign takes place: directories that can be filled, made read-only, unmounted and mounted again.

Behind each place that the daemon sees lies a directory of a small file system of its own, as behind a mount
point lies a server. All of it is in a mount namespace that ends with the campaign.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

_IN_NAMESPACE = "DRPWATCH_CAMPAIGN_NAMESPACE"


def enter_namespace() -> None:
    """Begin the program again in a mount namespace of its own, where the system lets us."""
    if os.environ.get(_IN_NAMESPACE):
        return
    for kind in (["--mount"], ["--user", "--map-root-user", "--mount"]):
        command = ["unshare", *kind, "--propagation", "private"]
        if shutil.which("unshare") and _works([*command, "true"]):
            os.environ[_IN_NAMESPACE] = "1"
            os.execvp("unshare", [*command, sys.executable, *sys.orig_argv[1:]])


def can_mount() -> bool:
    """Tell whether file systems can be mounted here, without leaving anything behind."""
    return bool(os.environ.get(_IN_NAMESPACE))


class Place:
    """A directory that the daemon sees, and the one that is behind it.

    Without a mount namespace both are the same directory, and no fault is possible.
    """

    def __init__(self, root: Path, name: str, size_mib: int) -> None:
        self.seen = root / name
        self.behind = root / f"{name} server" if can_mount() else self.seen
        self.seen.mkdir()
        if can_mount():
            self.behind.mkdir()
            _mount("-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(self.behind))
            self.mount()

    def mount(self) -> None:
        _mount("--bind", str(self.behind), str(self.seen))

    def unmount(self) -> None:
        """Take the file system away, whoever uses it."""
        subprocess.run(["umount", "--lazy", str(self.seen)], check=True, capture_output=True)

    def fill(self) -> None:
        """Leave no byte on the file system."""
        with contextlib.suppress(OSError), (self.behind / ".filler").open("ab", buffering=0) as filler:
            for size_bytes in (1 << 20, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        filler.write(bytes(size_bytes))

    def empty(self) -> None:
        (self.behind / ".filler").unlink(missing_ok=True)

    def forbid(self) -> bool:
        """Make the place read-only; False if somebody is writing just now."""
        return _works(["mount", "-o", "remount,bind,ro", str(self.seen)])

    def allow(self) -> None:
        _works(["mount", "-o", "remount,bind,rw", str(self.seen)])


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def _works(command: list[str]) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
