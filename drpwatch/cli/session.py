"""`drpwatch session ...`: the verbs of a running daemon, by its control socket."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated

import typer

from drpwatch.cli import changes, remote, report, views
from drpwatch.cli.client import ControlClient, Json
from drpwatch.cli.remote import (
    AsJson,
    Name,
    Socket,
    absolute,
    connect,
    local_time,
    model_name,
    print_view,
    progress,
    unix_time,
)
from drpwatch.errors import DrpwatchError, SessionError
from drpwatch.report.handover import REPORT, extraction_commands
from drpwatch.text import printable

_REPORT_WITHIN_S = 20.0

app = typer.Typer(help="Start, watch, change and stop sessions of the running daemon.", no_args_is_help=True)
for name, command in changes.COMMANDS.items():
    app.command(name)(command)
app.command()(report.report)


@app.command()
def start(
    name: Name,
    watch: Annotated[Path, typer.Option(help="Directory in which micrographs appear.", show_default=False)],
    diameter_angstrom: Annotated[float, typer.Option(help="Particle diameter in Å.", show_default=False)],
    pixel_size_angstrom: Annotated[
        float | None, typer.Option(help="Pixel size in Å; read from each header unless given.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the STAR files; the daemon tells its choice.")
    ] = None,
    glob: Annotated[
        str | None, typer.Option(help="Which files, by path below the directory; **/*.mrc unless given.")
    ] = None,
    negative_stain: Annotated[bool, typer.Option("--negative-stain", help="Particles are bright.")] = False,
    threshold: Annotated[
        float | None, typer.Option(help="Least probability of a pick, 0 to 1; the weights have a default.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name of shipped weights, or a weights file; general unless given.")
    ] = None,
    micrograph_prefix: Annotated[
        str | None,
        typer.Option(help="Put before each name in the STAR files, such as MotionCorr/job002/", metavar="P"),
    ] = None,
    backfill: Annotated[
        str | None,
        typer.Option(help="Which of the micrographs there now: all (unless given), new-only, or since=TIME."),
    ] = None,
    expected_end: Annotated[
        str | None, typer.Option(help="When the session will end, such as 2026-11-24T08:00.", metavar="TIME")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="Defaults of the daemon's configuration, [profile.NAME].", metavar="NAME"),
    ] = None,
    socket: Socket = None,
    as_json: AsJson = False,
) -> None:
    """Pick every micrograph in a directory, those there now and those to come."""
    given: Json = {
        "name": name,
        "watch_root": absolute(watch),
        "diameter_angstrom": diameter_angstrom,
        "pixel_size_angstrom": pixel_size_angstrom,
        "out_dir": None if out is None else absolute(out),
        "glob": glob,
        "negative_stain": negative_stain or None,
        "threshold": threshold,
        "model": None if model is None else model_name(model),
        "micrograph_prefix": micrograph_prefix,
        "backfill": None if backfill is None else _zoned(backfill),
        "expected_end_at": None if expected_end is None else unix_time("--expected-end", expected_end),
        "profile": profile,
    }
    # What was not given is left out: the daemon knows its own defaults.
    request = {key: value for key, value in given.items() if value is not None}
    client = connect(socket)
    view = client.start(request)
    print_view(view, as_json, lambda view: views.print_understood(view, client.daemon()))


@app.command()
def stop(
    name: Name,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when all its micrographs are recorded.")
    ] = False,
    socket: Socket = None,
    as_json: AsJson = False,
) -> None:
    """Take no new micrographs, finish those that are there, and complete the session."""
    client = connect(socket)
    earlier = _report_mark(client.session(name)) if wait else None
    view = client.change(name, "stop")
    if wait:
        view = _wait_for_the_end(client, view)
        _wait_for_the_report(view, earlier)
    print_view(view, as_json, _print_end)


@app.command()
def pause(name: Name, socket: Socket = None, as_json: AsJson = False) -> None:
    """Go on finding micrographs, but pick none."""
    print_view(connect(socket).change(name, "pause"), as_json, _print_state)


@app.command()
def resume(name: Name, socket: Socket = None, as_json: AsJson = False) -> None:
    """Pick again after a pause."""
    print_view(connect(socket).change(name, "resume"), as_json, _print_state)


@app.command()
def reopen(name: Name, socket: Socket = None, as_json: AsJson = False) -> None:
    """Watch again for a session that is completed or failed."""
    print_view(connect(socket).change(name, "reopen"), as_json, _print_state)


@app.command("list")
def list_sessions(socket: Socket = None, as_json: AsJson = False) -> None:
    """List all sessions, newest first."""
    client = connect(socket)
    sessions, notices = client.sessions(), client.daemon()["notices"]
    if as_json:
        print(json.dumps({"sessions": sessions, "notices": notices}, indent=2))
    else:
        views.print_list(sessions)
        views.print_notices(notices)


@app.command()
def show(name: Name, socket: Socket = None, as_json: AsJson = False) -> None:
    """Show a session: state, rates, outputs, and which micrographs wait or failed, and why."""
    print_view(connect(socket).session(name), as_json, _print_all)


def _zoned(backfill: str) -> str:
    """Return a backfill whose time, if it has one, carries its zone: the daemon's may be another."""
    word, found, text = backfill.partition("=")
    return f"{word}={local_time('--backfill', text).isoformat()}" if found and word == "since" else backfill


def _print_state(view: Json) -> None:
    print(f"session {view['name']}: {view['state']}")
    views.print_problems(view)


def _print_end(view: Json) -> None:
    counts = view["micrographs"]
    left = counts["waiting"] + counts["ready"]
    todo = f", {left} to finish" if left and view["state"] != "completed" else ""
    print(
        f"session {view['name']}: {view['state']}{todo}; "
        f"{counts['picked']} micrographs with {view['picks']} picks, {counts['failed']} failed"
    )
    print(printable(extraction_commands(views.handover(view)), keep="\n"))
    if view["state"] == "completed":
        print(printable(f"\nWhat came of the session: {Path(view['out_dir'], REPORT)}"))


def _print_all(view: Json) -> None:
    views.print_session(view)
    if view["state"] == "completed":
        print(printable(f"\n{extraction_commands(views.handover(view))}", keep="\n"))


def _wait_for_the_end(client: ControlClient, view: Json) -> Json:
    """Return the session once it is completed.

    Raises
    ------
    SessionError
        Somebody reopened it meanwhile.
    DrpwatchError
        The session failed.
    """
    name = view["name"]
    with progress() as tell:
        while view["state"] == "draining":
            counts = view["micrographs"]
            tell(f"session {name}: {counts['waiting'] + counts['ready']} micrographs to finish")
            time.sleep(remote.POLL_S)
            view = client.session(name)
    if view["state"] == "failed":
        raise DrpwatchError(f"session {name} failed: {'; '.join(view['problems']) or 'no reason is known'}")
    if view["state"] != "completed":
        raise SessionError(f"session {name} is {view['state']} again: somebody else changed it")
    return view


def _wait_for_the_report(view: Json, earlier: int | None) -> None:
    """Return once there is another report than the earlier one, or it clearly does not come, such as to a full disk."""
    until = time.monotonic() + _REPORT_WITHIN_S
    while os.path.isdir(view["out_dir"]) and time.monotonic() < until and _report_mark(view) == earlier:
        time.sleep(remote.POLL_S)


def _report_mark(view: Json) -> int | None:
    """Return what tells the report of a session from earlier ones; None if there is none."""
    try:
        return Path(view["out_dir"], REPORT).stat().st_mtime_ns
    except OSError:
        return None
