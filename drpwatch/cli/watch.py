"""`drpwatch watch`: a running daemon on a terminal, until Ctrl-C."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from drpwatch.cli import views
from drpwatch.cli.client import ControlClient, Json
from drpwatch.cli.remote import Socket, connect
from drpwatch.errors import DrpwatchError, SessionError
from drpwatch.text import printable

if TYPE_CHECKING:
    from drpwatch.cli.dashboard import Snapshot

_EVERY_S = 1.0
_ENDED = ("completed", "failed")


def watch(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Session to show in full; the newest that is not ended unless given.", show_default=False
        ),
    ] = None,
    socket: Socket = None,
) -> None:
    """Show what happens now: sessions, rate, backlog, picks, newest micrographs, failures. Ctrl-C ends it.

    It goes on when the daemon is started again. Without a terminal it prints what there is, once.
    """
    client = connect(socket)
    first = _ask(client, name)
    if not sys.stdout.isatty():
        _print_once(first)
        return
    try:
        _show(_snapshots(client, name, first))
    except KeyboardInterrupt:
        return  # that is how it ends


def _ask(client: ControlClient, name: str | None) -> Snapshot:
    """Return what the daemon says now.

    Raises
    ------
    DaemonUnreachable
        It does not answer.
    SessionError
        There is no session of that name.
    """
    from drpwatch.cli.dashboard import Snapshot

    sessions, health = client.sessions(), client.health()
    chosen = name or _newest_at_work(sessions)
    return Snapshot(
        at=time.time(),
        sessions=tuple(sessions),
        detail=None if chosen is None else client.session(chosen),
        not_ready=tuple(health["reasons"]),
        notes=tuple(health["notes"]),
        daemon=client.daemon(),
    )


def _newest_at_work(sessions: list[Json]) -> str | None:
    """Return the name of the newest session that is not ended, else of the newest."""
    at_work = [one for one in sessions if one["state"] not in _ENDED]
    return next((one["name"] for one in (*at_work, *sessions)), None)


def _snapshots(client: ControlClient, name: str | None, last: Snapshot) -> Iterator[Snapshot]:
    """Yield what the daemon says, each second; while it does not answer, what it said last."""
    yield last
    while True:
        time.sleep(_EVERY_S)
        try:
            last = _ask(client, name)
        except SessionError:
            raise
        except DrpwatchError as error:
            last = replace(last, unreachable=str(error))
        yield last


def _show(snapshots: Iterator[Snapshot]) -> None:
    """Keep the screen as the snapshots are."""
    from rich.console import Console
    from rich.live import Live

    from drpwatch.cli.dashboard import draw

    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for shown in snapshots:
            live.update(draw(shown, *console.size), refresh=True)


def _print_once(shown: Snapshot) -> None:
    views.print_list(list(shown.sessions))
    for reason in (*shown.not_ready, *shown.notes):
        print(f"  ! {printable(reason)}")
    if shown.daemon is not None:
        views.print_daemon(shown.daemon)
    if shown.detail is not None:
        print()
        views.print_session(shown.detail)
