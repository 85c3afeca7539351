"""`drpwatch session report`: what came of a session, as one HTML file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from drpwatch.cli.remote import Name, Socket, connect
from drpwatch.errors import DaemonUnreachable, OutputError
from drpwatch.text import printable


def report(
    name: Name,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File to write; NAME-report.html unless given.", show_default=False
        ),
    ] = None,
    state_dir: Annotated[
        Path | None,
        typer.Option(help="Ask no daemon, but read the journal in its state directory.", show_default=False),
    ] = None,
    socket: Socket = None,
) -> None:
    """Write a report: parameters, rates, plots, failures, pictures, commands for RELION and cryoSPARC.

    One file that needs no network, at any time of a session. The daemon is asked for it; where none answers,
    the journal is read in the state directory of the configuration.
    """
    content = _content(name, state_dir, socket)
    path = output or Path(f"{name}-report.html")
    try:
        path.write_bytes(content)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
    print(printable(f"{path}: report of session {name}"))


def _content(name: str, state_dir: Path | None, socket: Path | None) -> bytes:
    if state_dir is not None:
        return _from_journal(state_dir, name)
    try:
        return connect(socket).report(name)
    except DaemonUnreachable as error:
        from drpwatch.config import find_default, load_config

        configured = load_config(find_default()).daemon.state_dir
        try:
            return _from_journal(configured, name)
        except OutputError:
            raise DaemonUnreachable(f"{error}; or read its journal with --state-dir DIR") from error


def _from_journal(state_dir: Path, name: str) -> bytes:
    from drpwatch.report.making import make_report
    from drpwatch.service.state import JOURNAL

    journal = state_dir.expanduser() / JOURNAL
    if not os.path.isfile(journal):
        raise OutputError(f"{journal}: there is no journal, or it may not be read")
    return make_report(journal, name)
