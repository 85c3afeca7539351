"""Plots as inline SVG: bars, and lines over time. Colours come from the page's CSS, so both modes and paper fit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from html import escape

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_W, _H = 560, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 12, 34
_TICKS = 5
_STEPS = (1, 2, 2.5, 5, 10)
_TIME_STEPS_S = (60, 300, 600, 1800, 3600, 7200, 14_400, 28_800, 43_200, 86_400, 172_800, 604_800)


def bars(counts: npt.NDArray[np.int64], low: float, high: float, x_label: str, title: str) -> str:
    """Return a histogram of (n,) counts in equal bins from `low` to `high`."""
    x, y = _scale(low, high, _LEFT, _W - _RIGHT), _up(float(max(counts.max(initial=0), 1)))
    edges = np.linspace(low, high, len(counts) + 1)
    shapes = [
        f'<rect class="bar" x="{x(left):.1f}" y="{y(count):.1f}" width="{max(x(right) - x(left) - 0.6, 0.6):.1f}"'
        f' height="{y(0) - y(count):.1f}"><title>{left:g} to {right:g}: {count}</title></rect>'
        for left, right, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
        if count
    ]
    ticks = [(value, f"{value:g}") for value in nice(low, high)]
    return _frame(title, x_label, x, y, ticks, float(counts.max(initial=0)), shapes)


def lines(
    at: Floats, values: Floats, title: str, x_label: str, band: tuple[Floats, Floats] | None = None
) -> str:
    """Return (n,) values over unix seconds; gaps where they are NaN; optionally a band from low to high."""
    top = np.concatenate([values, band[1]] if band else [values])
    most = float(np.nanmax(top, initial=0.0))
    most = most if most > 0 else 1.0
    x, y = _scale(at[0], max(at[-1], at[0] + 1), _LEFT, _W - _RIGHT), _up(most)
    shapes = []
    if band is not None:
        shapes += [_band(at[part], band[0][part], band[1][part], x, y) for part in _runs(band[1])]
    for part in _runs(values):
        points = " ".join(f"{x(a):.1f},{y(v):.1f}" for a, v in zip(at[part], values[part], strict=True))
        if part.stop - part.start == 1:
            shapes.append(
                f'<circle class="dot" cx="{x(at[part][0]):.1f}" cy="{y(values[part][0]):.1f}" r="2.5"/>'
            )
        else:
            shapes.append(f'<polyline class="line" points="{points}"/>')
    return _frame(title, x_label, x, y, _time_ticks(at[0], at[-1]), most, shapes)


def nice(low: float, high: float) -> list[float]:
    """Return about five round values from `low` to `high`."""
    if not high > low:
        return [low]
    raw = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(one * power for one in _STEPS if one * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def _band(
    at: Floats, low: Floats, high: Floats, x: Callable[[float], float], y: Callable[[float], float]
) -> str:
    there = [f"{x(a):.1f},{y(v):.1f}" for a, v in zip(at, high, strict=True)]
    back = [f"{x(a):.1f},{y(v):.1f}" for a, v in zip(at[::-1], low[::-1], strict=True)]
    return f'<polygon class="band" points="{" ".join(there + back)}"/>'


def _runs(values: Floats) -> list[slice]:
    """Return the stretches without NaN."""
    known = np.concatenate([[False], np.isfinite(values), [False]])
    edges = np.flatnonzero(known[1:] != known[:-1])
    return [slice(int(first), int(last)) for first, last in zip(edges[::2], edges[1::2], strict=True)]


def _time_ticks(first: float, last: float) -> list[tuple[float, str]]:
    span = max(last - first, 1.0)
    step = next(
        (one for one in _TIME_STEPS_S if span / one <= _TICKS), math.ceil(span / _TICKS / 86_400) * 86_400
    )
    offset = time.localtime(first).tm_gmtoff  # round hours of the clock on the wall
    begin = math.ceil((first + offset) / step) * step - offset
    form = "%H:%M" if span <= 86_400 else "%d %b %H:%M" if step < 86_400 else "%d %b"
    return [(at, time.strftime(form, time.localtime(at))) for at in np.arange(begin, last + 1, step).tolist()]


def _scale(low: float, high: float, begin: float, end: float) -> Callable[[float], float]:
    length = (high - low) or 1.0
    return lambda value: begin + (value - low) / length * (end - begin)


def _up(most: float) -> Callable[[float], float]:
    return _scale(0.0, most, _H - _BOTTOM, _TOP)


def _frame(
    title: str,
    x_label: str,
    x: Callable[[float], float],
    y: Callable[[float], float],
    x_ticks: Sequence[tuple[float, str]],
    most: float,
    shapes: Sequence[str],
) -> str:
    """Return the plot with its axes."""
    grid = [
        f'<line class="grid" x1="{_LEFT}" x2="{_W - _RIGHT}" y1="{y(v):.1f}" y2="{y(v):.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v:g}</text>'
        for v in nice(0.0, most)
    ]
    below = [
        f'<text x="{x(v):.1f}" y="{_H - _BOTTOM + 15}" text-anchor="middle">{escape(text)}</text>'
        for v, text in x_ticks
    ]
    name = f'<text class="name" x="{_W - _RIGHT}" y="{_H - 3}" text-anchor="end">{escape(x_label)}</text>'
    return (
        f'<svg viewBox="0 0 {_W} {_H}" role="img" aria-label="{escape(title)}">'
        f"{''.join(grid)}{''.join(shapes)}{''.join(below)}{name}</svg>"
    )
