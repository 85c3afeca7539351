"""A model card: what a weights file is and how far its scores can be trusted, in Markdown and one picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from drpwatch.errors import OutputError

if TYPE_CHECKING:
    from drpwatch.train.calibrate import Reliability

CARD, PICTURE = "README.md", "reliability.svg"

_SIDE = 260  # of the plot, in pixels
_MARGIN = 50


def reliability_rows(reliability: Reliability) -> list[tuple[str, str, str]]:
    """Return score, share of particles and number of candidates of each bin, as text."""
    return [
        (f"{predicted:.2f}", f"{observed:.2f}", str(count))
        for predicted, observed, count in zip(
            reliability.predicted, reliability.observed, reliability.count, strict=True
        )
    ]


def write_card(folder: Path, described: dict[str, Any], reliability: Reliability | None) -> list[Path]:
    """Write the card, and the picture where the weights tell their reliability.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    files = {CARD: card(described, reliability)}
    if reliability is not None:
        files[PICTURE] = reliability_svg(reliability)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {(error.strerror or '').lower()}") from error
    return [folder / name for name in files]


def card(described: dict[str, Any], reliability: Reliability | None) -> str:
    """Return the card as Markdown.

    Parameters
    ----------
    described
        What `drpwatch model info --json` prints.
    """
    provenance = {k: v for k, v in described["provenance"].items() if k != "reliability"}
    classifier = described["classifier"]
    lines = [
        f"# {described['name']}",
        "",
        f"- detector: {described['detector']}, {described['detector_parameters']} weights",
        f"- classifier: {classifier}, {described['classifier_parameters']} weights"
        if classifier
        else "- no classifier",
        f"- a particle is {described['preprocessing']['working_diameter_px']:g} px across in their input",
        f"- default threshold: {described['threshold']:.3f}",
        f"- licence: {described['licence']}",
        f"- sha256: {described['sha256']}",
        "",
        "## Made from",
        "",
        *(f"- {key.replace('_', ' ')}: {_text(value)}" for key, value in provenance.items()),
        "",
        "## Are scores probabilities?",
        "",
    ]
    if reliability is None:
        lines.append("The weights do not tell.")
    else:
        lines += [
            f"On simulated scenes that trained nothing; expected calibration error {reliability.error:.3f}.",
            "",
            f"![share of particles against score]({PICTURE})",
            "",
            "| score | are particles | candidates |",
            "|---|---|---|",
            *(f"| {' | '.join(row)} |" for row in reliability_rows(reliability)),
        ]
    return "\n".join(lines) + "\n"


def reliability_svg(reliability: Reliability) -> str:
    """Draw the share of particles against the score, and how many candidates each bin has."""
    most = max(reliability.count, default=1)
    bars, points = [], []
    for predicted, observed, count in zip(
        reliability.predicted, reliability.observed, reliability.count, strict=True
    ):
        x, y, height = _SIDE * predicted, _SIDE * (1 - observed), 0.3 * _SIDE * count / most
        bars.append(f'<rect x="{x - 8:.1f}" y="{_SIDE - height:.1f}" width="16" height="{height:.1f}"/>')
        points.append(f"{x:.1f},{y:.1f}")
    dots = "".join(f'<circle cx="{p.split(",")[0]}" cy="{p.split(",")[1]}" r="3"/>' for p in points)
    ticks = "".join(
        f'<text x="{_SIDE * v:g}" y="{_SIDE + 16}" text-anchor="middle">{v:g}</text>'
        f'<text x="-6" y="{_SIDE * (1 - v) + 4:g}" text-anchor="end">{v:g}</text>'
        for v in (0, 0.5, 1)
    )
    size = _SIDE + 2 * _MARGIN
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" font-family="sans-serif" font-size="12">
<rect width="{size}" height="{size}" fill="white"/>
<g transform="translate({_MARGIN} {_MARGIN // 2})">
<g fill="#cfd8e3">{"".join(bars)}</g>
<rect width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#555"/>
<line x1="0" y1="{_SIDE}" x2="{_SIDE}" y2="0" stroke="#999" stroke-dasharray="4 4"/>
<polyline points="{" ".join(points)}" fill="none" stroke="#1f5fa8" stroke-width="2"/>
<g fill="#1f5fa8">{dots}</g>
{ticks}
<text x="{_SIDE / 2:g}" y="{_SIDE + 36}" text-anchor="middle">score</text>
<text transform="translate(-32 {_SIDE / 2:g}) rotate(-90)" text-anchor="middle">share that are particles</text>
</g>
</svg>
"""


def _text(value: Any) -> str:
    """Return one line of Markdown for a JSON value."""
    if isinstance(value, dict):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return str(value)
