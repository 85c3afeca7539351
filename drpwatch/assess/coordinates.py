"""Coordinates of many micrographs, read from STAR files, and whose micrographs are the same.

Owns: finding picks or truth on disk, and pairing the names of two programs. Does not own: what is made
of them (`detection`), nor the STAR format (`formats.star`).
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from drpwatch.errors import StarError, UsageError
from drpwatch.formats import star

SUFFIX = "_autopick.star"
_NO_TABLE = "coords_suffix_autopick.star"  # RELION 3.1 wants this name for one line of text
_IMAGE_ENDINGS = (".mrc.gz", ".mrc", ".mrcs", ".tiff", ".tif", ".eer", ".png", ".jpg")
_X, _Y, _SCORE = "rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit"
_NAME, _PIXEL_SIZE = "rlnMicrographName", "rlnMicrographPixelSize"


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Points of one micrograph: (n, 2) full-frame pixels and, for picks, (n,) scores."""

    yx_px: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64] | None = None

    @classmethod
    def none(cls) -> Self:
        """Return no points."""
        return cls(np.empty((0, 2)), np.empty(0))


def read_coordinates(source: Path) -> dict[str, Coordinates]:
    """Read the coordinates of all micrographs that a file or folder names.

    Parameters
    ----------
    source
        A STAR file with rlnMicrographName and coordinates, in any block and any order of columns; one
        `<micrograph>_autopick.star`; or a folder in which, at any depth, such files lie.

    Returns
    -------
    coordinates
        By name of the micrograph without the ending of its file, in the order found.

    Raises
    ------
    UsageError
        There is nothing of the kind.
    StarError
        A file cannot be read, or breaks a rule.
    """
    if source.is_dir():
        files = sorted(path for path in source.rglob(f"*{SUFFIX}") if path.name != _NO_TABLE)
        if not files:
            raise UsageError(f"{source}: no <micrograph>{SUFFIX} in this folder; give it, or a STAR file")
        return {key(_name_of(path.relative_to(source))): _read_one(path) for path in files}
    if not source.exists():
        raise UsageError(f"{source}: no such file or folder")
    for block in star.read(source).values():
        if {_X, _Y} <= set(block.labels):
            if _NAME in block.labels:
                return _by_name(block)
            return {key(_name_of(Path(source.name))): _points(block)}
    raise UsageError(f"{source}: no block has {_X} and {_Y}")


def read_pixel_size_angstrom(source: Path) -> float | None:
    """Return the pixel size that `data_optics` of a STAR file gives, or of a folder's particles.star.

    Raises
    ------
    UsageError
        Its optics groups have different pixel sizes.
    """
    if source.is_dir():
        source = source / "particles.star"
    if not source.is_file():
        return None
    optics = star.read(source).get("optics")
    if optics is None or _PIXEL_SIZE not in optics.labels or not optics.rows:
        return None
    sizes = optics.numbers(_PIXEL_SIZE)
    if not np.allclose(sizes, sizes[0], rtol=1e-4):
        raise UsageError(f"{source}: its optics groups have different pixel sizes; evaluate them one by one")
    return float(sizes[0])


def pair_names(ours: Iterable[str], theirs: Iterable[str]) -> dict[str, str]:
    """Return which name of theirs means the same micrograph as one of ours.

    Names are paired by their whole path first. Then by ever shorter ends of it, down to the file's own
    name, as one program may keep more folders than another; an end pairs two names only where it occurs
    once on either side.
    """
    ours, theirs = list(ours), set(theirs)
    pairs = {name: name for name in ours if name in theirs}
    depth = max((name.count("/") + 1 for name in [*ours, *theirs]), default=0)
    for parts in range(depth, 0, -1):
        once_ours, once_theirs = _unique_ends(ours, parts), _unique_ends(theirs, parts)
        taken = set(pairs.values())
        for end, name in once_ours.items():
            other = once_theirs.get(end)
            if name not in pairs and other is not None and other not in taken:
                pairs[name] = other
    return pairs


def _unique_ends(names: Iterable[str], parts: int) -> dict[str, str]:
    """Return the names by their last parts, where those occur once."""
    ends = {name: "/".join(name.split("/")[-parts:]) for name in names}
    counts = Counter(ends.values())
    return {end: name for name, end in ends.items() if counts[end] == 1}


def key(name: str) -> str:
    """Return a micrograph's name in one spelling, without the ending of an image file.

    All coordinates are kept by such names.
    """
    name = posixpath.normpath(name)
    for ending in _IMAGE_ENDINGS:
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def _name_of(path: Path) -> str:
    """Return the micrograph's name that a file of its picks carries."""
    return path.as_posix().removesuffix(SUFFIX).removesuffix(".star")


def _read_one(path: Path) -> Coordinates:
    """Return what one `<micrograph>_autopick.star` holds; RELION leaves it empty for no picks."""
    blocks = star.read(path)
    for block in blocks.values():
        if {_X, _Y} <= set(block.labels):
            return _points(block)
    if blocks:
        raise StarError(f"{path}: no block has {_X} and {_Y}")
    return Coordinates.none()


def _by_name(block: star.Block) -> dict[str, Coordinates]:
    """Return the rows of a block by micrograph."""
    points = _points(block)
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(block.column(_NAME)):
        rows.setdefault(key(name), []).append(row)
    return {
        name: Coordinates(points.yx_px[chosen], None if points.score is None else points.score[chosen])
        for name, chosen in rows.items()
    }


def _points(block: star.Block) -> Coordinates:
    """Return all rows of a block."""
    return Coordinates(block.picks_yx(), block.numbers(_SCORE) if _SCORE in block.labels else None)
