"""The report as HTML: one file that needs nothing else, for screens of both kinds and for paper.

No script, no address outside of the file: its own policy forbids both.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

import numpy as np

from drpwatch import __version__
from drpwatch.report import handover, html, plots, wall
from drpwatch.report.facts import Facts
from drpwatch.report.gallery import Choice, Exhibit
from drpwatch.report.handover import Handover
from drpwatch.session.records import MicrographState
from drpwatch.session.statistics import Show

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_HOUR_S = 3600.0


def render(facts: Facts, choices: tuple[Choice, ...], shown: Mapping[int, Exhibit]) -> bytes:
    """Return the whole file."""
    style = (resources.files("drpwatch.report") / "style.css").read_text(encoding="utf-8")
    parts = (
        _head(facts),
        _parameters(facts),
        plots.over_time(facts),
        plots.histograms(facts),
        plots.directories(facts),
        wall.gallery(choices, shown),
        _failures(facts),
        _handover(facts),
        _life(facts),
    )
    page = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{facts.session.spec.name}: drpwatch report</title><style>{style}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )
    return page.encode("utf-8", "backslashreplace")


def _head(facts: Facts) -> str:
    session, counts = facts.session, facts.counts
    recorded = counts[Show.ALL]
    left = sum(facts.unfinished.values())
    span = facts.span
    period = f"{html.clock(span[0])} to {html.clock(span[1])}" if span else "nothing was recorded yet"
    hours = (span[1] - span[0]) / _HOUR_S if span else 0.0
    rate = recorded / hours if hours > 0 else 0.0
    busiest = float(np.nanmax(facts.series.per_hour, initial=0.0)) if facts.series is not None else 0.0
    median = facts.median_picks
    latency = facts.latency_s
    tiles = [
        ("Micrographs picked", html.number(counts[Show.PICKED] + counts[Show.EMPTY]), _empty(facts)),
        ("Particles", html.number(int(facts.n_picks.sum())), "rows in particles.star"),
        ("Picks per micrograph", "-" if median is None else html.number(median), "median"),
        (
            "Micrographs per hour",
            html.number(round(rate)) if rate else "-",
            f"{html.number(round(busiest))} at the busiest" if busiest > rate else "",
        ),
        (
            "From whole to recorded",
            f"{html.number(float(np.median(latency)))} s" if len(latency) else "-",
            f"median; 95 % within {html.number(float(np.percentile(latency, 95)))} s" if len(latency) else "",
        ),
        ("Failed", html.number(counts[Show.FAILED]), "see below" if counts[Show.FAILED] else ""),
    ]
    if left:
        waiting, ready = facts.unfinished[MicrographState.WAITING], facts.unfinished[MicrographState.READY]
        tiles.append(("To be done", html.number(left), f"{waiting} not whole, {ready} to be picked"))
    return (
        f"<header><h1>{html.text(session.spec.name)}</h1><p class=dim>{session.state}; {period};"
        f" report of {html.clock(facts.made_at)}, by drpwatch {__version__}</p>"
        f"<p>Micrographs of {html.code(session.spec.watch_root)}, files {html.code(session.spec.glob)};"
        f" picks in {html.code(session.spec.out_dir)}</p>{html.figures(tiles)}</header>"
    )


def _empty(facts: Facts) -> str:
    empty = facts.counts[Show.EMPTY]
    return f"{html.number(empty)} of them without a pick" if empty else "all of them with picks"


def _parameters(facts: Facts) -> str:
    rows = []
    for one in facts.versions:
        params = one.params
        threshold = one.threshold_for(one)
        picked = [used for used in facts.picked_with if used.params_id == one.id]
        rows.append(
            (
                f"{one.version}{' (in force)' if one.id == facts.session.params_id else ''}",
                html.clock(one.created_at),
                f"{params.diameter_angstrom:g} Å",
                "from headers" if params.pixel_size_angstrom is None else f"{params.pixel_size_angstrom:g} Å",
                "bright particles" if params.negative_stain else "dark particles",
                "-" if threshold is None else f"{threshold:g}",
                html.text(params.model),
                html.number(sum(used.micrographs for used in picked)),
            )
        )
    versions = html.table(
        (
            "Version",
            "Since",
            "Diameter",
            "Pixel size",
            "Contrast",
            "Threshold",
            "Model",
            "Micrographs",
        ),
        rows,
        numbers=("Micrographs",),
    )
    version_of = {one.id: one for one in facts.versions}
    used = html.table(
        ("Version", "Threshold", "Model", "SHA-256 of the weights", "drpwatch", "Micrographs", "Picks"),
        [
            (
                str(version_of[one.params_id].version),
                f"{one.threshold:g}",
                html.text(version_of[one.params_id].params.model),
                html.code(one.weights_sha256),
                html.text(one.code_version or "unknown"),
                html.number(one.micrographs),
                html.number(one.picks),
            )
            for one in facts.picked_with
        ],
        numbers=("Micrographs", "Picks"),
    )
    size = facts.session.pixel_size_angstrom
    found = "" if size is None else f"<p>Pixel size in the outputs: {size:.5g} Å.</p>"
    stages = ", ".join(f"{html.text(stage)} {html.number(s)} s" for stage, s in facts.stage_s.items())
    spent = f"<p>Mean time of a micrograph: {stages}.</p>" if stages else ""
    return html.section(
        "What was picked with what",
        "<h3>Parameters</h3>",
        versions,
        "<h3>What the micrographs were picked with</h3>",
        used,
        found,
        spent,
    )


def _failures(facts: Facts) -> str:
    total = facts.counts[Show.FAILED]
    if not total:
        return html.section("Failures", "<p>No micrograph failed.</p>")
    by_reason = html.table(
        ("Reason", "Micrographs"),
        [(html.text(reason), html.number(count)) for reason, count in facts.reasons],
        numbers=("Micrographs",),
    )
    listed = html.table(
        ("Micrograph", "When", "Reason"),
        [
            (html.text(one.name), html.clock(one.recorded_at), html.text(one.reason or ""))
            for one in facts.failures
        ],
    )
    more = total - len(facts.failures)
    rest = f"<p class=dim>and {html.number(more)} more, before these</p>" if more > 0 else ""
    return html.section("Failures", by_reason, "<h3>The last ones</h3>", listed, rest, long=True)


def _handover(facts: Facts) -> str:
    spec = facts.session.spec
    of = Handover(
        out_dir=str(spec.out_dir),
        watch_root=str(spec.watch_root),
        micrograph_prefix=spec.micrograph_prefix,
        diameter_angstrom=spec.params.diameter_angstrom,
        pixel_size_angstrom=facts.session.pixel_size_angstrom,
        negative_stain=spec.params.negative_stain,
    )
    parts = ["<p>Put your own micrographs STAR and job numbers.</p>"]
    for step in handover.steps(of):
        parts.append(f"<h3>{step.program}</h3>")
        parts += [f"<p>{html.text(' '.join(step.where.split()))}</p>"] if step.where else []
        parts += [f"<pre>{html.code(step.command)}</pre>"] if step.command is not None else []
    parts.append(f"<p>{html.text(' '.join(handover.names_note(of).split()))}</p>")
    return html.section("To extract the particles", *parts)


def _life(facts: Facts) -> str:
    rows = [
        (html.clock(one.at), html.text(one.verb), html.text(one.to_state), html.text(one.reason or ""))
        for one in facts.transitions
    ]
    if not rows:  # of `drpwatch pick`, which has no life
        return ""
    return html.section(
        "Life of the session", html.table(("When", "What", "State", "Reason"), rows), long=True
    )
