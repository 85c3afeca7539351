"""The command line: one typer application, and the exit code of every way it can end.

Commands live one noun to a module, and all of these are imported at each start. So a command's
module imports at its top only what is cheap; torch, scipy, numpy, fastapi and the like are imported
inside the functions that need them. A test holds `--help` and `session list` to that.

To add a command, import its module here and add one line to `_register`.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from drpwatch import __version__
from drpwatch.cli import (
    demo,
    deploy,
    doctor,
    evaluate,
    export,
    model,
    pick,
    recover,
    run,
    session,
    simulate,
    train,
    watch,
)
from drpwatch.cores import share_cores
from drpwatch.errors import DrpwatchError
from drpwatch.text import printable

DAEMON_PANEL = "The daemon and its sessions"
FILES_PANEL = "Files, without a daemon"
MODEL_PANEL = "Weights and training"

EXIT_CODES = """Exit codes:
  0  done
  1  failed; the text on stderr says why
  2  a wrong argument, or a verb that the session's state forbids
 69  the daemon does not answer on its control socket
 70  the picking device failed for good; a new process may find it well
 78  the configuration file is wrong
130  interrupted"""

app = typer.Typer(
    name="drpwatch",
    help="Live particle picking at the cryo-electron microscope.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # `main` explains errors; a traceback is asked for
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _register() -> None:
    """Give each command its name and its place in `--help`."""
    app.add_typer(session.app, name="session", rich_help_panel=DAEMON_PANEL)
    app.command(rich_help_panel=DAEMON_PANEL)(watch.watch)
    app.command(rich_help_panel=DAEMON_PANEL)(run.run)
    app.command(rich_help_panel=DAEMON_PANEL)(recover.recover)
    app.command(rich_help_panel=DAEMON_PANEL)(deploy.deploy)
    app.command(rich_help_panel=DAEMON_PANEL)(doctor.doctor)
    app.command(rich_help_panel=FILES_PANEL)(pick.pick)
    app.command(rich_help_panel=FILES_PANEL)(evaluate.evaluate)
    app.command(rich_help_panel=FILES_PANEL)(export.export)
    app.add_typer(model.app, name="model", rich_help_panel=MODEL_PANEL)
    app.command(rich_help_panel=MODEL_PANEL)(simulate.simulate)
    app.add_typer(train.app, name="train", rich_help_panel=MODEL_PANEL)
    app.command(rich_help_panel=DAEMON_PANEL)(demo.demo)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"drpwatch {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; `arguments` default to the process's own.

    Errors end as one line on stderr for each problem, never as a traceback, unless the environment
    has DRPWATCH_DEBUG=1.
    """
    share_cores()
    try:
        app(args=arguments, prog_name="drpwatch")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except DrpwatchError as error:
        _complain(str(error).splitlines() or [type(error).__name__])
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - the last place that can make a sentence of it
        message = " ".join(str(error).split())
        hint = "" if _debugging() else "; run with DRPWATCH_DEBUG=1 for the traceback"
        _complain([f"unexpected {type(error).__name__}: {message}{hint}"])
        return 1
    return 0


def _complain(lines: Sequence[str]) -> None:
    """Print the lines, after the traceback where one was asked for."""
    if _debugging():
        traceback.print_exc()
    for line in lines:
        print(f"drpwatch: error: {printable(line)}", file=sys.stderr)


def _debugging() -> bool:
    return os.environ.get("DRPWATCH_DEBUG", "") not in ("", "0")


_register()
