"""Going on without the journal: a new one is made of what sessions left beside their micrographs.

What STAR files hold comes back: names, picks and scores, and with `session.json` what each session was.
What they do not hold is lost: candidates below the threshold, the weights and parameters of each micrograph,
why others failed, and how sessions stood. The old journal is kept, and nothing is decided from it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from drpwatch.errors import (
    JournalDamaged,
    MicrographError,
    OutputError,
    ScanFailed,
    SessionError,
    UsageError,
)
from drpwatch.micrograph import Fingerprint, Picks
from drpwatch.service.state import StateDirectory
from drpwatch.session import description, disk, schema
from drpwatch.session.description import DESCRIPTION, Description
from drpwatch.session.journal import Journal
from drpwatch.session.lifecycle import Verb
from drpwatch.session.records import OutputLength, SessionRecord
from drpwatch.session.salvage import Salvage, WrittenPicks, read_back
from drpwatch.session.tables import AUTOPICK, PARTICLES
from drpwatch.watch.scan import NameFilter, scan, sight

_BESIDE = ("-wal", "-shm")  # what SQLite keeps beside a database


@dataclass(frozen=True, slots=True)
class Recovered:
    """One session that the journal has again."""

    name: str
    micrographs: int
    picks: int
    changed: int  # micrographs that were written after their picks: they wait to be picked again
    problems: tuple[str, ...]  # a sentence for each thing that could not be used


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was done."""

    sessions: tuple[Recovered, ...]
    kept: Path | None  # the journal that was damaged


@dataclass(frozen=True, slots=True)
class _Found:
    """What there is of one session."""

    told: Description
    outputs: Salvage
    files: dict[str, Fingerprint]  # of the picked micrographs, those that are there
    problems: tuple[str, ...]


def recover(state_dir: Path, directories: Sequence[Path]) -> Recovery:
    """Make a journal of outputs, or add their sessions to one that is whole.

    Parameters
    ----------
    state_dir
        Of the daemon, which must not run.
    directories
        Output directories of the sessions; without any, those that the damaged journal still tells.

    Raises
    ------
    UsageError
        A directory is not one of a session, or none is given and none is known.
    SessionError
        The journal has one of the sessions.
    JournalError
        A daemon uses the state directory, or the journal is of a newer drpwatch.
    OutputError
        The state directory cannot be written.
    """
    state = StateDirectory(state_dir)
    try:
        damaged = _is_damaged(state.journal)
        wanted = [Path(os.path.abspath(directory)) for directory in directories]
        wanted = wanted or _known(state.journal, damaged=damaged)
        found = [_look(directory) for directory in dict.fromkeys(wanted)]
        if not damaged:
            return Recovery(_fill(state.journal, found), None)
        beside = state.journal.with_name(f"{state.journal.name}.recovered")
        for ending in ("", *_BESIDE):  # of a try that was cut off
            beside.with_name(beside.name + ending).unlink(missing_ok=True)
        sessions = _fill(beside, found)
        return Recovery(sessions, _exchange(state.journal, beside))
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise OutputError(f"{error.filename or state_dir}: {why}") from error
    finally:
        state.close()


def _is_damaged(journal: Path) -> bool:
    try:
        schema.check(journal)
    except JournalDamaged:
        return True
    return False


def _known(journal: Path, *, damaged: bool) -> list[Path]:
    """Return the output directories that the journal tells, of sessions that can be recovered."""
    if not damaged:
        raise UsageError(
            f"journal {journal}: not damaged; to add sessions that it lacks, give their output directories"
        )
    told = schema.output_directories(journal)
    directories = [directory for directory in told if (directory / DESCRIPTION).exists()]
    if not directories:
        raise UsageError(
            f"journal {journal}: does not tell any more where outputs are: give the output directories of"
            " its sessions"
        )
    return directories


# ---- what there is ------------------------------------------------------------------------------


def _look(directory: Path) -> _Found:
    """Read what there is of the session in an output directory."""
    told = description.read(directory)
    names: frozenset[str] = frozenset()
    problems: tuple[str, ...] = ()
    try:
        names = scan(told.spec.watch_root, NameFilter(told.spec.glob)).names
    except ScanFailed:
        problems = (
            f"{told.spec.watch_root}: cannot be read: which micrographs changed, or have no picks, is not known",
        )
    outputs = read_back(directory, told.spec.micrograph_prefix, names)
    files = {}
    for written in outputs.picks:
        try:
            files[written.name] = sight(told.spec.watch_root, written.name).fingerprint
        except MicrographError:
            continue  # deleted, which changes nothing for its picks
    return _Found(told, outputs, files, (*problems, *outputs.problems))


def _is_newer(found: _Found, written: WrittenPicks) -> bool:
    """Tell whether a micrograph was written after its picks."""
    marks = found.files.get(written.name)
    return marks is not None and marks.mtime_ns > written.written_ns


# ---- the journal --------------------------------------------------------------------------------


def _fill(path: Path, found: Sequence[_Found]) -> tuple[Recovered, ...]:
    """Write sessions to a journal, all or none of them."""
    journal = Journal(path)
    try:
        with journal.transaction():
            sessions = tuple(_add(journal, one) for one in found)
    finally:
        journal.close()
    _give_to_owner(path)
    return sessions


def _add(journal: Journal, found: _Found) -> Recovered:
    """Write one session to a journal; it has ended, for how it stood is not known."""
    told, name = found.told, found.told.spec.name
    for other in journal.sessions():
        if os.path.realpath(other.spec.out_dir) == os.path.realpath(told.spec.out_dir):
            raise SessionError(
                f"session {other.spec.name}: the journal has it, with output in {told.spec.out_dir}"
            )
    session = journal.add_session(told.spec, told.created_at, told.weights)
    journal.pass_over(session.id, told.backfill, told.passed_over)
    journal.set_expected_end(name, told.expected_end_at)
    if found.outputs.pixel_size_angstrom is not None:
        journal.set_pixel_size(session.id, found.outputs.pixel_size_angstrom)
    changed = [written.name for written in found.outputs.picks if _is_newer(found, written)]
    for written in found.outputs.picks:
        _restore(journal, session, written, found.files.get(written.name))
    if not all(written.own_file for written in found.outputs.picks):
        journal.soil_picks_files(session.id)
    now = time.time()
    journal.pick_again(session.id, changed, now)
    journal.set_outputs(session.id, dict.fromkeys((PARTICLES, AUTOPICK), OutputLength(0, dirty=True)), 0)
    for verb in (Verb.START, Verb.STOP, Verb.DRAINED):
        journal.advance(name, verb, now, "its journal was lost: reopen the session if it is to go on")
    picks = sum(len(written.score) for written in found.outputs.picks)
    return Recovered(name, len(found.outputs.picks), picks, len(changed), found.problems)


def _restore(
    journal: Journal, session: SessionRecord, written: WrittenPicks, marks: Fingerprint | None
) -> None:
    """Write the picks of one micrograph to a journal."""
    threshold = session.params.threshold_for(session.params) or 0.0
    if len(written.score):
        threshold = min(threshold, float(written.score.min()))  # all of them are in the outputs
    picks = Picks(written.yx_px, written.score, threshold, weights_sha256="")
    journal.restore(session.id, written.name, picks, marks, written.written_ns / 1e9)


def _give_to_owner(path: Path) -> None:
    """Let root leave the files to whom the state directory belongs: the daemon's user."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        for file in (path, path.with_name("lock")):
            os.chown(file, owner.st_uid, owner.st_gid)


def _exchange(journal: Path, new: Path) -> Path:
    """Put a new journal in the place of a damaged one, which is kept beside; return where."""
    kept = journal.with_name(f"{journal.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}")
    if journal.exists():
        os.link(journal, kept)  # at no moment is there none
    for ending in _BESIDE:
        beside = journal.with_name(journal.name + ending)
        if beside.exists():
            disk.move(beside, kept.with_name(kept.name + ending))
    disk.move(new, journal)
    return kept
