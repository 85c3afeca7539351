"""The output files of one session, kept in step with the journal.

Owns which files there are, and the order of writes that makes every row appear exactly once whatever
happens in between:

- The per-micrograph file comes first, in place at once. Then the rows go to the ends of the session's
  files, one write and one fsync each. Then one transaction records the outcome together with the new
  lengths. What lies beyond the recorded length was never recorded and is cut.
- Rows that change (a rewritten micrograph) need whole files: the new ones are written beside, one
  transaction records the outcome and calls the files dirty, they are put in place, one transaction
  calls them clean. Dirty files are rebuilt from the journal.

    particles.star                  data_optics and data_particles; from the first known pixel size on
    autopick.star                   RELION 4 and 5: `--coord_list`; only micrographs with picks
    coords_suffix_autopick.star     RELION 3.1; left out where the path has a blank, which 3.1 cannot read
    <sub-directories>/<micrograph>_autopick.star    one per micrograph, without picks labels only
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np

from drpwatch.errors import OutputError, StarError
from drpwatch.formats import star
from drpwatch.micrograph import Outcome
from drpwatch.session import disk
from drpwatch.session.journal import Journal
from drpwatch.session.records import OutputLength, PublishedPicks, SessionRecord

PARTICLES = "particles.star"
AUTOPICK = "autopick.star"
COORDS_SUFFIX = "coords_suffix_autopick.star"
_PICKS_ENDING = "_autopick.star"
_LONGEST_NAME_BYTES = 255 - len("..tmp")  # a file name, and that of its next version beside it


def picks_name(name: str) -> str:
    """Return where the picks of a micrograph lie below the output directory."""
    path = PurePosixPath(name)
    return str(path.with_name(path.stem + _PICKS_ENDING))


def unwritable(prefix: str, name: str) -> str | None:
    """Return why a micrograph of this name can have no rows, None if it can."""
    try:
        star.quote(prefix + name)
        star.quote(picks_name(name))
    except StarError as error:
        return f"{error}; rename the file"
    base = PurePosixPath(picks_name(name)).name
    if len(base.encode()) > _LONGEST_NAME_BYTES:
        return f"the name is too long: its picks file {base} would not fit; rename the file"
    if picks_name(name) == COORDS_SUFFIX:
        return f"its picks file would be {COORDS_SUFFIX}, which has another meaning; rename the file"
    return None


class SessionOutputs:
    """Writes the files of one session; used by one thread.

    Every method raises `OutputError` where the disk does not take it now. Then nothing was recorded,
    and the same call can be made again.
    """

    def __init__(self, session: SessionRecord, journal: Journal) -> None:
        self._session_id = session.id
        self.session = session.spec.name
        self._prefix = session.spec.micrograph_prefix
        self.directory = session.spec.out_dir
        self._journal = journal
        self._suspects: set[str] | None = None
        """Names whose picks file may lie there without being recorded; None for any."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The session's files that there are by now."""
        names = (PARTICLES, AUTOPICK, COORDS_SUFFIX)
        return tuple(self.directory / name for name in names if (self.directory / name).exists())

    @property
    def free_bytes(self) -> int:
        """Room on the file system of the outputs."""
        with self._explained():
            return disk.free_bytes(self.directory)

    def recover(self) -> None:
        """Make the files what the journal says: create, cut or rebuild them.

        Cheap where they are right already, so it is called before every write.
        """
        recorded = self._journal.outputs(self._session_id)
        if any(state.dirty for state in recorded.values()):
            self._suspects = None
        with self._explained():
            self._tidy()
            sizes = {name: disk.size_bytes(self.directory / name) for name in recorded}
            if sizes and all(size is None for size in sizes.values()):
                self._rebuild_picks()
            if set(recorded) != set(self._expected()) or any(
                state.dirty or (sizes[name] or 0) < state.length_bytes for name, state in recorded.items()
            ):
                self._rebuild_tables()
                return
            for name, state in recorded.items():
                if sizes[name] != state.length_bytes:
                    disk.cut(self.directory / name, state.length_bytes)

    def record(self, outcome: Outcome, now: float) -> bool:
        """Write what an outcome adds and record it, both or neither.

        Returns False where the journal does not wait for this outcome: it was recorded before, or
        the file changed after it was taken.

        Raises
        ------
        OutputError
            See the class; the outcome is still to be recorded.
        StarError
            The micrograph's name or picks cannot be written: record it as failed.
        """
        self.recover()
        ready = outcome.ready
        if not self._journal.awaits(ready):
            return False
        rows = _chosen(outcome)
        if rows is not None:
            self._fix_pixel_size(outcome)
        path = self.directory / picks_name(ready.name)
        with self._explained():
            if rows is not None:
                content = star.micrograph_picks(rows.yx_px, rows.score)
                disk.make_directory(path.parent)
                self._suspects = {ready.name}
                disk.replace(path, content)
        if self._journal.has_older_rows(ready.micrograph_id):
            if rows is None:
                with self._explained():
                    disk.remove(path)
            recorded = self._record_replacing(outcome, rows, now)
        else:
            recorded = self._record_appending(outcome, rows, now)
        if recorded:
            self._suspects = set()
        return recorded

    def withdraw(self, names: Collection[str], reason: str, now: float) -> None:
        """Take away the rows and files of micrographs that are to be picked again.

        All at once, before the first is picked: replacing them one by one would rewrite the session's
        files as many times.
        """
        self._journal.withdraw(self._session_id, names, reason, now)
        self.recover()

    def _fix_pixel_size(self, outcome: Outcome) -> None:
        """Let the first picks give the outputs their pixel size, where the user did not."""
        if self._journal.session(self.session).pixel_size_angstrom is None:
            y, x = outcome.ready.params.pixel_size_yx(outcome.ready.header)
            self._journal.set_pixel_size(self._session_id, (y * x) ** 0.5)
            self.recover()  # particles.star can begin now

    def rebuild(self) -> None:
        """Write every file anew from the journal; byte for byte what recording had left."""
        with self._explained():
            disk.make_directory(self.directory)
            self._suspects = None
            self._tidy()
            self._rebuild_picks()
            self._rebuild_tables()

    # ---- the two ways to record -----------------------------------------------------------------

    def _record_appending(self, outcome: Outcome, rows: PublishedPicks | None, now: float) -> bool:
        before = self._journal.outputs(self._session_id)
        added = self._rows(rows) if rows is not None else {}
        after = {
            name: OutputLength(state.length_bytes + len(added.get(name, b"")), dirty=False)
            for name, state in before.items()
        }
        try:
            with self._explained():
                for name, data in added.items():
                    if data:
                        disk.append(self.directory / name, data)
            recorded = self._journal.record(outcome, after, now)
        except OutputError:
            self._take_back()
            raise
        if not recorded:
            self._take_back()
        return recorded

    def _take_back(self) -> None:
        """Cut what was appended but not recorded; where that fails, the next `recover` does it."""
        try:
            self.recover()
        except OutputError:
            return

    def _record_replacing(self, outcome: Outcome, rows: PublishedPicks | None, now: float) -> bool:
        with self._explained():
            lengths = self._write_tables_beside(outcome.ready.name, rows)
        dirty = {name: OutputLength(length, dirty=True) for name, length in lengths.items()}
        if not self._journal.record(outcome, dirty, now):
            return False
        with self._explained():
            self._put_tables_in_place(lengths)
        return True

    # ---- whole files ----------------------------------------------------------------------------

    def _rebuild_tables(self) -> None:
        disk.make_directory(self.directory)
        suffix = _coords_suffix(self.directory)
        if suffix is not None:
            disk.replace(self.directory / COORDS_SUFFIX, suffix)
        lengths = self._write_tables_beside()
        # The files may be older than the journal says: until they are in place they count as dirty.
        self._journal.set_outputs(
            self._session_id, {name: OutputLength(length, dirty=True) for name, length in lengths.items()}
        )
        self._put_tables_in_place(lengths)

    def _tidy(self) -> None:
        """Remove picks files that no rows stand for: rewritten as junk, or not recorded before the end came."""
        if self._suspects == set():
            return
        names = self._journal.names_without_rows(self._session_id)
        for name in names if self._suspects is None else names & self._suspects:
            disk.remove(self.directory / picks_name(name))
        self._suspects = set()

    def _rebuild_picks(self) -> None:
        for rows in self._journal.published(self._session_id):
            path = self.directory / picks_name(rows.name)
            disk.make_directory(path.parent)
            disk.replace(path, star.micrograph_picks(rows.yx_px, rows.score))

    def _write_tables_beside(
        self, replaced_name: str | None = None, last: PublishedPicks | None = None
    ) -> dict[str, int]:
        """Write the session's tables beside; the rows of one name left out, those of `last` at the end."""
        headers = self._expected()

        def chunks(table: str) -> Iterator[bytes]:
            yield headers[table]
            for rows in self._journal.published(self._session_id, without_name=replaced_name):
                yield self._rows(rows)[table]
            if last is not None:
                yield self._rows(last)[table]

        return {table: disk.write_beside(self.directory / table, chunks(table)) for table in headers}

    def _put_tables_in_place(self, lengths: dict[str, int]) -> None:
        for table in lengths:
            disk.put_in_place(self.directory / table)
        self._journal.set_outputs(
            self._session_id, {name: OutputLength(length, dirty=False) for name, length in lengths.items()}
        )

    def _expected(self) -> dict[str, bytes]:
        """Return the headers of the tables that there should be."""
        headers = {AUTOPICK: star.autopick_header()}
        pixel_size = self._journal.session(self.session).pixel_size_angstrom
        if pixel_size is not None:
            headers[PARTICLES] = star.particles_header(star.Optics(pixel_size_angstrom=pixel_size))
        return headers

    def _rows(self, rows: PublishedPicks) -> dict[str, bytes]:
        """Return what one micrograph adds to each table."""
        name = self._prefix + rows.name
        listed = b""
        if len(rows.score):
            listed = star.autopick_row(name, str(self.directory / picks_name(rows.name)))
        return {PARTICLES: star.particles_rows(name, rows.yx_px, rows.score), AUTOPICK: listed}

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what the system says into an `OutputError`."""
        try:
            yield
        except OSError as error:
            why = (error.strerror or type(error).__name__).lower()
            where = error.filename or self.directory
            raise OutputError(f"session {self.session}: cannot write {where}: {why}") from error


def _chosen(outcome: Outcome) -> PublishedPicks | None:
    """Return the rows of an outcome as a rebuild would find them in the journal."""
    picks = outcome.picks
    if picks is None:
        return None
    keep = picks.chosen
    return PublishedPicks(
        name=outcome.ready.name,
        yx_px=np.asarray(picks.yx_px[keep], dtype=np.float32),
        score=np.asarray(picks.score[keep], dtype=np.float32),
    )


def _coords_suffix(directory: Path) -> bytes | None:
    """Return what RELION 3.1 wants to read: where a list of the micrographs is."""
    try:
        return star.coords_suffix(str(directory / AUTOPICK))
    except StarError:
        return None
