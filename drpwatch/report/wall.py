"""The part of the report that is pictures: micrographs with their picks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from drpwatch.report import html
from drpwatch.report.gallery import Choice, Exhibit
from drpwatch.session.statistics import Candidates

# Of scores in quarters: red is doubtful, blue is sure, also to the colour-blind.
_COLOURS = ("#ff583c", "#ffb43c", "#9ee08a", "#32cdff")
_LINES = 350  # so many lines side by side are a picture wide


def gallery(choices: tuple[Choice, ...], shown: Mapping[int, Exhibit]) -> str:
    """Return pictures of micrographs with their picks."""
    if not choices:
        return ""
    ramp = "".join(
        f'<span class=key style="background: {colour}"></span>{n / len(_COLOURS):g} to {(n + 1) / len(_COLOURS):g}'
        for n, colour in enumerate(_COLOURS)
    )
    parts = [f"<p class=dim>Circles have the particle's diameter, and a colour by score:{ramp}</p>"]
    for choice in choices:
        parts.append(f"<h3>{choice.title}</h3><div class=gallery>")
        parts += [_exhibit(shown[one]) for one in choice.ids]
        parts.append("</div>")
    return html.section("Micrographs", *parts, long=True)


def _exhibit(one: Exhibit) -> str:
    recorded, n = one.recorded, one.recorded.n_picks or 0
    caption = f"<figcaption>{html.text(recorded.name)}: {html.count(n, 'pick')}</figcaption>"
    if one.jpeg is None or recorded.shape_yx is None:
        return f"<figure><div class=none>{html.text(one.missing or 'no picture')}</div>{caption}</figure>"
    h, w = recorded.shape_yx
    rings = _rings(one.picks, 0.5 * recorded.diameter_px) if recorded.diameter_px else ""
    picture = html.data_uri("image/jpeg", one.jpeg)
    return (
        f'<figure><svg viewBox="0 0 {w} {h}" role="img" aria-label="micrograph with its picks">'
        f'<image width="{w}" height="{h}" preserveAspectRatio="none" href="{picture}"/>'
        f'<g fill="none" stroke-width="{max(w, h) / _LINES:.1f}">{rings}</g></svg>{caption}</figure>'
    )


def _rings(picks: Candidates, radius_px: float) -> str:
    """Return a circle around each of (n, 3) picks, one path for each colour."""
    r, place = round(radius_px), np.clip(picks[:, 2] * len(_COLOURS), 0, len(_COLOURS) - 1).astype(int)
    half = f"a{r} {r} 0 1 0"
    paths = []
    for number, colour in enumerate(_COLOURS):
        # Pixel centres are at integers, the picture begins half a pixel before the first.
        circles = "".join(
            f"M{x + 0.5 - r:.0f} {y + 0.5:.0f}{half} {2 * r} 0{half}-{2 * r} 0"
            for y, x in picks[place == number, :2].tolist()
        )
        if circles:
            paths.append(f'<path d="{circles}" stroke="{colour}"/>')
    return "".join(paths)
