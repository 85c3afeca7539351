"""Small pieces of HTML. Whatever comes from outside goes through `text` or `code`: names of files are hostile."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Sequence
from html import escape

from drpwatch.text import printable


def text(value: object) -> str:
    """Return a value as text that can neither end its element nor turn the writing around."""
    return f"<bdi>{escape(printable(str(value)))}</bdi>"


def code(value: object) -> str:
    """Return a value as it is to be typed; lines stay lines."""
    return f"<code>{escape(printable(str(value), keep=chr(10)))}</code>"


def section(title: str, *body: str, long: bool = False) -> str:
    """Return a part of the page; a long one may be cut where paper ends."""
    return f"<section{' class=long' if long else ''}><h2>{escape(title)}</h2>{''.join(body)}</section>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[str] = ()) -> str:
    """Return a table of cells that are HTML; the columns named in `numbers` are aligned to the right."""
    kinds = [" class=number" if name in numbers else "" for name in header]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, header, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{kind}>{cell}</td>' for kind, cell in zip(kinds, row, strict=True))}</tr>"
        for row in rows
    )
    return f"<div class=table tabindex=0><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def figures(values: Iterable[tuple[str, str, str]]) -> str:
    """Return tiles of (name, value, remark)."""
    tiles = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(remark)}</small></dd></div>"
        for name, value, remark in values
    )
    return f'<dl class="figures">{tiles}</dl>'


def figure(title: str, body: str, caption: str = "") -> str:
    """Return a picture or plot under its title."""
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f"<figure><h3>{escape(title)}</h3>{body}{below}</figure>"


def data_uri(kind: str, content: bytes) -> str:
    """Return content as an address that needs no network."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def clock(unix_s: float) -> str:
    """Return a time as the clock of this machine shows it."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_s))


def number(value: float) -> str:
    """Return a number that people read: thousands apart, few digits."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return f"{value:.3g}"


def count(n: int, noun: str) -> str:
    """Return a number of things in words."""
    return f"{number(n)} {noun}{'' if n == 1 else 's'}"
