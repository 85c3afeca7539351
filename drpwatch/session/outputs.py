"""The output files of one session, kept in step with the journal.

Owns which files there are, and the order of writes that makes every row appear exactly once whatever
happens in between:

- The per-micrograph file comes first, in place at once. Then the rows go to the ends of the session's
  files, one write and one fsync each. Then one transaction records the outcome together with the new
  lengths. What lies beyond the recorded length was never recorded and is cut.
- Rows that change (a rewritten micrograph, another threshold) need whole files: the journal calls the
  tables dirty in the transaction of the change. Until `recover` has written them anew from the journal,
  beside and renamed, they stay as they were, and outcomes go to the journal and their own file alone.
- Picks files that have to change without an outcome (another threshold, a rebuild) are marked one by one,
  and written by `catch_up`, some at a time.

    particles.star                  data_optics and data_particles; from the first known pixel size on
    autopick.star                   RELION 4 and 5: `--coord_list`; only micrographs with picks
    coords_suffix_autopick.star     RELION 3.1; left out where the path has a blank, which 3.1 cannot read
    session.json                    what the session is, see `description`
    <sub-directories>/<micrograph>_autopick.star    one per micrograph, without picks labels only
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np

from drpwatch.errors import OutputError, StarError
from drpwatch.formats import star
from drpwatch.micrograph import Outcome
from drpwatch.session import disk
from drpwatch.session.description import DESCRIPTION, describe
from drpwatch.session.journal import Journal
from drpwatch.session.records import OutputLength, PublishedPicks, SessionRecord
from drpwatch.session.tables import AUTOPICK, PARTICLES, Tables, picks_name

COORDS_SUFFIX = "coords_suffix_autopick.star"
_PICKS_FILES = 200  # written at a time, as each costs two fsyncs
_BESIDE = len("..tmp")  # bytes that the name of a file's next version, beside it, has more
_LONGEST_NAME_BYTES = 255 - _BESIDE
_LONGEST_PATH_BYTES = 4095 - _BESIDE
_NAME_REFUSED = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)  # by a file system that takes fewer names


def unwritable(out_dir: Path, prefix: str, name: str) -> str | None:
    """Return why a micrograph of this name can have no rows in an output directory, None if it can."""
    try:
        star.quote(prefix + name)
        star.quote(picks_name(name))
    except StarError as error:
        return f"{error}; rename the file"
    *directories, base = PurePosixPath(picks_name(name)).parts
    if len(base.encode()) > _LONGEST_NAME_BYTES:
        return f"the name is too long: its picks file {base} would not fit; rename the file"
    if len(str(out_dir / picks_name(name)).encode()) > _LONGEST_PATH_BYTES:
        return "the path of its picks file would be longer than the system takes; rename its directories"
    if any(directory.lower().endswith(".star") or directory == DESCRIPTION for directory in directories):
        return (
            f"a directory on its path is called .star or {DESCRIPTION}, as files of the output are; rename it"
        )
    if picks_name(name) == COORDS_SUFFIX:
        return f"its picks file would be {COORDS_SUFFIX}, which has another meaning; rename the file"
    return None


class SessionOutputs:
    """Writes the files of one session; used by one thread, which `beat` hears of after each part of long work.

    Every method raises `OutputError` where the disk does not take it now. Then nothing was recorded,
    and the same call can be made again.
    """

    def __init__(
        self, session: SessionRecord, journal: Journal, beat: Callable[[], None] = lambda: None
    ) -> None:
        self._session_id = session.id
        self.session = session.spec.name
        self.directory = session.spec.out_dir
        self._journal = journal
        self._beat = beat
        self._tables = Tables(session, journal)
        self._described: tuple[object, ...] | None = None  # what session.json has, of all that can change
        self._device: int | None = None  # that had the files when they were looked at last
        self._suspects: set[str] | None = None
        """Names whose picks file may lie there without being recorded; None for any."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The session's files that there are by now; from the journal, for a disk may not answer."""
        recorded = self._journal.outputs(self._session_id)
        names = [name for name in (PARTICLES, AUTOPICK) if name in recorded]
        if AUTOPICK in recorded and _coords_suffix(self.directory) is not None:
            names.append(COORDS_SUFFIX)
        return tuple(self.directory / name for name in names)

    @property
    def behind(self) -> bool:
        """Whether the tables wait for `recover` to write them anew."""
        return _is_dirty(self._journal.outputs(self._session_id))

    @property
    def free_bytes(self) -> int:
        """Room on the file system of the outputs."""
        with self._explained():
            return disk.free_bytes(self.directory)

    def recover(self) -> None:
        """Make the tables what the journal says: create, cut or rebuild them.

        Cheap where they are right already, so it is called before every write.
        """
        recorded = self._journal.outputs(self._session_id)
        if _is_dirty(recorded):
            self._suspects = None
        with self._explained():
            self._tidy()
            sizes = {name: disk.size_bytes(self.directory / name) or 0 for name in recorded}
            if recorded and not any(sizes.values()):
                self._check_mounted()
            lost = [
                name
                for name, state in recorded.items()
                if sizes[name] < state.length_bytes
                or not (state.dirty or self._tables.is_ours(name, state.length_bytes))
            ]
            if lost:
                self._described = None
            if any(not recorded[name].dirty for name in lost):
                # They were deleted, or are of an earlier time: so may the picks files be.
                self._journal.soil_picks_files(self._session_id)
            if lost or _is_dirty(recorded) or set(recorded) != set(self._tables.headers()):
                self._rebuild_tables()
            else:
                for name, state in recorded.items():
                    if sizes[name] != state.length_bytes:
                        disk.cut(self.directory / name, state.length_bytes)
            self._describe()
            self._device = disk.device(self.directory)

    def catch_up(self, limit: int = _PICKS_FILES) -> bool:
        """Write picks files that are not what the journal says, at most so many; return whether there were any."""
        found = self._journal.soiled_picks(self._session_id, limit)
        for rows in found:
            with self._explained():
                self._put(picks_name(rows.name), star.micrograph_picks(rows.yx_px, rows.score))
            self._beat()
        self._journal.clean_picks_files({rows.micrograph_id: rows.threshold for rows in found})
        return bool(found)

    def record(self, outcome: Outcome, now: float) -> Outcome | None:
        """Write what an outcome adds and record it, both or neither.

        Where the tables are dirty, or hold rows of an earlier generation, they are left to `recover`.

        Returns
        -------
        Outcome or None
            What was recorded, which may be cut at another threshold by now. None where the journal does
            not wait for this outcome: it was recorded before, or the file changed after it was taken.

        Raises
        ------
        OutputError
            See the class; the outcome is still to be recorded.
        StarError
            The micrograph's name or picks cannot be written: record it as failed.
        """
        if not self.behind:
            self.recover()
        if not self._journal.awaits(outcome.ready):
            return None
        revision = self._journal.revision(self._session_id)
        outcome = self._journal.in_force(outcome)
        rows = _chosen(outcome)
        if rows is not None and self._journal.session(self.session).pixel_size_angstrom is None:
            y, x = outcome.ready.params.pixel_size_yx(outcome.ready.header)
            self._journal.set_pixel_size(self._session_id, (y * x) ** 0.5)  # particles.star can begin
            revision = self._journal.revision(self._session_id)
        replaces = self._journal.has_older_rows(outcome.ready.micrograph_id)
        self._write_picks_file(outcome.ready.name, rows, replaces=replaces)
        lengths = self._journal.outputs(self._session_id)
        added = {}
        if rows is not None and not replaces and not _is_dirty(lengths):
            added = self._tables.appended(rows, lengths)
        recorded = self._append(outcome, lengths, added, now, revision)
        if recorded:
            self._suspects = set()
        return recorded

    def _write_picks_file(self, name: str, rows: PublishedPicks | None, *, replaces: bool) -> None:
        with self._explained():
            if rows is not None:
                content = star.micrograph_picks(rows.yx_px, rows.score)
                self._suspects = {name}
                try:
                    self._put(picks_name(name), content)
                except OSError as error:
                    if error.errno in _NAME_REFUSED and error.filename:
                        why = (error.strerror or "").lower()
                        raise StarError(
                            f"its picks file cannot have its name here ({why}); rename it"
                        ) from error
                    raise
            elif replaces:
                self._remove(picks_name(name))

    def _put(self, name: str, content: bytes) -> None:
        """Write a whole file below the output directory, and its directories."""
        path = self.directory / name
        disk.check_no_links(path.parent, self.directory)
        disk.make_directory(path.parent)
        disk.replace(path, content)

    def _remove(self, name: str) -> None:
        """Remove a file below the output directory."""
        path = self.directory / name
        disk.check_no_links(path.parent, self.directory)
        disk.remove(path)

    def _append(
        self,
        outcome: Outcome,
        before: dict[str, OutputLength],
        added: dict[str, bytes],
        now: float,
        revision: int,
    ) -> Outcome | None:
        """Append rows to the tables and record the outcome with their new lengths."""
        after = {
            name: OutputLength(state.length_bytes + len(added.get(name, b"")), state.dirty)
            for name, state in before.items()
        }
        try:
            with self._explained():
                for name, data in added.items():
                    if data:
                        disk.append(self.directory / name, data)
            recorded = self._journal.record(outcome, after, now, revision)
        except OutputError:
            self._take_back()
            raise
        if recorded is None:
            self._take_back()
        return recorded

    def _take_back(self) -> None:
        """Cut what was appended but not recorded; where that fails, the next `recover` does it."""
        try:
            self.recover()
        except OutputError:
            return

    def withdraw(self, names: Collection[str], reason: str, now: float) -> None:
        """Take away the rows and files of micrographs that are to be picked again.

        All at once, before the first is picked: replacing them one by one would rewrite the session's
        files as many times.
        """
        self._journal.withdraw(self._session_id, names, reason, now)
        self.recover()

    def rebuild(self) -> None:
        """Write every file anew from the journal; byte for byte what recording had left."""
        self._journal.request_rebuild(self._session_id)
        self.complete()

    def complete(self) -> None:
        """Make all files what the journal says."""
        self.recover()
        while self.catch_up():
            pass

    # ---- whole files ----------------------------------------------------------------------------

    def _rebuild_tables(self) -> None:
        revision = self._journal.revision(self._session_id)
        disk.make_directory(self.directory)
        suffix = _coords_suffix(self.directory)
        if suffix is not None:
            disk.replace(self.directory / COORDS_SUFFIX, suffix)
        headers = self._tables.headers()
        for name in self._journal.outputs(self._session_id).keys() - headers.keys():
            disk.remove(self.directory / name)
            self._journal.forget_output(self._session_id, name)
        lengths = {
            table: disk.write_beside(self.directory / table, self._beating(self._tables.whole(table, header)))
            for table, header in headers.items()
        }
        # The files may be older than the journal says: until they are in place they count as dirty.
        self._account(lengths, revision, dirty=True)
        for table in lengths:
            disk.put_in_place(self.directory / table)
        self._account(lengths, revision, dirty=False)

    def _beating(self, parts: Iterable[bytes]) -> Iterator[bytes]:
        for part in parts:
            self._beat()
            yield part

    def _describe(self) -> None:
        """Tell beside the files what the session is, as it is now."""
        session = self._journal.session(self.session)
        changing = (session.params_id, session.expected_end_at)
        if self._described != changing:
            passed_over = self._journal.passed_over(self._session_id)
            disk.replace(self.directory / DESCRIPTION, describe(session, passed_over))
            self._described = changing

    def _account(self, lengths: dict[str, int], revision: int, *, dirty: bool) -> None:
        states = {name: OutputLength(length, dirty) for name, length in lengths.items()}
        self._journal.set_outputs(self._session_id, states, revision)

    def _check_mounted(self) -> None:
        """Refuse to begin anew where the file system of the outputs is not mounted any more."""
        if self._device not in (None, disk.device(self.directory)):
            raise OutputError(
                f"session {self.session}: cannot write {self.directory}: it is empty and on another file system"
                " than before: it seems to be unmounted; waiting for it"
            )

    def _tidy(self) -> None:
        """Remove picks files that no rows stand for: rewritten as junk, or not recorded before the end came."""
        if self._suspects == set():
            return
        names = self._journal.names_without_rows(self._session_id)
        for name in names if self._suspects is None else names & self._suspects:
            self._remove(picks_name(name))
        self._suspects = set()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what the system says into an `OutputError`."""
        try:
            yield
        except OSError as error:
            why = (error.strerror or type(error).__name__).lower()
            where = error.filename or self.directory
            raise OutputError(f"session {self.session}: cannot write {where}: {why}") from error


def _is_dirty(outputs: Mapping[str, OutputLength]) -> bool:
    """Tell whether the tables wait to be rebuilt."""
    return any(state.dirty for state in outputs.values())


def _chosen(outcome: Outcome) -> PublishedPicks | None:
    """Return the rows of an outcome as a rebuild would find them in the journal."""
    picks = outcome.picks
    if picks is None:
        return None
    keep = picks.chosen
    return PublishedPicks(
        micrograph_id=outcome.ready.micrograph_id,
        name=outcome.ready.name,
        threshold=picks.threshold,
        yx_px=np.asarray(picks.yx_px[keep], dtype=np.float32),
        score=np.asarray(picks.score[keep], dtype=np.float32),
    )


def _coords_suffix(directory: Path) -> bytes | None:
    """Return what RELION 3.1 wants to read: where a list of the micrographs is."""
    try:
        return star.coords_suffix(str(directory / AUTOPICK))
    except StarError:
        return None
