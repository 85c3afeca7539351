"""Progress of long work on stderr: a bar for a person, nothing for a pipe."""

from __future__ import annotations

import math
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from drpwatch.text import printable

if TYPE_CHECKING:
    from rich.progress import TaskID


class _Shown:
    """Bars on stderr, and lines above them; a pipe gets the lines alone."""

    def __init__(self, *, disable: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(stderr=True),
            disable=disable or not sys.stderr.isatty(),
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        """Print a line above the bars; a pipe gets it too."""
        line = printable(line)
        if self._progress.disable:
            print(line, file=sys.stderr, flush=True)
        else:
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)


class Bar(_Shown):
    """One bar over a known number of items."""

    def __init__(self, what: str, total: int) -> None:
        super().__init__(disable=total == 0)
        self._task = self._progress.add_task(what, total=total, note="")

    def step(self, note: str = "") -> None:
        """Count one item, and say something about it."""
        self._progress.update(self._task, advance=1, note=printable(note))


class Stages(_Shown):
    """One progress bar for each stage on a tty, a line for each tenth elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self._tasks: dict[str, TaskID] = {}
        self._mean: dict[str, float] = {}

    def report(self, stage: str, done: int, total: int, loss: float) -> None:
        """Show one step."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, note="")
            self._mean[stage] = loss
        self._mean[stage] = 0.98 * self._mean[stage] + 0.02 * loss
        note = "" if math.isnan(loss) else f"loss {self._mean[stage]:.5f}"
        self._progress.update(self._tasks[stage], completed=done, note=note)
        if self._progress.disable and done % max(1, total // 10) == 0:
            print(f"{stage} {done}/{total} {note}", file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        """Print a line above the bars, with who says it."""
        super().say(f"drpwatch: {line}")
