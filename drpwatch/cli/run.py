"""`drpwatch run`: the daemon itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        help="Configuration file; /etc/drpwatch/config.toml unless given, the defaults without that one.",
        show_default=False,
    ),
]


def run(
    config: ConfigFile = None,
    check: Annotated[bool, typer.Option("--check", help="Only read the configuration, and tell.")] = False,
) -> None:
    """Run the daemon in the foreground until SIGTERM or Ctrl-C."""
    from drpwatch.config import find_default, load_config

    path = config or find_default()
    settings = load_config(path)
    if check:
        print(f"{path or 'no configuration file, so the defaults'}: fine")
        return
    from drpwatch.service.daemon import run as run_daemon

    raise typer.Exit(run_daemon(settings, config))
