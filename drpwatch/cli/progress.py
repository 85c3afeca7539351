"""Progress of long work on stderr: a bar for a person, nothing for a pipe."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self


class Bar:
    """One bar over a known number of items."""

    def __init__(self, what: str, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty() or total == 0,
        )
        self._task = self._progress.add_task(what, total=total, note="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def step(self, note: str = "") -> None:
        """Count one item, and say something about it."""
        self._progress.update(self._task, advance=1, note=note)

    def say(self, line: str) -> None:
        """Print a line above the bar; a pipe gets it too."""
        if self._progress.disable:
            print(line, file=sys.stderr, flush=True)
        else:
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
