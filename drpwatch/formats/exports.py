"""Picks in the formats of other programs: EMAN box, crYOLO CBOX, Topaz text, CSV.

Owns: the text of these files. Does not own: which picks go in, nor where the files lie.

EMAN and Topaz hold whole pixels, so that centres are rounded to the nearest; CBOX and CSV keep the
fraction. No format is flipped: row 0 of the file is y = 0 in all of them, as for MRC files EMAN and
crYOLO have it.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from drpwatch.errors import UsageError
from drpwatch.formats.star import rows_xy

_CBOX_LABELS = (
    "CoordinateX",
    "CoordinateY",
    "CoordinateZ",
    "Width",
    "Height",
    "Depth",
    "EstWidth",
    "EstHeight",
    "Confidence",
    "NumBoxes",
    "Angle",
)
_CSV_COLUMNS = ("micrograph", "x_px", "y_px", "score")
_TOPAZ_COLUMNS = ("image_name", "x_coord", "y_coord", "score")

_Floats = npt.NDArray[np.floating]


def box(picks_yx: _Floats, box_size_px: int) -> bytes:
    """Return an EMAN `.box` file of one micrograph.

    Parameters
    ----------
    picks_yx
        (n, 2) full-frame pixels of the centres, 0-based.
    box_size_px
        Side of the boxes; a line is the corner near row and column 0, then the side twice.

    Raises
    ------
    UsageError
        The box has no size.
    StarError
        A coordinate is not finite.
    """
    _check_box(box_size_px)
    half = box_size_px // 2  # readers add the same half to find the centre
    return "".join(
        f"{round(x) - half}\t{round(y) - half}\t{box_size_px}\t{box_size_px}\n"
        for x, y, _ in rows_xy(picks_yx, np.zeros(len(picks_yx)))
    ).encode()


def cbox(picks_yx: _Floats, score: _Floats, box_size_px: int, diameter_px: float) -> bytes:
    """Return a crYOLO `.cbox` file of one micrograph.

    crYOLO keeps boxes below its threshold in these files, to be able to move it: give all candidates.

    Parameters
    ----------
    picks_yx
        (n, 2) full-frame pixels of the centres, 0-based.
    score
        (n,) probabilities.
    box_size_px
        Side of the boxes.
    diameter_px
        Particle diameter, which stands as the estimated size of each.

    Raises
    ------
    UsageError
        The box has no size.
    StarError
        A number is not finite.
    """
    _check_box(box_size_px)
    labels = "".join(f"_{label} #{number}\n" for number, label in enumerate(_CBOX_LABELS, start=1))
    size, half, estimate = f"{box_size_px:.1f}", box_size_px / 2, f"{diameter_px:.1f}"
    rows = "".join(
        f"{x - half:.3f} {y - half:.3f} <NA> {size} {size} <NA> {estimate} {estimate} {value:.6f} <NA> <NA>\n"
        for x, y, value in rows_xy(picks_yx, score)
    )
    return (
        f"data_global\n\n_cbox_format_version 1.0\n\ndata_cryolo\n\nloop_\n{labels}{rows}"
        "\ndata_cryolo_include\n\nloop_\n_slice_index #1\n"
    ).encode()


def topaz_header() -> bytes:
    """Return the first line of a Topaz coordinate file, for any number of micrographs."""
    return ("\t".join(_TOPAZ_COLUMNS) + "\n").encode()


def topaz_rows(micrograph_name: str, picks_yx: _Floats, score: _Floats) -> bytes:
    """Return the lines of one micrograph for a Topaz coordinate file.

    Topaz knows a micrograph by its file name without folders and ending, so two of one name in two
    folders become one. Its own scores are log-likelihood ratios, these are probabilities.

    Parameters
    ----------
    micrograph_name
        With its folders; these are left out.
    picks_yx
        (n, 2) full-frame pixels of the centres, 0-based.
    score
        (n,) probabilities.

    Raises
    ------
    UsageError
        The name has a line break, another control character, or is no valid text.
    StarError
        A number is not finite.
    """
    name = PurePosixPath(micrograph_name.removesuffix(".gz")).stem
    _check_name(name)
    return "".join(
        f"{name}\t{round(x)}\t{round(y)}\t{value:.6f}\n" for x, y, value in rows_xy(picks_yx, score)
    ).encode()


def csv_header() -> bytes:
    """Return the first line of a CSV file of picks."""
    return _csv_lines([_CSV_COLUMNS])


def csv_rows(micrograph_name: str, picks_yx: _Floats, score: _Floats) -> bytes:
    """Return the lines of one micrograph for a CSV file of picks.

    Parameters
    ----------
    micrograph_name
        As it shall stand in the file; anything that needs quotes gets them.
    picks_yx
        (n, 2) full-frame pixels of the centres, 0-based.
    score
        (n,) probabilities.

    Raises
    ------
    UsageError
        The name has a line break, another control character, or is no valid text.
    StarError
        A number is not finite.
    """
    _check_name(micrograph_name)
    return _csv_lines(
        (micrograph_name, f"{x:.3f}", f"{y:.3f}", f"{value:.6f}") for x, y, value in rows_xy(picks_yx, score)
    )


def _csv_lines(rows: Iterable[tuple[str, ...]]) -> bytes:
    """Return rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _check_name(name: str) -> None:
    """Refuse a name that would break a line in two."""
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
        raise UsageError(f"{name!r} has a character that cannot be exported: rename the micrograph")


def _check_box(box_size_px: int) -> None:
    """Refuse a box without a size."""
    if box_size_px < 1:
        raise UsageError(f"a box of {box_size_px} px has no size")
