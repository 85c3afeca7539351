"""`drpwatch demo`: a simulated microscope, the real daemon, and what came of it."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

_MOST = 150  # the daemon's view of a session names 200 micrographs


def demo(
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="New folder for everything; a temporary one unless given."),
    ] = None,
    count: Annotated[int, typer.Option(min=6, max=_MOST, help="Micrographs to simulate.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same micrographs.")] = 1,
    pace_s: Annotated[float, typer.Option(min=0.1, help="Seconds that writing a micrograph takes.")] = 2.0,
    model: Annotated[str, typer.Option(help="Name of shipped weights, or a weights file.")] = "general",
    keep: Annotated[bool, typer.Option("--keep/--no-keep", help="Whether the folder stays.")] = True,
    stay: Annotated[
        bool, typer.Option("--stay", help="Keep the daemon and its page at the end, until Ctrl-C.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the result, as JSON.")] = False,
) -> None:
    """Watch a simulated session being picked live, and compare the picks with what was simulated.

    A microscope writes micrographs into a folder: in pieces, one truncated for a while, one written twice,
    and a file that is none. The daemon, a process of its own, picks them as they are finished. Needs neither
    data nor a GPU, and ends with exit code 1 if anything is not as it should be.
    """
    from drpwatch.cli.demo.live import Demo
    from drpwatch.cli.demo.report import as_values, print_report
    from drpwatch.cli.demo.screen import open_screen
    from drpwatch.pick.weights import find, shipped
    from drpwatch.train.microscope import Microscope, compact_species

    weights = find(model)  # a wrong name is told before anything begins
    model = model if model in shipped() else str(weights.absolute())
    with _folder(out, keep) as folder, _stopped_by_sigterm():
        show = Demo(
            folder, Microscope(folder / Demo.WATCHED, compact_species(seed), count, seed, pace_s), model
        )
        with open_screen(quiet=as_json) as screen:
            report = show.run(screen, stay)
        if as_json:
            print(json.dumps(as_values(report), indent=2))
        else:
            print_report(report, kept=keep)


@contextlib.contextmanager
def _folder(out: Path | None, keep: bool) -> Iterator[Path]:
    """Give the folder; an own one goes when interrupted, and stays for a look when something failed."""
    from drpwatch.errors import UsageError

    if out is None:
        folder = Path(tempfile.mkdtemp(prefix="drpwatch-demo-"))
    else:
        folder = out.expanduser().absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise UsageError(f"--out {out}: the folder is not empty; give a new one")
        except OSError as error:
            raise UsageError(f"--out {out}: cannot be used ({error.strerror})") from error
    try:
        yield folder
    except (KeyboardInterrupt, SystemExit):
        if out is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end it as Ctrl-C does: daemon, microscope and folder go."""

    def leave(*_: Any) -> NoReturn:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
