"""Picking files once, without a daemon: what is to be picked, and picking it.

The outputs are those of a session, written by the same code; the session's journal lies inside the output
directory, so that a second run picks only what is new or different. Its one session stays in the state
`created`: no daemon ever watches for it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Self

from drpwatch.errors import (
    DeviceError,
    JournalDamaged,
    JournalError,
    MicrographError,
    StarError,
    UsageError,
)
from drpwatch.micrograph import Fingerprint, Outcome, PickParams, ReadyMicrograph
from drpwatch.service.admission import check_pixel_size, refusal
from drpwatch.service.inputs import Inputs, check_picks_files
from drpwatch.service.pickers import Picker, pick_in_steps
from drpwatch.service.readahead import Read, read_ahead
from drpwatch.service.state import StateDirectory
from drpwatch.service.tiles import TileSizes
from drpwatch.session.journal import Journal
from drpwatch.session.outputs import SessionOutputs
from drpwatch.session.records import MicrographRecord, MicrographState, SessionRecord, SessionSpec
from drpwatch.session.tables import AUTOPICK, PARTICLES
from drpwatch.watch.scan import sight

STATE_FOLDER = ".drpwatch"  # hidden, so that no scan goes into it
_SESSION = "pick"

Shield = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Done:
    """One micrograph's end: a number of picks, or the reason why there are none.

    `enlargement` tells how many times the diameter given particles were seen to be across; 1 if no larger.
    """

    name: str
    n_picks: int | None
    failure: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)  # per stage
    enlargement: float = 1.0


class Batch:
    """One run over files, into one output directory.

    Parameters
    ----------
    inputs, out_dir, params, micrograph_prefix
        What to pick, how, and where it goes.
    weights_sha256
        Of the model that will pick: what other weights picked is picked again.

    Raises
    ------
    UsageError
        The output directory is not for this: not writable, of something else, or with names relative to
        another directory; or no header gives a pixel size.
    JournalError
        The journal is damaged, or in use by another run.
    OutputError
        The outputs cannot be written.
    """

    def __init__(
        self,
        inputs: Inputs,
        out_dir: Path,
        params: PickParams,
        weights_sha256: str,
        micrograph_prefix: str = "",
    ) -> None:
        self.out_dir = Path(os.path.abspath(out_dir.expanduser()))
        self._tiles = TileSizes()
        check_pixel_size(inputs.root, inputs.names, params)
        self._state = _claim(self.out_dir)
        try:
            self._journal = Journal(self._state.journal)
        except JournalDamaged as error:
            self._state.close()
            raise JournalDamaged(
                f"{error}: give another output directory, and all is picked there"
            ) from error
        except BaseException:
            self._state.close()
            raise
        try:
            spec = SessionSpec(
                _SESSION, inputs.root, self.out_dir, params, micrograph_prefix=micrograph_prefix
            )
            self._session, self._below, before = _open_session(self._journal, spec)
            names = [self._below + name for name in inputs.names]
            self._plan(names, before, weights_sha256)
        except BaseException:
            self.close()
            raise

    todo: tuple[str, ...]
    """Names of the micrographs to pick, in order."""
    unchanged: int
    """How many are left out, as they were picked before."""
    notes: tuple[str, ...]
    """What a user should know of the plan, one sentence each."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others use the output directory."""
        self._journal.close()
        self._state.close()

    @property
    def files(self) -> tuple[Path, ...]:
        """The session's files that there are by now."""
        return self._outputs.files

    @property
    def total_picks(self) -> int:
        """Number of rows in particles.star."""
        return self._journal.totals(self._session.id).picks

    def run(self, picker: Picker, shield: Shield = nullcontext) -> Iterator[Done]:
        """Pick what is to be picked; each micrograph is on disk when it is yielded.

        Parameters
        ----------
        picker
            A loaded model.
        shield
            Makes a context in which what is being recorded is not interrupted.

        Raises
        ------
        OutputError, DeviceError
            Nothing more can be written, or picked; what was yielded is safe.
        """
        give_up = threading.Event()
        try:
            for read in read_ahead(self._session.spec.watch_root, self.todo, give_up, picker.host_memory):
                yield self._one(read, picker, shield)
        finally:
            give_up.set()

    # ---- the plan -------------------------------------------------------------------------------

    def _plan(self, names: list[str], before: PickParams | None, weights_sha256: str) -> None:
        """Decide what is to be picked, and take away the rows of what is to be picked again."""
        session = self._session
        records = {
            record.name: record for record in self._journal.micrographs(session.id, [MicrographState.PICKED])
        }
        check_picks_files(sorted({*names, *records}))
        todo, changed, outdated = [], [], []
        for name in names:
            record = records.get(name)
            if record is None:
                todo.append(name)
            elif _is_outdated(record, session, weights_sha256):
                outdated.append(name)
            elif record.fingerprint != _state_of(session.spec.watch_root, name):
                changed.append(name)
        self.todo = tuple(sorted([*todo, *changed, *outdated]))
        self.unchanged = len(names) - len(self.todo)
        given = set(names)
        left = sum(
            name not in given and _is_outdated(record, session, weights_sha256)
            for name, record in records.items()
        )
        self.notes = tuple(_notes(before, session.spec.params, len(changed), len(outdated), left))
        self._outputs = SessionOutputs(session, self._journal)
        again = [*changed, *outdated]
        if again:
            self._outputs.withdraw(again, "to be picked again", time.time())
        self._outputs.complete()

    # ---- one micrograph -------------------------------------------------------------------------

    def _one(self, read: Read, picker: Picker, shield: Shield) -> Done:
        reason = read.problem
        ready = None
        with shield():
            if read.header is not None and reason is None:
                reason = refusal(self._journal, _SESSION, read.name, read.header)
            if reason is not None:
                self._journal.note_failed(self._session.id, read.name, reason, read.fingerprint, time.time())
            else:
                assert read.header is not None
                assert read.fingerprint is not None
                self._journal.note_ready(
                    self._session.id, read.name, read.header, read.fingerprint, time.time()
                )
                ready = self._journal.ready(self._session, read.name)
            self._outputs.recover()
        if ready is None or read.pixels is None:
            return Done(read.name, None, reason, {"read": read.seconds})
        outcome = _pick(picker, read, ready, self._tiles)
        started = time.perf_counter()
        with shield():
            outcome = self._record(outcome)
        seconds = {**outcome.seconds, "record": time.perf_counter() - started}
        if outcome.picks is None:
            return Done(read.name, None, outcome.failure, seconds)
        return Done(read.name, outcome.picks.count, None, seconds, outcome.picks.enlargement)

    def _record(self, outcome: Outcome) -> Outcome:
        """Record an outcome; one that cannot be written as it is becomes a failure with the reason."""
        try:
            self._outputs.record(outcome, time.time())
        except StarError as error:
            outcome = replace(outcome, picks=None, failure=str(error))
            self._outputs.record(outcome, time.time())
        return outcome


def _pick(picker: Picker, read: Read, ready: ReadyMicrograph, tiles: TileSizes) -> Outcome:
    """Pick one micrograph; what is wrong with it becomes the outcome."""
    assert read.pixels is not None
    try:
        return pick_in_steps(picker, ready, read.pixels, read.seconds, tiles)
    except DeviceError:
        raise
    except MicrographError as error:
        sentence = str(error)
    except Exception as error:  # noqa: BLE001 - one file must leave its neighbours alone
        sentence = f"unexpected {type(error).__name__} while picking: {error}"
    return Outcome(ready, None, failure=sentence, seconds={"read": read.seconds})


def _state_of(root: Path, name: str) -> Fingerprint | None:
    """Return the state of a file, None if it cannot be looked at."""
    try:
        return sight(root, name).fingerprint
    except MicrographError:
        return None


# ---- the output directory -----------------------------------------------------------------------


def _claim(out_dir: Path) -> StateDirectory:
    """Make the output directory, and keep other runs out of it."""
    folder = out_dir / STATE_FOLDER
    foreign = [name for name in (PARTICLES, AUTOPICK) if (out_dir / name).exists()]
    if foreign and not folder.exists():
        raise UsageError(
            f"{out_dir} has a {foreign[0]} that 'drpwatch pick' did not write: give another output directory"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise UsageError(f"output directory {out_dir} cannot be written: {why}") from error
    try:
        return StateDirectory(folder)
    except JournalError as error:
        raise JournalError(f"{out_dir}: another 'drpwatch pick' writes here now; wait for it") from error


def _open_session(journal: Journal, spec: SessionSpec) -> tuple[SessionRecord, str, PickParams | None]:
    """Return the session of an output directory, what to put before names, and the parameters it had before.

    A later run may be given less than an earlier one: names stay relative to what the earlier was given.
    """
    known = {session.spec.name: session for session in journal.sessions()}
    if _SESSION not in known:
        return journal.add_session(spec, time.time()), "", None
    old = known[_SESSION].spec
    if not spec.watch_root.is_relative_to(old.watch_root):
        raise UsageError(
            f"{spec.out_dir} holds picks of {old.watch_root}, and {spec.watch_root} is not in there:"
            " give another output directory"
        )
    below = spec.watch_root.relative_to(old.watch_root).as_posix()
    spec = replace(spec, watch_root=old.watch_root, params=_same_model(spec.params, old.params))
    return journal.respecify(spec, time.time()), "" if below == "." else f"{below}/", old.params


def _same_model(params: PickParams, old: PickParams) -> PickParams:
    """Return the parameters, the old ones if only the model's name differs: its SHA-256 tells models apart."""
    return old if replace(params, model=old.model) == old else params


def _is_outdated(record: MicrographRecord, session: SessionRecord, weights_sha256: str) -> bool:
    """Tell whether a micrograph was picked with other parameters or weights than those in force."""
    return record.params_id != session.params_id or record.weights_sha256 != weights_sha256


def _notes(
    before: PickParams | None, now: PickParams, changed: int, outdated: int, left: int
) -> Iterator[str]:
    """Say what is picked again, and why."""
    if changed:
        yield f"{_count(changed)} changed since picked: picked again"
    if not outdated and not left:
        return
    differences = [
        f"{one.name} {getattr(before, one.name)} -> {getattr(now, one.name)}"
        for one in fields(now)
        if before is not None and getattr(before, one.name) != getattr(now, one.name)
    ]
    why = ", ".join(differences) or "other weights or parameters"
    if outdated:
        yield f"{why}: {_count(outdated)} picked again"
    if left:
        yield f"{why}: {_count(left)} that were not given keep the picks that they have"


def _count(n: int) -> str:
    return "1 micrograph" if n == 1 else f"{n} micrographs"
