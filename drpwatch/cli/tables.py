"""Tables on the terminal: through rich for a person, aligned plain columns for a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from drpwatch.text import printable

STATE_STYLES = {
    "running": "green",
    "waiting": "cyan",
    "paused": "yellow",
    "draining": "yellow",
    "completed": "dim",
    "failed": "bold red",
    "picked": "green",
}


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print rows under a header; the columns named in `right` are aligned to the right."""
    rows = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich(header, rows, right)
        return
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(header, row, widths, strict=True)
        ]
        print("  ".join(cells).rstrip())


def _print_rich(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in header:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        # Text, not str: a micrograph's name may look like rich's markup.
        table.add_row(*(Text(cell, style=STATE_STYLES.get(cell, "")) for cell in row))
    Console().print(table)


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one a line, the values below each other."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        print(f"  {name.ljust(width)}  {printable(value)}")


def clock(unix_s: float) -> str:
    """Return a time as the clock of this machine shows it."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_s))


def ago(unix_s: float | None, now_s: float | None = None) -> str:
    """Return how long ago that was, in the largest unit that says enough."""
    if unix_s is None:
        return "-"
    seconds = max(0.0, (time.time() if now_s is None else now_s) - unix_s)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
