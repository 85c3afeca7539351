"""The verbs: what starting, stopping and asking of sessions means. Implements `control.Control`."""

from __future__ import annotations

import os
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

from drpwatch.errors import DrpwatchError, ScanFailed, SessionError, StarError, UsageError
from drpwatch.formats import star
from drpwatch.service.admission import check_pixel_size
from drpwatch.service.clock import Clock
from drpwatch.service.control import Health, MicrographCounts, MicrographView, SessionRequest, SessionView
from drpwatch.service.pipeline import Pipeline
from drpwatch.service.publish import Publisher
from drpwatch.session.journal import Journal
from drpwatch.session.lifecycle import WATCHING, Verb
from drpwatch.session.outputs import AUTOPICK, PARTICLES, SessionOutputs
from drpwatch.session.records import MicrographRecord, MicrographState, SessionRecord, SessionSpec
from drpwatch.watch.scan import NameFilter, scan

STALE_AFTER_S = 300.0
"""A loop that is silent for longer hangs: the slowest step, one micrograph on few cores, takes seconds."""

_LISTED = 200  # micrographs of each kind in one view
_HOUR_S = 3600.0


class Sessions:
    """The verbs of one daemon; safe to call from any thread."""

    def __init__(self, journal: Journal, pipeline: Pipeline, publisher: Publisher, clock: Clock) -> None:
        self._journal = journal
        self._pipeline = pipeline
        self._publisher = publisher
        self._clock = clock
        self._starting = threading.Lock()  # two starts at once must see each other

    # ---- verbs ----------------------------------------------------------------------------------

    def start_session(self, request: SessionRequest) -> SessionView:
        """Create a session and begin to watch; see `Control`."""
        spec = SessionSpec(
            name=request.name,
            watch_root=_usable_path(request.watch_root, "watch directory"),
            out_dir=_usable_path(request.out_dir or default_out_dir(request), "output directory"),
            params=request.params,
            glob=request.glob,
            micrograph_prefix=request.micrograph_prefix,
        )
        _check_rows_can_be_written(spec)
        _check_glob(spec.glob)
        self._pipeline.factory.check(spec.params.model)
        _check_watch_root(spec)
        with self._starting:
            self._check_not_taken(spec)
            _check_writable(spec.out_dir)
            with self._journal.transaction():
                self._journal.add_session(spec, self._clock.wall())
                session = self._journal.advance(spec.name, Verb.START, self._clock.wall())
        self._publisher.metrics.add_session(spec.name, session.state)
        return self._changed(session)

    def stop_session(self, name: str) -> SessionView:
        """Take nothing new, finish what is there, then complete."""
        return self._step(name, Verb.STOP)

    def pause(self, name: str) -> SessionView:
        """Go on finding files, pick none."""
        return self._step(name, Verb.PAUSE)

    def resume(self, name: str) -> SessionView:
        """Undo `pause`."""
        return self._step(name, Verb.RESUME)

    def reopen(self, name: str) -> SessionView:
        """Watch again for a completed or failed session."""
        return self._step(name, Verb.REOPEN)

    def _step(self, name: str, verb: Verb) -> SessionView:
        return self._changed(self._journal.advance(name, verb, self._clock.wall()))

    def _changed(self, session: SessionRecord) -> SessionView:
        """Let the loops notice a change, and show it."""
        self._publisher.state(session.spec.name, session.state)
        self._pipeline.scanner.wake()
        self._pipeline.dispatcher.ring()
        return self._view(session)

    def _check_not_taken(self, spec: SessionSpec) -> None:
        """Refuse an output directory that holds, or will hold, the rows of another session."""
        real = os.path.realpath(spec.out_dir)
        for other in self._journal.sessions():
            if other.spec.name == spec.name:
                raise SessionError(f"session {spec.name} exists already: reopen it, or take another name")
            if os.path.realpath(other.spec.out_dir) == real:
                raise SessionError(
                    f"{spec.out_dir} is the output directory of session {other.spec.name}: give another one"
                )
        for name in (PARTICLES, AUTOPICK):
            if (spec.out_dir / name).exists():
                raise SessionError(f"{spec.out_dir} has a {name} already: give another output directory")

    # ---- questions ------------------------------------------------------------------------------

    def sessions(self) -> list[SessionView]:
        """Return all sessions, newest first, without their micrographs."""
        return [self._view(session) for session in reversed(self._journal.sessions())]

    def session(self, name: str) -> SessionView:
        """Return one session with its waiting, ready, failed and newest micrographs."""
        session = self._journal.session(name)

        def listed(*states: MicrographState) -> tuple[MicrographView, ...]:
            return tuple(map(_micrograph, self._journal.micrographs(session.id, states, _LISTED)))

        return replace(
            self._view(session),
            waiting=listed(MicrographState.WAITING),
            ready=listed(MicrographState.READY),
            failed=listed(MicrographState.FAILED),
            newest=listed(MicrographState.PICKED, MicrographState.FAILED),
        )

    def liveness(self) -> Health:
        """Tell whether a restart is needed."""
        if self._pipeline.failure is not None:
            return Health((str(self._pipeline.failure),))
        return Health(tuple(self._pipeline.heartbeats.stale(STALE_AFTER_S)))

    def readiness(self) -> Health:
        """Tell whether micrographs are being picked and recorded."""
        reasons = list(self.liveness().reasons)
        if self._pipeline.picking.not_ready is not None:
            reasons.append(self._pipeline.picking.not_ready)
        try:
            names = [session.spec.name for session in self._journal.sessions(WATCHING)]
        except DrpwatchError as error:
            return Health((*reasons, str(error)))
        for name in names:
            unreadable = self._pipeline.scanner.unreadable(name)
            reasons += [] if unreadable is None else [unreadable]
            reasons += self._pipeline.recorder.problems(name)
        return Health(tuple(reasons))

    def _view(self, session: SessionRecord) -> SessionView:
        spec = session.spec
        totals = self._journal.totals(session.id)
        problems = self._pipeline.problems(spec.name) if session.state in WATCHING else ()
        return SessionView(
            name=spec.name,
            state=session.state,
            watch_root=spec.watch_root,
            out_dir=spec.out_dir,
            glob=spec.glob,
            micrograph_prefix=spec.micrograph_prefix,
            params=spec.params,
            pixel_size_angstrom=session.pixel_size_angstrom,
            created_at=session.created_at,
            changed_at=session.changed_at,
            last_recorded_at=totals.last_recorded_at,
            micrographs=MicrographCounts(totals.waiting, totals.ready, totals.picked, totals.failed),
            picks=totals.picks,
            micrographs_per_hour=self._rate(session, totals.picked + totals.failed),
            problems=(*problems, *((session.reason,) if session.reason else ())),
            outputs=SessionOutputs(session, self._journal).files,
        )

    def _rate(self, session: SessionRecord, recorded: int) -> float | None:
        """Return micrographs per hour: of the last hour, or of the life of a shorter or ended session."""
        if recorded == 0:
            return None
        now = self._clock.wall()
        if session.state in WATCHING and now - session.created_at > _HOUR_S:
            return float(self._journal.recorded_since(session.id, now - _HOUR_S))
        end = now if session.state in WATCHING else session.changed_at
        return recorded / max(end - session.created_at, 1.0) * _HOUR_S


def default_out_dir(request: SessionRequest) -> Path:
    """Return where outputs go if nobody says: `drpwatch/<session>` beside the watched directory."""
    return request.watch_root.parent / "drpwatch" / request.name


def _micrograph(record: MicrographRecord) -> MicrographView:
    return MicrographView(
        name=record.name,
        generation=record.generation,
        state=record.state,
        reason=record.reason,
        picks=record.n_picks,
        threshold=record.threshold,
        first_seen_at=record.first_seen_at,
        ready_at=record.ready_at,
        recorded_at=record.recorded_at,
        seconds=record.seconds,
    )


def _usable_path(path: Path, what: str) -> Path:
    """Return an absolute path without `..`, or refuse."""
    text = str(path)
    if not path.is_absolute():
        raise UsageError(f"{what} {text}: give an absolute path, the daemon has no current directory")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} {text!a}: the path is not valid UTF-8") from error
    if "\0" in text:
        raise UsageError(f"{what}: the path has a NUL character")
    return Path(os.path.normpath(path))


def _check_rows_can_be_written(spec: SessionSpec) -> None:
    """Refuse paths that no STAR file can carry."""
    for what, value in (
        ("output directory", str(spec.out_dir / "x")),
        ("micrograph prefix", spec.micrograph_prefix + "x"),
    ):
        try:
            star.quote(value)
        except StarError as error:
            raise UsageError(f"{what}: {error}") from error


def _check_glob(glob: str) -> None:
    """Refuse a glob that is malformed, or under which two files could have one picks file."""
    NameFilter(glob)
    ending = glob.rpartition("/")[2].rpartition(".")[2]
    if "." not in glob.rpartition("/")[2] or not ending.isalnum() or ending == "star":
        raise UsageError(f"glob {glob!r} must end in the file type, like '**/*.mrc'")


def _check_watch_root(spec: SessionSpec) -> None:
    """Refuse a root that cannot be watched, or whose micrographs would all fail; wait for a missing one."""
    root = spec.watch_root
    try:
        if not root.exists():
            return
        if not root.is_dir():
            raise UsageError(f"watch directory {root} is not a directory")
        listing = scan(root, NameFilter(spec.glob))
    except (ScanFailed, OSError) as error:
        raise UsageError(f"watch directory cannot be used: {error}") from error
    check_pixel_size(root, sorted(listing.names), spec.params)


def _check_writable(directory: Path) -> None:
    """Make the output directory and prove that files can be made in it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise UsageError(
            f"output directory {directory} cannot be written ({why}): give another one, or let the daemon's"
            " user write there"
        ) from error
