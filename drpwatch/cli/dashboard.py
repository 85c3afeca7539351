"""One screen of a running daemon for people on a terminal: what `drpwatch watch` shows. Draws, asks nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.styled import Styled
from rich.table import Table
from rich.text import Text

from drpwatch.cli.client import Json
from drpwatch.cli.tables import STATE_STYLES, ago
from drpwatch.cli.views import LIST_HEADER, LIST_NUMBERS, device_line, list_row, per_micrograph, rate
from drpwatch.text import printable

_BLOCKS = "▁▂▃▄▅▆▇█"
_EMPTY, _FAILED = "·", "x"
_FRAME = 4  # columns that a frame takes
_LEAST_ROWS = 3


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the daemon answered last, and why it does not answer now."""

    at: float  # unix seconds, of the answer
    sessions: tuple[Json, ...] = ()
    detail: Json | None = None  # the session that is shown in full
    daemon: Json | None = None  # the daemon itself: its devices, its page
    not_ready: tuple[str, ...] = ()  # why micrographs are not picked and recorded
    notes: tuple[str, ...] = ()  # what is wrong while they are
    unreachable: str | None = None


def draw(shown: Snapshot, width: int, height: int) -> RenderableType:
    """Return a screen of so many columns and lines."""
    parts: list[RenderableType] = [_head(shown)]
    if shown.sessions:
        rows = [list_row(one) for one in shown.sessions[: max(_LEAST_ROWS, height // 4)]]
        parts.append(_table(LIST_HEADER, rows, LIST_NUMBERS, LIST_HEADER.index("WATCHES")))
    else:
        parts.append(Text("no sessions yet: drpwatch session start NAME --watch DIR --diameter-angstrom D"))
    if shown.detail is not None:
        told = len(shown.not_ready) + len(shown.notes) + len(_devices(shown))
        left = height - 4 - len(shown.sessions) - told
        name = Text(f"{shown.detail['name']}: {shown.detail['state']}", "bold")
        parts.append(Panel(_session(shown.detail, width - _FRAME, left), title=name, title_align="left"))
    # What was known before is still to be read, but as such.
    return Group(
        parts[0], *(Styled(part, "dim" if shown.unreachable is not None else "") for part in parts[1:])
    )


def sparkline(newest: list[Json], width: int) -> str:
    """Return the picks of the micrographs recorded last, the newest to the right."""
    shown = newest[:width][::-1]
    most = max((one["picks"] or 0 for one in shown), default=0)
    return "".join(_block(one["picks"], most) for one in shown)


def _block(picks: int | None, most: int) -> str:
    if not picks:
        return _FAILED if picks is None else _EMPTY
    return _BLOCKS[min(len(_BLOCKS) - 1, picks * len(_BLOCKS) // (most + 1))]


def _head(shown: Snapshot) -> Text:
    head = Text("drpwatch ", "bold")
    head.append(time.strftime("%H:%M:%S", time.localtime(shown.at)), "dim")
    if shown.daemon is not None and shown.daemon["page"] is not None:
        head.append(f"  {shown.daemon['page']}", "dim")
    if shown.unreachable is not None:
        head.append(f"\n! {printable(shown.unreachable)}; trying again", "bold red")
    elif shown.not_ready:
        head.append("  not ready", "bold yellow")
        for reason in shown.not_ready:
            head.append(f"\n! {printable(reason)}", "yellow")
    else:
        head.append("  ready", "green")
        for note in shown.notes:
            head.append(f"\n! {printable(note)}", "yellow")
    for device in _devices(shown):
        head.append(f"\n{device_line(device)}", "yellow" if device["not_ready"] else "dim")
    return head


def _devices(shown: Snapshot) -> list[Json]:
    return [] if shown.daemon is None else list(shown.daemon["devices"])


def _session(view: Json, width: int, height: int) -> RenderableType:
    counts = view["micrographs"]
    backlog = f"{counts['ready']} to pick"
    if view["oldest_unpicked_at"] is not None:
        backlog += f", the oldest seen {ago(view['oldest_unpicked_at'])}"
    figures = Text(
        f"{rate(view['micrographs_per_hour'])} an hour   {view['picks']} picks{per_micrograph(view)}   {backlog}"
        f"   last {ago(view['last_recorded_at'])}{', idle' if view['idle'] else ''}"
    )
    problems = [Text(f"! {printable(one)}", "yellow") for one in view["problems"]]
    failed = view["failed"][: max(1, min(5, height // 4))]
    waiting = view["waiting"][: min(3, height // 8)]
    most = max(_LEAST_ROWS, height - 8 - len(failed) - len(problems) - (len(waiting) + 1 if waiting else 0))
    parts: list[RenderableType] = [figures, *problems]
    if view["newest"]:
        highest = max(one["picks"] or 0 for one in view["newest"][:width])
        line = Text(f"picks per micrograph, 0 to {highest}, the newest to the right:", "dim")
        parts += [line, Text(sparkline(view["newest"], width), "cyan"), _newest(view["newest"][:most])]
    for state, shown in (("waiting", waiting), ("failed", failed)):
        if shown:
            rows = [(one["name"], one["reason"] or "") for one in shown]
            parts.append(_table((f"{counts[state]} {state.upper()}", "REASON"), rows))
    return Group(*parts)


def _newest(micrographs: list[Json]) -> Table:
    rows = [
        (one["name"], "failed" if one["picks"] is None else str(one["picks"]), ago(one["recorded_at"]))
        for one in micrographs
    ]
    return _table(("NEWEST", "PICKS", "RECORDED"), rows, ("PICKS",))


def _table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = (), gives_way: int = 0
) -> Table:
    """Return rows under a header; where the screen is narrow, the column `gives_way` is cut."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for place, (name, cells) in enumerate(zip(header, zip(*rows, strict=True), strict=True)):
        table.add_column(
            name,
            justify="right" if name in right else "left",
            no_wrap=True,
            overflow="ellipsis",
            min_width=None if place == gives_way else max(map(len, (name, *cells))),
        )
    for row in rows:
        # Text, not str: a micrograph's name may look like rich's markup.
        table.add_row(*(Text(printable(cell), STATE_STYLES.get(cell, "")) for cell in row))
    return table
