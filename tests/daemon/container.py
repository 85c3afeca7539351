"""A systemd of our own: booted by systemd-nspawn on a copy of this machine's files that forgets all changes.

Needs root, systemd-nspawn (Debian: systemd-container) and an overlay file system. `unavailable` says what is
missing. Inside, drpwatch is installed below /opt/drpwatch, as README has it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.support import PATIENCE, eventually

ROOT = Path(__file__).parents[2]
_SOURCES = Path("/opt/src")
_BOOT = """
mount -t tmpfs tmpfs "$1" && mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root" || exit 1
root=$1 && shift
exec systemd-nspawn --quiet --directory="$root/root" --machine=drpwatch-test --register=no --keep-unit \
  --link-journal=no --console=pipe "$@" --boot systemd.unit=sysinit.target
"""
_INSTALL = """
set -e
directory=$1
while [ "$directory" != / ]; do chmod o+rx "$directory"; directory=$(dirname "$directory"); done  # of the copy
"$1/bin/python3" -m venv --without-pip /opt/drpwatch
cd /opt/drpwatch/lib/python*/site-packages
printf '%s\\n' /opt/src/checkout /opt/src/site-packages > tests.pth
cd /opt/drpwatch/bin
printf '%s\\n' '#!/opt/drpwatch/bin/python3' 'import sys' 'from drpwatch.cli import main' 'sys.exit(main())' > drpwatch
chmod 755 drpwatch
"""


def unavailable() -> str | None:
    """Return why there can be no container here; None if there can be one."""
    if os.geteuid() != 0:
        return "needs root, to boot a systemd in a container"
    if shutil.which("systemd-nspawn") is None:
        return "needs systemd-nspawn"
    probe = (
        'mount -t tmpfs tmpfs "$1" && mkdir "$1/u" "$1/w" && '
        'mount -t overlay overlay -o "lowerdir=/,upperdir=$1/u,workdir=$1/w" "$1"'
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", probe, "sh", "/mnt"], capture_output=True, text=True, check=False
    )
    return None if done.returncode == 0 else f"needs an overlay file system: {done.stderr.strip()}"


class Container:
    """A booted system; `data` is /data inside."""

    def __init__(self, scratch: Path, data: Path) -> None:
        binds = {
            ROOT: _SOURCES / "checkout",
            Path(sysconfig.get_path("purelib")): _SOURCES / "site-packages",
        }
        options = [f"--bind-ro={outside}:{inside}" for outside, inside in binds.items()]
        data.chmod(0o755)
        scratch.mkdir()
        self._log = (scratch.parent / "container.log").open("wb")
        self._process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", _BOOT, "sh", scratch, *options, f"--bind={data}:/data"],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        try:
            self._leader = eventually(self._find_leader, 20, "the container begins")
            eventually(self._booted, 30, "it has booted")
            self.run("sh", "-c", _INSTALL, "sh", sys.base_prefix)
        except BaseException:
            self.close()
            raise

    def _find_leader(self) -> int | None:
        assert self._process.poll() is None, Path(self._log.name).read_text()
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in children:
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return int(child)
        return None

    def _booted(self) -> bool:
        return self.run("systemctl", "is-system-running", check=False) in ("running", "degraded")

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command inside and return what it printed."""
        done = self._run(*command)
        if check and done.returncode:
            log = self._run("journalctl", "--lines=30", "--output=cat").stdout
            raise AssertionError(f"{command}: {done.stdout}{done.stderr}\n{log}")
        return done.stdout.strip()

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["nsenter", f"--target={self._leader}", "--all", "--root", "--wd", *command],
            capture_output=True,
            text=True,
            timeout=PATIENCE * 60,
            check=False,
            env={"PATH": "/opt/drpwatch/bin:/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_PAGER": ""},
        )

    def show(self, key: str) -> str:
        """Return a property of the service."""
        return self.run("systemctl", "show", "--value", f"--property={key}", "drpwatch")

    def close(self) -> None:
        """Switch it off; the copy goes with it."""
        self._process.terminate()
        try:
            self._process.wait(PATIENCE * 20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE * 10)
        self._log.close()
