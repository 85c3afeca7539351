"""Reading outputs back: the picks that STAR files hold, when there is no journal that tells.

A micrograph's own file is taken for its picks, because it is written first and at once; the tables give
names and order, and the picks of those whose own file is missing. What a power cut left half written at
the end of a table is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from drpwatch.errors import StarError
from drpwatch.formats import star
from drpwatch.micrograph import FloatArray
from drpwatch.session.outputs import COORDS_SUFFIX, unwritable
from drpwatch.session.tables import AUTOPICK, PARTICLES, PICKS_ENDING, picks_name

_LABEL_LINE = re.compile(rb"^_\w+ #\d+\n", re.M)
_TORN_PAGES = 64
"""Rows of one micrograph take fewer pages, and no more than these were being written."""


@dataclass(frozen=True, slots=True)
class WrittenPicks:
    """The picks of one micrograph: (n, 2) `yx_px` and (n,) `score`."""

    name: str
    yx_px: FloatArray
    score: FloatArray
    written_ns: int  # when the file that has them was written, by its own clock
    own_file: bool  # it is the micrograph's own


@dataclass(frozen=True, slots=True)
class Salvage:
    """What outputs hold, in the order of their rows."""

    picks: tuple[WrittenPicks, ...]
    pixel_size_angstrom: float | None
    problems: tuple[str, ...]  # a sentence for each file that could not be used


def read_back(directory: Path, prefix: str, micrographs: Iterable[str]) -> Salvage:
    """Read the outputs in a directory.

    Parameters
    ----------
    directory, prefix
        Where they lie, and what was put before each name in them.
    micrographs
        Names of the micrographs that are there now. One without picks is in no table, and its own file does
        not have its name in full: it can be told from these alone.
    """
    return _Reader(directory, prefix).read(micrographs)


class _Reader:
    """One reading; problems are collected on the way."""

    def __init__(self, directory: Path, prefix: str) -> None:
        self._directory = directory
        self._prefix = prefix
        self._problems: list[str] = []

    def read(self, micrographs: Iterable[str]) -> Salvage:
        particles = self._table(PARTICLES)
        listed = self._table(AUTOPICK)
        in_table = self._in_table(particles)
        names = dict.fromkeys([*in_table, *self._rows_by_name(listed.get("coordinate_files"))])
        own_files = self._own_files()
        nameless = own_files.keys() - {picks_name(name) for name in names}
        names.update(dict.fromkeys(self._owners(nameless, micrographs)))
        picks = []
        for name in names:
            path = own_files.get(picks_name(name))
            found = (None if path is None else self._own_picks(name, path)) or in_table.get(name)
            if found is not None:
                picks.append(found)
        return Salvage(tuple(picks), self._pixel_size(particles), tuple(self._problems))

    # ---- tables ---------------------------------------------------------------------------------

    def _table(self, file: str) -> dict[str, star.Block]:
        """Return the blocks of a table; without its end where that is torn, empty where it is of no use."""
        path = self._directory / file
        try:
            content = path.read_bytes()
            try:
                return star.read(content)
            except StarError:
                return _without_last(star.read(_without_torn_end(content)))
        except OSError as error:
            self._problems.append(f"{path}: cannot be read ({(error.strerror or '').lower()})")
        except StarError as error:
            self._problems.append(f"{path}: {error}")
        return {}

    def _rows_by_name(self, block: star.Block | None) -> dict[str, list[int]]:
        """Return the rows of each name without its prefix, as far as it can be a name of ours."""
        rows: dict[str, list[int]] = {}
        for index, full in enumerate(block.column("rlnMicrographName") if block and block.rows else ()):
            rows.setdefault(full, []).append(index)
        found = {}
        for full, indices in rows.items():
            name = full.removeprefix(self._prefix)
            inside = name and not name.startswith("/") and ".." not in PurePosixPath(name).parts
            usable = inside and unwritable(self._directory, self._prefix, name) is None
            if usable and full.startswith(self._prefix):
                found[name] = indices
            else:
                self._problems.append(f"{full}: no name of a micrograph of this session")
        return found

    def _in_table(self, particles: dict[str, star.Block]) -> dict[str, WrittenPicks]:
        """Return what particles.star has of each micrograph."""
        block = particles.get("particles")
        rows = self._rows_by_name(block)
        if block is None or not rows:
            return {}
        written_ns = (self._directory / PARTICLES).stat().st_mtime_ns
        yx_px, score = _picks(block)
        return {
            name: WrittenPicks(name, yx_px[indices], score[indices], written_ns, own_file=False)
            for name, indices in rows.items()
        }

    @staticmethod
    def _pixel_size(particles: dict[str, star.Block]) -> float | None:
        optics = particles.get("optics")
        return float(optics.numbers("rlnMicrographPixelSize")[0]) if optics and optics.rows else None

    # ---- files of one micrograph ----------------------------------------------------------------

    def _own_files(self) -> dict[str, Path]:
        """Return the files of single micrographs, by name below the directory."""
        found = {
            path.relative_to(self._directory).as_posix(): path
            for path in sorted(self._directory.rglob(f"*{PICKS_ENDING}"))
        }
        found.pop(COORDS_SUFFIX, None)
        return found

    def _owners(self, files: Iterable[str], micrographs: Iterable[str]) -> list[str]:
        """Return the micrographs that files belong to which are in no table."""
        owners: dict[str, list[str]] = {}
        for name in micrographs:
            owners.setdefault(picks_name(name), []).append(name)
        found = []
        for file in sorted(files):
            names = owners.get(file, [])
            if len(names) == 1:
                found += names
            else:
                self._problems.append(
                    f"{self._directory / file}: the micrograph that it belongs to is not there"
                )
        return found

    def _own_picks(self, name: str, path: Path) -> WrittenPicks | None:
        try:
            (block,) = star.read(path).values()
            yx_px, score = _picks(block)
            return WrittenPicks(name, yx_px, score, path.stat().st_mtime_ns, own_file=True)
        except (StarError, ValueError, OSError) as error:
            self._problems.append(f"{path}: cannot be used ({error})")
            return None


def _picks(block: star.Block) -> tuple[FloatArray, FloatArray]:
    """Return (n, 2) coordinates and (n,) scores of a block's rows."""
    score = block.numbers("rlnAutopickFigureOfMerit")
    return block.picks_yx().astype(np.float32), score.astype(np.float32)


def _without_torn_end(content: bytes) -> bytes:
    """Return a table up to the last page below which all is whole: no row lies across two pages."""
    labels = [found.end() for found in _LABEL_LINE.finditer(content)]
    head = content[: labels[-1]] if labels else b""
    last_page = (len(content) - 1) // star.PAGE_BYTES
    for page in range(last_page, max(last_page - _TORN_PAGES, -1), -1):
        end = page * star.PAGE_BYTES
        if end < len(head):
            return head
        try:
            star.read(head + content[max(len(head), end - star.PAGE_BYTES) : end])
        except StarError:
            continue
        return content[:end]
    return content


def _without_last(table: dict[str, star.Block]) -> dict[str, star.Block]:
    """Return a table without the rows of its last micrograph, of which some may be missing."""
    name, block = list(table.items())[-1]
    if not block.rows:
        return table
    names = block.column("rlnMicrographName")
    rows = tuple(row for row, of in zip(block.rows, names, strict=True) if of != names[-1])
    return {**table, name: replace(block, rows=rows)}
