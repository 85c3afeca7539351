"""The map of a session: one cell for each micrograph, coloured by its picks, a strip for each directory."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from drpwatch.session.series import Group

COLUMNS = 100
"""Cells in a row; longer strips go on in the next."""

FAILED_RGB = (214, 39, 110)
NONE_RGB = (150, 150, 150)
# Few to many: dark blue to yellow, in order also in grey and to the colour-blind.
SCALE_RGB = ((34, 62, 140), (64, 92, 140), (112, 120, 122), (176, 162, 104), (252, 226, 76))

_BACK = (0, 0, 0, 0)


def strip(group: Group, most: int) -> tuple[bytes, int, int]:
    """Return the cells of one directory as a PNG, a pixel each, in the order of writing; its columns and rows."""
    columns = min(COLUMNS, len(group.n_picks))
    rows = -(-len(group.n_picks) // columns)
    cells = np.zeros((rows * columns, 4), np.uint8)
    cells[:] = _BACK
    n_picks = np.array(group.n_picks)
    cells[: len(n_picks), :3] = colours(n_picks, most)
    cells[: len(n_picks), 3] = 255
    file = io.BytesIO()
    Image.fromarray(cells.reshape(rows, columns, 4)).save(file, "PNG")
    return file.getvalue(), columns, rows


def colours(n_picks: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.uint8]:
    """Return (n, 3) colours of (n,) picks, -1 for a failure; `most` and more have the last colour."""
    share = np.clip(n_picks / max(most, 1), 0.0, 1.0)
    at = np.linspace(0, 1, len(SCALE_RGB))
    rgb = np.column_stack([np.interp(share, at, channel) for channel in zip(*SCALE_RGB, strict=True)])
    rgb[n_picks == 0] = NONE_RGB
    rgb[n_picks < 0] = FAILED_RGB
    return rgb.round().astype(np.uint8)
