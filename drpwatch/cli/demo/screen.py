"""Micrographs as they arrive: a table that lives on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from drpwatch.cli.client import Json
from drpwatch.cli.tables import STATE_STYLES

if TYPE_CHECKING:
    from rich.table import Table

_LINES_AROUND = 10  # of the terminal, kept for what is not the table


class Screen(Protocol):
    """Where the demo shows what it sees."""

    def say(self, text: str) -> None:
        """Print a line."""
        ...

    def update(self, view: Json) -> None:
        """Show a session as it is now."""
        ...


@contextlib.contextmanager
def open_screen(quiet: bool) -> Iterator[Screen]:
    """Give the screen that fits standard output."""
    if quiet:
        yield _Silence()
    elif sys.stdout.isatty():
        from rich.live import Live

        with Live(refresh_per_second=4) as live:
            yield _LiveTable(live)
    else:
        yield _Lines()


def micrographs(view: Json) -> list[Json]:
    """Return the micrographs of a session, in the order in which they were first seen."""
    seen = {one["name"]: one for part in ("newest", "failed", "waiting") for one in view[part]}
    return sorted(seen.values(), key=lambda one: (one["first_seen_at"], one["name"]))


def _cells(one: Json) -> tuple[str, str, str, str, str]:
    """Return name, state, picks, seconds and remark of a micrograph."""
    state, picks = one["state"], one["picks"]
    picked = state == "picked"
    remark = one["reason"] or ""
    if one["generation"] > 1:
        remark = f"{remark}; " if remark else ""
        remark += "picked again, as it was rewritten" if picked else "it was rewritten"
    return (
        one["name"],
        state,
        str(picks) if picked else "",
        f"{sum(one['seconds'].values()):.2f}" if picked else "",
        remark,
    )


class _Silence:
    def say(self, text: str) -> None:
        pass

    def update(self, view: Json) -> None:
        pass


class _Lines:
    """One line for each change of a micrograph's state; one that grows and settles only waits."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._shown: dict[str, tuple[int, str]] = {}

    def say(self, text: str) -> None:
        print(text, flush=True)

    def update(self, view: Json) -> None:
        for one in micrographs(view):
            kind = one["generation"], one["state"]
            if self._shown.get(one["name"]) == kind:
                continue
            self._shown[one["name"]] = kind
            name, state, picks, seconds, remark = _cells(one)
            what = f"{picks} picks in {seconds} s{' - ' if remark else ''}{remark}" if picks else remark
            since = time.monotonic() - self._started
            print(f"{since:6.1f} s  {name}  {state:8s} {what}".rstrip(), flush=True)


class _LiveTable:
    """A table that is drawn anew at every change."""

    def __init__(self, live: object) -> None:
        from rich.live import Live

        assert isinstance(live, Live)
        self._live = live

    def say(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def update(self, view: Json) -> None:
        self._live.update(self._table(view))

    def _table(self, view: Json) -> Table:
        from rich.table import Table
        from rich.text import Text

        counts = view["micrographs"]
        title = ", ".join(f"{counts[state]} {state}" for state in counts)
        table = Table(
            box=None,
            header_style="bold",
            pad_edge=False,
            title=f"{title}; {view['picks']} picks",
            title_justify="left",
        )
        for name in ("MICROGRAPH", "STATE", "PICKS", "SECONDS", ""):
            table.add_column(name, justify="right" if name in ("PICKS", "SECONDS") else "left")
        room = max(5, self._live.console.height - _LINES_AROUND)
        for one in micrographs(view)[-room:]:
            table.add_row(*(Text(cell, style=STATE_STYLES.get(cell, "")) for cell in _cells(one)))
        return table
