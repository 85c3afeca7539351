"""The files that make drpwatch a service of one host, as text; nothing here is written or run.

The unit and the rules are the same everywhere and come as they are. What differs from host to host (where
the program lies, who runs it, where it may write, which port) is in a drop-in of the unit, and in the
Prometheus job.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from drpwatch.config import DEFAULT_CONFIG, Config
from drpwatch.errors import UsageError

USER = "drpwatch"
STOP_GRACE_S = 30.0
"""Beyond the daemon's own limit, how long systemd waits before it kills."""

_DATA = files("drpwatch.deploy")
_MANAGED = {"StateDirectory": Path("/var/lib"), "RuntimeDirectory": Path("/run")}
"""Directories below which systemd makes and owns what the unit names."""


@dataclass(frozen=True, slots=True)
class DeployedFile:
    """One file; `path` is relative to the directory that all are written to."""

    path: Path
    text: str
    purpose: str


@dataclass(frozen=True, slots=True)
class Host:
    """What is particular to a host.

    Parameters
    ----------
    program
        The command that runs drpwatch here, and its arguments.
    config_path, config
        Where the configuration is, and what it says.
    user
        Who the daemon runs as.
    writes
        Directories below which sessions write their output.
    """

    program: tuple[str, ...]
    config_path: Path
    config: Config
    user: str = USER
    writes: tuple[Path, ...] = ()

    def files(self) -> list[DeployedFile]:
        """Return all files.

        Raises
        ------
        UsageError
            A name cannot be written into a unit.
        """
        etc = Path("etc")
        units = etc / "systemd/system"
        return [
            DeployedFile(units / "drpwatch.service", _read("drpwatch.service"), "the unit"),
            DeployedFile(units / "drpwatch.service.d/host.conf", self._drop_in(), "this host's part of it"),
            DeployedFile(etc / "sysusers.d/drpwatch.conf", self._sysusers(), "the user that it runs as"),
            DeployedFile(etc / "tmpfiles.d/drpwatch.conf", self._tmpfiles(), "directories that it needs"),
            DeployedFile(
                Path("prometheus/drpwatch.scrape.yml"),
                _read("drpwatch.scrape.yml").replace("@TARGET@", self.target),
                "the job that scrapes it",
            ),
            DeployedFile(
                Path("prometheus/drpwatch.rules.yml"),
                _read("drpwatch.rules.yml"),
                "recording and alert rules",
            ),
            DeployedFile(Path("grafana/drpwatch.json"), _read("drpwatch.json"), "the dashboard"),
        ]

    @property
    def target(self) -> str:
        """Where Prometheus finds the daemon; one that runs elsewhere needs this host's name instead."""
        daemon = self.config.daemon
        host = "127.0.0.1" if daemon.http_host in ("0.0.0.0", "::") else daemon.http_host  # noqa: S104 - not bound
        return f"[{host}]:{daemon.http_port}" if ":" in host else f"{host}:{daemon.http_port}"

    def _drop_in(self) -> str:
        daemon = self.config.daemon
        command = [*self.program, "run"]
        if self.config_path != DEFAULT_CONFIG:  # the default one need not exist
            command += ["--config", str(self.config_path)]
        lines = [
            "# This host's part of drpwatch.service. Change it here, or with another drop-in.",
            "[Service]",
            "ExecStart=",
            f"ExecStart={' '.join(_quoted(word) for word in command)}",
            f"User={_plain(self.user)}",
            "Group=",
        ]
        if daemon.stop_timeout_s != Config().daemon.stop_timeout_s:
            lines.append(f"TimeoutStopSec={daemon.stop_timeout_s + STOP_GRACE_S:g}")
        writes = list(self.writes)
        for directive, directory in self._directories():
            managed = _below(directory, _MANAGED[directive])
            lines.append(f"{directive}={'' if managed is None else _quoted(managed)}")
            if managed is None:
                writes.append(directory)
        if writes:
            lines.append(
                "# With '-', one that is missing, because it is not mounted, does not keep the daemon down."
            )
        lines += [f"ReadWritePaths={_quoted(f'-{path}')}" for path in writes]
        return "\n".join(lines) + "\n"

    def _directories(self) -> Iterator[tuple[str, Path]]:
        """Yield what the daemon keeps its state and its socket in, where that is not what the unit says."""
        ours, usual = self.config.daemon, Config().daemon
        if ours.state_dir != usual.state_dir:
            yield "StateDirectory", ours.state_dir
        if ours.socket.parent != usual.socket.parent:
            yield "RuntimeDirectory", ours.socket.parent

    def _sysusers(self) -> str:
        home = _quoted(str(self.config.daemon.state_dir))
        return f'# Made by systemd-sysusers, unless it exists.\nu {_plain(self.user)} - "drpwatch" {home} -\n'

    def _tmpfiles(self) -> str:
        lines = [
            "# Made by systemd-tmpfiles, if missing.",
            f"d {_quoted(str(self.config_path.parent))} 0755 root root -",
        ]
        for directive, directory in self._directories():
            if _below(directory, _MANAGED[directive]) is None:
                lines.append(f"d {_quoted(str(directory))} 0750 {_plain(self.user)} {_plain(self.user)} -")
        return "\n".join(lines) + "\n"


def _below(path: Path, parent: Path) -> str | None:
    """Return a path relative to one above it; None if it is elsewhere."""
    return str(path.relative_to(parent)) if path.is_relative_to(parent) and path != parent else None


def _quoted(word: str) -> str:
    """Return a path, or another word, as systemd reads it back."""
    if not word.isprintable() or any(sign in word for sign in "\"'$\\"):
        raise UsageError(f"{word!r}: quotes, $, backslashes and control characters do not go into a unit")
    escaped = word.replace("%", "%%")
    return f'"{escaped}"' if " " in word else escaped


def _plain(user: str) -> str:
    if not user.replace("-", "").replace("_", "").isalnum() or not user.isascii():
        raise UsageError(f"user {user!r}: letters, digits, - and _ are allowed")
    return user


def _read(name: str) -> str:
    return (_DATA / name).read_text(encoding="utf-8")
