"""The two tables that grow with a session: their text, and whether a file is the one that the journal means.

    particles.star      data_optics and data_particles; from the first known pixel size on
    autopick.star       RELION 4 and 5: `--coord_list`; only micrographs with picks

Owns which rows a micrograph adds to each, and where. Does not own: when they are written (`session.outputs`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from drpwatch.formats import star
from drpwatch.session import disk
from drpwatch.session.journal import Journal
from drpwatch.session.records import OutputLength, PublishedPicks, SessionRecord

PARTICLES = "particles.star"
AUTOPICK = "autopick.star"
PICKS_ENDING = "_autopick.star"


def picks_name(name: str) -> str:
    """Return where the picks of a micrograph lie below the output directory."""
    path = PurePosixPath(name)
    return str(path.with_name(path.stem + PICKS_ENDING))


class Tables:
    """The text of one session's tables, as the journal has it now."""

    def __init__(self, session: SessionRecord, journal: Journal) -> None:
        self._session_id = session.id
        self._session = session.spec.name
        self._prefix = session.spec.micrograph_prefix
        self._directory = session.spec.out_dir
        self._journal = journal
        self._seen: dict[str, disk.Identity] = {}  # the files that were found to be ours

    def headers(self) -> dict[str, bytes]:
        """Return the start of each table that there should be."""
        headers = {AUTOPICK: star.autopick_header()}
        pixel_size = self._journal.session(self._session).pixel_size_angstrom
        if pixel_size is not None:
            headers[PARTICLES] = star.particles_header(star.Optics(pixel_size_angstrom=pixel_size))
        return headers

    def whole(self, table: str, header: bytes) -> Iterator[bytes]:
        """Yield all of a table, a part for each micrograph; the file that has it will be another one."""
        self._seen.pop(table, None)
        yield header
        length_bytes = len(header)
        for rows in self._journal.published(self._session_id):
            laid_out = star.in_pages(self._rows(rows)[table], length_bytes)
            length_bytes += len(laid_out)
            yield laid_out

    def appended(self, rows: PublishedPicks, lengths: dict[str, OutputLength]) -> dict[str, bytes]:
        """Return what one micrograph adds at the end of each table."""
        return {
            table: star.in_pages(text, lengths[table].length_bytes)
            for table, text in self._rows(rows).items()
        }

    def _rows(self, rows: PublishedPicks) -> dict[str, bytes]:
        """Return the rows of one micrograph in each table."""
        name = self._prefix + rows.name
        listed = b""
        if len(rows.score):
            listed = star.autopick_row(name, str(self._directory / picks_name(rows.name)))
        return {PARTICLES: star.particles_rows(name, rows.yx_px, rows.score), AUTOPICK: listed}

    def is_ours(self, table: str, length_bytes: int) -> bool:
        """Tell whether a file, that is long enough, is the one of which the journal knows the length.

        Another one may lie there: an older one, when a disk was away for a while and is back, or one from a
        backup. Cut to that length it would end in the middle of a row. The rows before it tell.
        """
        path = self._directory / table
        identity = disk.identity(path)
        if self._seen.get(table) == identity:
            return True
        ours = self._ends_as_journalled(path, table, length_bytes)
        if ours and identity is not None:
            self._seen[table] = identity
        return ours

    def _ends_as_journalled(self, path: Path, table: str, length_bytes: int) -> bool:
        """Tell whether the last rows up to a length are those of the micrograph that was recorded last."""
        last = self._journal.last_with_rows(self._session_id)
        if last is None:
            header = self.headers().get(table, b"")
            return disk.read(path, 0, length_bytes + 1) == header
        wanted = self._rows(last)[table].splitlines()
        room_bytes = 2 * sum(map(len, wanted)) + star.PAGE_BYTES  # for the blanks between pages
        start = max(0, length_bytes - room_bytes)
        found = disk.read(path, start, length_bytes - start)
        return (
            found.endswith(b"\n")
            and [line.lstrip(b" ") for line in found.splitlines()[-len(wanted) :]] == wanted
        )
