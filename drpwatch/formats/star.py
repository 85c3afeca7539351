"""STAR files as RELION 3.1, 4 and 5 read them: whole files, and rows to append.

Owns: the text of every STAR file that drpwatch leaves, and the only flip from `yx` inside to `x y` in
files. Does not own: where the files lie and when they are written (`session.outputs`), nor reading
(`star_reader`, whose names are passed on here).

RELION's reader ends a loop at the first empty line and takes no comment inside one, so every header
here ends with its last label and every row with a newline: rows can be appended for ever. What is appended
becomes visible page by page, so rows are laid out `in_pages`. Coordinates carry three decimals; RELION's
extraction cuts them off, other programs use them.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drpwatch.errors import StarError
from drpwatch.formats.star_reader import Block, read

__all__ = [
    "Block",
    "Optics",
    "autopick_header",
    "autopick_row",
    "coords_suffix",
    "in_pages",
    "micrograph_picks",
    "micrographs",
    "particles_header",
    "particles_rows",
    "quote",
    "read",
    "rows_xy",
]

PAGE_BYTES = 4096
"""A file grows for its readers in steps that end at multiples of it, whatever one write holds."""

_VERSION = "# version 30001"  # written by RELION 3.1 and 4; 5 reads it

_PARTICLE_LABELS = (
    "rlnCoordinateX",
    "rlnCoordinateY",
    "rlnAutopickFigureOfMerit",
    "rlnMicrographName",
    "rlnOpticsGroup",
    "rlnOriginXAngst",
    "rlnOriginYAngst",
)
_OPTICS_LABELS = (
    "rlnOpticsGroupName",
    "rlnOpticsGroup",
    "rlnMicrographOriginalPixelSize",
    "rlnMicrographPixelSize",
    "rlnVoltage",
    "rlnSphericalAberration",
    "rlnAmplitudeContrast",
)
_PICK_LABELS = (
    "rlnCoordinateX",
    "rlnCoordinateY",
    "rlnClassNumber",
    "rlnAutopickFigureOfMerit",
    "rlnAnglePsi",
)
_MICROGRAPH_LABELS = ("rlnMicrographName", "rlnOpticsGroup")
_AUTOPICK_LABELS = ("rlnMicrographName", "rlnMicrographCoordinates")

_KEYWORD = re.compile(r"(?i)(data_|save_|loop_$|stop_$|global_$)")


@dataclass(frozen=True, slots=True)
class Optics:
    """What `data_optics` says of the microscope; the pixel size is that of the micrographs.

    Raises
    ------
    StarError
        A value is not a positive number, or the group's name is not one that RELION takes.
    """

    pixel_size_angstrom: float
    voltage_kv: float = 300.0
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.1
    group_name: str = "opticsGroup1"

    def __post_init__(self) -> None:
        for name in ("pixel_size_angstrom", "voltage_kv", "spherical_aberration_mm", "amplitude_contrast"):
            value = getattr(self, name)
            lowest_ok = value > 0 if name in ("pixel_size_angstrom", "voltage_kv") else value >= 0
            if not (math.isfinite(value) and lowest_ok):
                raise StarError(f"optics: {name} cannot be {value}")
        if not re.fullmatch(r"[A-Za-z0-9-]+", self.group_name):
            raise StarError(f"optics group name {self.group_name!r}: only letters, digits and - are allowed")


def particles_header(optics: Optics) -> bytes:
    """Return the start of a session's particle file: `data_optics`, and `data_particles` without rows."""
    return (_optics_block(optics) + _loop("particles", _PARTICLE_LABELS)).encode()


def micrographs(names: Iterable[str], optics: Optics) -> bytes:
    """Return a whole micrographs STAR, as RELION's extraction takes it, without CTF parameters.

    Raises
    ------
    StarError
        A name cannot be written.
    """
    rows = "".join(f"{quote(name)} 1\n" for name in names)
    return (_optics_block(optics) + _loop("micrographs", _MICROGRAPH_LABELS) + rows).encode()


def particles_rows(
    micrograph_name: str,
    picks_yx: npt.NDArray[np.floating],
    score: npt.NDArray[np.floating],
    optics_group: int = 1,
) -> bytes:
    """Return the rows of one micrograph for a session's particle file.

    Parameters
    ----------
    micrograph_name
        As the micrographs STAR file of RELION has it.
    picks_yx
        (n, 2) full-frame pixels, 0-based.
    score
        (n,) probabilities.
    optics_group
        Number of the row in `data_optics`.

    Raises
    ------
    StarError
        The name cannot be written, or a number is not finite.
    """
    name = quote(micrograph_name)
    rows = [
        f"{x:.3f} {y:.3f} {value:.6f} {name} {optics_group} 0.000000 0.000000\n"
        for x, y, value in rows_xy(picks_yx, score)
    ]
    return "".join(rows).encode()


def micrograph_picks(picks_yx: npt.NDArray[np.floating], score: npt.NDArray[np.floating]) -> bytes:
    """Return the whole `<micrograph>_autopick.star`; without picks it has labels only.

    Parameters
    ----------
    picks_yx
        (n, 2) full-frame pixels, 0-based.
    score
        (n,) probabilities.

    Raises
    ------
    StarError
        A number is not finite.
    """
    rows = [f"{x:.3f} {y:.3f} 0 {value:.6f} 0.000000\n" for x, y, value in rows_xy(picks_yx, score)]
    return (_loop("", _PICK_LABELS) + "".join(rows)).encode()


def autopick_header() -> bytes:
    """Return the start of `autopick.star`, the list that RELION 4 and 5 take as `--coord_list`."""
    return _loop("coordinate_files", _AUTOPICK_LABELS).encode()


def autopick_row(micrograph_name: str, coordinates_name: str) -> bytes:
    """Return the row of one micrograph for `autopick.star`; list only micrographs with picks.

    Raises
    ------
    StarError
        A name cannot be written.
    """
    return f"{quote(micrograph_name)} {quote(coordinates_name)}\n".encode()


def in_pages(rows: bytes, offset_bytes: int) -> bytes:
    """Return rows as they are appended at an offset, none of them across a multiple of `PAGE_BYTES`.

    The kernel lengthens a file page by page while one write goes on, and a disk that becomes full takes
    whole pages. A reader in between must find whole rows, so a row that would cross begins with so many
    blanks that its values lie on the next page. One that is longer than a page stays as it is.
    """
    laid_out = []
    for row in rows.splitlines(keepends=True):
        room_bytes = -offset_bytes % PAGE_BYTES
        if room_bytes < len(row) <= PAGE_BYTES:
            row = b" " * room_bytes + row
        laid_out.append(row)
        offset_bytes += len(row)
    return b"".join(laid_out)


def coords_suffix(micrographs_star: str) -> bytes:
    """Return `coords_suffix_autopick.star`, which RELION 3.1 wants: one line, no table.

    Raises
    ------
    StarError
        The path has a blank or cannot be written.
    """
    quote(micrographs_star)
    if not micrographs_star or " " in micrographs_star:
        raise StarError(
            f"{micrographs_star!r}: RELION 3.1 reads this path up to the first blank; rename the file"
        )
    return f"{micrographs_star}\n".encode()


def quote(value: str) -> str:
    """Return a value as it stands in a row, in quotes where it needs them.

    Raises
    ------
    StarError
        No reader would get the value back: it has a line break or other control character, a tab or
        two blanks in a row (RELION makes one of them), both kinds of quotes, or is no valid text.
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise StarError(f"{value!r} cannot be written to a STAR file: it is not valid UTF-8") from error
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in value):
        raise StarError(
            f"{value!r} cannot be written to a STAR file: it has a control character or line break"
        )
    if "  " in value or value != value.strip() or any(c != " " and c.isspace() for c in value):
        raise StarError(
            f"{value!r} cannot be written to a STAR file: RELION's reader would change its blanks"
        )
    # gemmi takes characters outside ASCII in quotes only.
    plain = (
        value
        and value.isascii()
        and " " not in value
        and value[0] not in "_#$'\"[];"
        and value not in (".", "?")
    )
    if plain and not _KEYWORD.match(value):
        return value
    for mark in "'\"":
        if mark not in value:
            return f"{mark}{value}{mark}"
    raise StarError(f"{value!r} cannot be written to a STAR file: it needs quotes and has both kinds")


def rows_xy(
    picks_yx: npt.NDArray[np.floating], score: npt.NDArray[np.floating]
) -> list[tuple[float, float, float]]:
    """Return x, y and score of each pick: the one place where coordinates are flipped for a file.

    Raises
    ------
    StarError
        A number is not finite.
    """
    table = np.column_stack([np.reshape(picks_yx, (-1, 2)), np.reshape(score, -1)])  # (n, 3) y x score
    if not np.isfinite(table).all():
        raise StarError("a coordinate or score is not finite and cannot be written to a file")
    # Adding zero turns -0.0 into 0.0, so that equal picks are equal bytes.
    return [(x, y, value) for y, x, value in (table + 0.0).tolist()]


def _optics_block(optics: Optics) -> str:
    """Return `data_optics` with its one group, and the empty line after it."""
    pixel_size = f"{optics.pixel_size_angstrom:.6f}"
    row = (
        f"{optics.group_name} 1 {pixel_size} {pixel_size} {optics.voltage_kv:.6f} "
        f"{optics.spherical_aberration_mm:.6f} {optics.amplitude_contrast:.6f}\n"
    )
    return _loop("optics", _OPTICS_LABELS) + row + "\n"


def _loop(name: str, labels: tuple[str, ...]) -> str:
    """Return the header of a loop, up to and with the newline of its last label."""
    lines = "".join(f"_{label} #{number}\n" for number, label in enumerate(labels, start=1))
    return f"\n{_VERSION}\n\ndata_{name}\n\nloop_\n{lines}"
