"""What all commands of a running daemon share: the name, the socket, JSON or text."""

from __future__ import annotations

import contextlib
import datetime
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from drpwatch import places
from drpwatch.cli.client import ControlClient, Json, listens
from drpwatch.errors import UsageError

POLL_S = 0.5

Name = Annotated[str, typer.Argument(help="Name of the session.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print what the daemon answers, as JSON.")]
Socket = Annotated[
    Path | None,
    typer.Option(
        "--socket",
        envvar="DRPWATCH_SOCKET",
        help="Control socket of the daemon; that of your own, else /run/drpwatch/control.sock.",
        show_default=False,
    ),
]


def connect(socket: Path | None) -> ControlClient:
    """Return a client of the given socket, of one's own daemon, or, where that does not run, of the host's."""
    return ControlClient(socket or _usual())


def _usual() -> Path:
    own, service = places.usual().socket, places.SERVICE.socket
    # The directory, not the socket: it is there while the service runs, and can be seen by those who may not enter.
    return own if own == service or listens(own) or not service.parent.exists() else service


def absolute(path: Path) -> str:
    """Return the path as the daemon, which works elsewhere, can use it; links stay as they are given."""
    return str(path.expanduser().absolute())


def model_name(text: str) -> str:
    """Return a name of shipped weights as it is, and a path as an absolute one."""
    return absolute(Path(text)) if "/" in text or text.endswith(".safetensors") else text


def local_time(what: str, text: str) -> datetime.datetime:
    """Return a time in ISO 8601 that a user gave; without a zone it is that of this machine.

    Raises
    ------
    UsageError
        It is none.
    """
    try:
        return datetime.datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise UsageError(f"{what}: {text!r} is no time such as 2026-11-24T08:00") from None


def unix_time(what: str, text: str) -> float:
    """Return a time that a user gave as unix seconds."""
    return local_time(what, text).timestamp()


def print_view(view: Json, as_json: bool, as_text: Callable[[Json], None]) -> None:
    """Print what the daemon answered, for a program or for a person."""
    if as_json:
        print(json.dumps(view, indent=2))
    else:
        as_text(view)


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Give a function that tells a person how far it is; a pipe hears nothing."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield lambda text: status.update(text)
