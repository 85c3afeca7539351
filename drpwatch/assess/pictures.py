"""Pictures for looking at errors: each micrograph with its picks, and cut-outs of what went wrong.

Owns: the pictures. Does not own: which picks are right (`detection`). Row 0 of a file is at the top.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from drpwatch.assess.coordinates import Coordinates
from drpwatch.assess.detection import match
from drpwatch.errors import MicrographError, UsageError
from drpwatch.formats.grey import grey

RIGHT, FALSE, MISSED, UNJUDGED = "#30e060", "#ff3030", "#ffe030", "#40a0ff"
SHEET = "false_and_missed.png"

_LONGEST_PX = 1600  # side of a picture
_LEAST_DIAMETER_PX = 16  # in a picture; a smaller particle is not seen
_TILE_PX, _TILE_DIAMETERS, _CAPTION_PX = 96, 2.0, 12
_SHEET_COLUMNS, _MOST_OF_A_KIND = 12, 72

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """What is to be seen on one micrograph: (n, 2) full-frame pixels of each kind."""

    right_yx: _Floats
    false_yx: _Floats
    false_score: _Floats  # (n,), NaN where picks have no score
    missed_yx: _Floats
    unjudged_yx: _Floats  # picks where nobody knows the truth


@dataclass(frozen=True, slots=True)
class _CutOut:
    """One error that the sheet shows."""

    micrograph: str
    yx_px: tuple[float, float]
    colour: str
    caption: str


def marks(picks: Coordinates, truth: Coordinates | None, radius_px: float) -> Marks:
    """Sort the picks of one micrograph into right and false, and find the particles that were missed."""
    nothing = np.empty((0, 2))
    if truth is None:
        return Marks(nothing, nothing, np.empty(0), nothing, picks.yx_px)
    found = match(picks.yx_px, truth.yx_px, radius_px)
    false = np.setdiff1d(np.arange(len(picks.yx_px)), found.pick)
    missed = np.setdiff1d(np.arange(len(truth.yx_px)), found.truth)
    score = np.full(len(false), np.nan) if picks.score is None else picks.score[false]
    return Marks(picks.yx_px[found.pick], picks.yx_px[false], score, truth.yx_px[missed], nothing)


def write_pictures(
    folder: Path,
    micrographs: Mapping[str, Path],
    judged: Mapping[str, Marks],
    diameter_px: float,
    read: Callable[[Path], npt.NDArray[Any]],
    step: Callable[[str], None] = lambda _: None,
) -> dict[str, str]:
    """Write one PNG for each micrograph, and a sheet of false picks and missed particles.

    Parameters
    ----------
    folder
        Where they go; made if need be, and pictures of the same names are replaced.
    micrographs, judged
        Files and marks, by name of the micrograph.
    diameter_px
        The particle's, in full-frame pixels: that of the circles.
    read
        Gives the (h, w) pixels of a file.
    step
        Called with the name of each picture that is written.

    Returns
    -------
    failures
        Why a micrograph has no picture, by its name.

    Raises
    ------
    UsageError
        The folder cannot be written.
    """
    wanted = _errors_to_show(judged)
    tiles: dict[_CutOut, Image.Image] = {}
    failures = {}
    try:
        for name, path in micrographs.items():
            try:
                pixels = read(path)
            except MicrographError as error:
                failures[name] = str(error)
                continue
            scale = _scale(pixels.shape, diameter_px)
            picture = grey(pixels, diameter_px, scale)
            for one in wanted:
                if one.micrograph == name:
                    tiles[one] = _tile(picture, one, scale, diameter_px)
            target = folder / f"{name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            _draw(picture, judged[name], scale, diameter_px).save(target)
            step(target.name)
        (folder / SHEET).unlink(missing_ok=True)  # an earlier one may be of other picks
        if tiles:
            _sheet([tiles[one] for one in wanted if one in tiles]).save(folder / SHEET)
            step(SHEET)
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise UsageError(f"{error.filename or folder}: cannot be written: {why}") from error
    return failures


def _errors_to_show(judged: Mapping[str, Marks]) -> list[_CutOut]:
    """Return the false picks of the highest scores, then missed particles from all over."""
    false = [
        _CutOut(name, (float(y), float(x)), FALSE, "false" if np.isnan(score) else f"false {score:.2f}")
        for name, one in judged.items()
        for (y, x), score in zip(one.false_yx, one.false_score, strict=True)
    ]
    missed = [
        _CutOut(name, (float(y), float(x)), MISSED, "missed")
        for name, one in judged.items()
        for y, x in one.missed_yx
    ]
    false.sort(key=lambda one: one.caption, reverse=True)  # stable: the scores are written alike
    every = max(1, -(-len(missed) // _MOST_OF_A_KIND))
    return [*false[:_MOST_OF_A_KIND], *missed[::every]]


def _scale(shape: tuple[int, ...], diameter_px: float) -> float:
    """Return how much smaller the picture of a micrograph is."""
    return min(1.0, max(_LONGEST_PX / max(shape), _LEAST_DIAMETER_PX / diameter_px))


def _draw(micrograph: Image.Image, one: Marks, scale: float, diameter_px: float) -> Image.Image:
    """Return the picture with a circle of the particle's diameter for each mark."""
    picture = micrograph.convert("RGB")
    draw = ImageDraw.Draw(picture)
    radius = 0.5 * diameter_px * scale
    for yx_px, colour in (
        (one.unjudged_yx, UNJUDGED),
        (one.missed_yx, MISSED),
        (one.right_yx, RIGHT),
        (one.false_yx, FALSE),
    ):
        for y, x in (yx_px + 0.5) * scale:
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], outline=colour, width=2)
    return picture


def _tile(micrograph: Image.Image, one: _CutOut, scale: float, diameter_px: float) -> Image.Image:
    """Return one cut-out, two diameters wide, in a frame with a caption."""
    half = 0.5 * _TILE_DIAMETERS * diameter_px * scale
    y, x = ((value + 0.5) * scale for value in one.yx_px)
    box = (round(x - half), round(y - half), round(x + half) + 1, round(y + half) + 1)
    inner = _TILE_PX - 4
    cut = micrograph.crop(box).resize((inner, inner), Image.Resampling.BICUBIC)
    tile = Image.new("RGB", (_TILE_PX, _TILE_PX + _CAPTION_PX), one.colour)
    tile.paste(cut, (2, 2))
    ImageDraw.Draw(tile).text((3, _TILE_PX - 1), one.caption, fill="black", font_size=_CAPTION_PX - 1)
    return tile


def _sheet(tiles: Sequence[Image.Image]) -> Image.Image:
    """Return all tiles in rows."""
    columns = min(_SHEET_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    w, h = _TILE_PX + 4, _TILE_PX + _CAPTION_PX + 4
    sheet = Image.new("RGB", (columns * w, rows * h), "#202020")
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number % columns * w + 2, number // columns * h + 2))
    return sheet
