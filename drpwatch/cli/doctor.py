"""`drpwatch doctor`: whether this host can run drpwatch, and whether a daemon that runs is well."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drpwatch import __version__
from drpwatch.cli.client import ControlClient
from drpwatch.cli.remote import AsJson
from drpwatch.cli.tables import print_table
from drpwatch.errors import ConfigError, DaemonUnreachable, DrpwatchError
from drpwatch.text import printable

if TYPE_CHECKING:
    from drpwatch.config import Config
    from drpwatch.doctor.check import Check

_ENDED = ("completed", "failed")


def doctor(
    config: Annotated[
        Path | None,
        typer.Option(
            help="Configuration to check; /etc/drpwatch/config.toml unless given, the defaults without that one.",
            show_default=False,
        ),
    ] = None,
    watch: Annotated[
        list[Path] | None,
        typer.Option(
            help="A directory that is to be watched; can be given several times.", show_default=False
        ),
    ] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="A directory for output; can be given several times.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check GPU, weights, directories, disks, clock and ports; say what to do about each problem.

    Needs no daemon. If one runs, its live sessions' directories are checked too. Exits with 1 if a check failed.
    """
    checks = list(_checks(config, watch or [], out or []))
    if as_json:
        print(json.dumps({"checks": [asdict(check) for check in checks]}, indent=2))
    else:
        rows = [(check.level.value, check.name, printable(check.found)) for check in checks]
        print_table(("", "CHECK", "FOUND"), rows)
        for check in checks:
            if check.advice:
                print(f"  ! {check.name}: {printable(check.advice)}")
    if any(check.level == "fail" for check in checks):
        raise typer.Exit(1)


def _checks(path: Path | None, watch: list[Path], out: list[Path]) -> Iterator[Check]:
    """Yield all checks; each stands for itself."""
    from drpwatch.config import find_default, load_config
    from drpwatch.doctor.check import fail, ok
    from drpwatch.doctor.device import check_device, check_weights
    from drpwatch.doctor.machine import check_clock, check_port, check_user
    from drpwatch.doctor.places import check_output, check_state, check_watch_root

    path = path or find_default()
    config = load_config(None)
    try:
        config = load_config(path)
    except ConfigError as error:
        found = "; ".join(str(error).splitlines())
        yield fail("configuration", found, "correct it; the other checks took the defaults")
    else:
        yield ok("configuration", f"{path or 'no file, so the defaults'}")
    yield from check_device(config.pick)
    yield check_weights(config.pick)
    yield from check_state(config.daemon.state_dir)
    running, sessions = _daemon(config)
    yield running
    live = [session for session in sessions if session["state"] not in _ENDED]
    for root in _each(watch, live, "watch_root"):
        yield check_watch_root(root)
    for directory in _each(out, live, "out_dir"):
        yield check_output(directory)
    yield check_port(config.daemon)
    yield check_clock()
    yield check_user()


def _each(given: list[Path], live: list[dict[str, Any]], key: str) -> list[Path]:
    """Return the directories that were given and those of live sessions, each once."""
    return list(dict.fromkeys([*(path.absolute() for path in given), *(Path(one[key]) for one in live)]))


def _daemon(config: Config) -> tuple[Check, list[dict[str, Any]]]:
    """Return whether a daemon runs and is well, and its sessions."""
    from drpwatch.doctor.check import fail, ok, warn

    client = ControlClient(config.daemon.socket, timeout_s=5.0)
    try:
        about, sessions = client.daemon(), client.sessions()
        health = client.health()
    except DaemonUnreachable as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return ok("daemon", f"none runs: there is no {config.daemon.socket}"), []
        return warn("daemon", "none answers on its socket", str(error)), []
    except DrpwatchError as error:
        return fail("daemon", str(error), "its log says more: journalctl -u drpwatch"), []
    running = f"version {about['version']} runs, with {len(sessions)} sessions"
    if not health["healthy"]:
        reasons = "; ".join(health["reasons"])
        return fail(
            "daemon", f"{running}, and cannot pick: {reasons}", "the checks here may say why"
        ), sessions
    if notices := [*health["notes"], *about["notices"]]:
        return warn("daemon", running, "; ".join(notices)), sessions
    if about["version"] != __version__:
        return warn("daemon", running, f"restart it to have version {__version__}"), sessions
    return ok("daemon", f"{running}, ready"), sessions
