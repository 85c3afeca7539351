"""`drpwatch recover`: a new journal, from what sessions left beside their micrographs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drpwatch.cli.remote import AsJson
from drpwatch.cli.run import ConfigFile

if TYPE_CHECKING:
    from drpwatch.service.recovery import Recovered


def recover(
    directories: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[OUTPUT_DIRECTORY]...",
            show_default=False,
            help="Where sessions have their STAR files; those that the damaged journal tells unless given.",
        ),
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a new journal from STAR files, when it is damaged or lost; the daemon must not run."""
    from drpwatch.config import find_default, load_config
    from drpwatch.service.recovery import recover as recover_sessions

    settings = load_config(config or find_default())
    done = recover_sessions(settings.daemon.state_dir, directories or ())
    if as_json:
        print(json.dumps(asdict(done), indent=2, default=str))
        return
    for session in done.sessions:
        _print(session)
    if done.kept is not None:
        print(f"the damaged journal is kept as {done.kept}")


def _print(session: Recovered) -> None:
    print(f"session {session.name}: {session.micrographs} micrographs with {session.picks} picks recovered")
    if session.changed:
        print(f"  {session.changed} of them are newer than their picks and will be picked again")
    for problem in session.problems:
        print(f"  ! {problem}")
    print(f"  if it is to go on, once the daemon runs: drpwatch session reopen {session.name}")
