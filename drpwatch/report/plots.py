"""The parts of the report that are plots: over time, histograms, and by directory."""

from __future__ import annotations

import numpy as np

from drpwatch.report import html, strips, svg
from drpwatch.report.facts import Facts

_BINS = 40
_MOST_STRIPS = 300
_MANY_STRIPS = 12  # more of them go side by side
_CELL_PX = 9


def over_time(facts: Facts) -> str:
    """Return rates, picks, latency and backlog over time."""
    found = facts.series
    if found is None:
        return ""
    at = found.begins_at + 0.5 * found.step_s
    step = f"intervals of {_length(found.step_s)}"
    band = (found.picks_low, found.picks_high)
    plots = (
        ("Micrographs per hour", found.per_hour, "", None),
        (
            "Picks per micrograph",
            found.picks_median,
            "median, and from the tenth to the ninetieth percentile",
            band,
        ),
        ("Seconds from whole to recorded", found.latency_median_s, "median", None),
        (
            "Backlog: micrographs whole and not recorded",
            found.backlog,
            "at the end of each interval",
            None,
        ),
    )
    return html.section(
        "Over time",
        "<div class=plots>",
        *(
            html.figure(title, svg.lines(at, values, title, step, band), caption)
            for title, values, caption, band in plots
        ),
        "</div>",
    )


def _length(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"


def histograms(facts: Facts) -> str:
    """Return how picks, scores and latencies are spread."""
    plots = []
    if len(facts.n_picks):
        high = max(int(facts.n_picks.max()), 1) + 1
        width = -(-high // _BINS)
        bins = -(-high // width)
        counts, _ = np.histogram(facts.n_picks, bins=bins, range=(0, bins * width))
        drawn = svg.bars(counts, 0, bins * width, "picks", "Picks per micrograph")
        plots.append(html.figure("Picks per micrograph", drawn, "micrographs"))
        at_or_above = facts.picks_at_thresholds
        scores = -np.diff(at_or_above)
        scores[-1] += at_or_above[-1]
        drawn = svg.bars(scores, 0.0, 1.0, "score", "Scores of the candidates")
        caption = (
            "candidates, those below the threshold included; a score is the probability of being a particle"
        )
        plots.append(html.figure("Scores of the candidates", drawn, caption))
    latency = facts.latency_s
    if len(latency):
        high_s = max(float(np.percentile(latency, 99)), 1e-3)
        counts, _ = np.histogram(latency, bins=_BINS, range=(0, high_s))
        over = int((latency > high_s).sum())
        drawn = svg.bars(counts, 0.0, high_s, "seconds", "Seconds from whole to recorded")
        more = (
            f"; {html.number(over)} took longer, {html.number(float(latency.max()))} s at most"
            if over
            else ""
        )
        plots.append(html.figure("Seconds from whole to recorded", drawn, f"micrographs{more}"))
    if not plots:
        return ""
    return html.section("Histograms", "<div class=plots>", *plots, "</div>")


def directories(facts: Facts) -> str:
    """Return the picks of each micrograph, a strip for each directory."""
    if not facts.groups:
        return ""
    most = max(int(np.percentile(facts.n_picks, 95)), 1) if len(facts.n_picks) else 1
    rows = []
    for group in facts.groups[:_MOST_STRIPS]:
        png, columns, lines = strips.strip(group, most)
        rows.append(
            f"<div class=name>{html.text(group.name or 'the directory itself')}"
            f" <span class=dim>{html.number(len(group.n_picks))}</span></div>"
            f'<div><img alt="picks of each micrograph" width="{columns * _CELL_PX}"'
            f' height="{lines * _CELL_PX}" src="{html.data_uri("image/png", png)}"></div>'
        )
    more = len(facts.groups) - _MOST_STRIPS
    rest = f"<p class=dim>and {html.number(more)} directories more</p>" if more > 0 else ""
    ramp = ", ".join(f"rgb{rgb}" for rgb in strips.SCALE_RGB)
    legend = (
        "<p class=dim>A cell is a micrograph, in the order of writing, a strip is a directory."
        f'<span class="key ramp" style="background: linear-gradient(90deg, {ramp})"></span>1 to {most} or more picks'
        f'<span class=key style="background: rgb{strips.NONE_RGB}"></span>none'
        f'<span class=key style="background: rgb{strips.FAILED_RGB}"></span>failed</p>'
    )
    many = " many" if len(rows) > _MANY_STRIPS else ""
    return html.section(
        "Picks by directory", legend, f'<div class="strips{many}">', *rows, "</div>", rest, long=True
    )
