"""The verbs: what starting, stopping and asking of sessions means. Implements `control.Control`."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from drpwatch import __version__
from drpwatch.errors import DrpwatchError, SessionError, UsageError
from drpwatch.service.clock import Clock
from drpwatch.service.control import (
    DaemonView,
    Health,
    MicrographCounts,
    MicrographView,
    Repicked,
    SessionRequest,
    SessionView,
    Which,
)
from drpwatch.service.pipeline import Pipeline
from drpwatch.service.publish import Publisher
from drpwatch.service.requests import check_unused, check_writable, usable_spec
from drpwatch.service.settings import Settings
from drpwatch.session.journal import Journal
from drpwatch.session.lifecycle import WATCHING, SessionState, Verb
from drpwatch.session.outputs import SessionOutputs
from drpwatch.session.records import MicrographRecord, MicrographState, SessionRecord, SessionSpec

STALE_AFTER_S = 300.0
"""A loop that is silent for longer hangs: the slowest step, one micrograph on few cores, takes seconds."""

_RECORDED = (MicrographState.PICKED, MicrographState.FAILED)
_PICKING_AGAIN = frozenset({SessionState.WAITING, SessionState.RUNNING, SessionState.PAUSED})
_LISTED = 200  # micrographs of each kind in one view
_HOUR_S = 3600.0
_ANSWERS_WITHIN_S = 1.0  # a file server that is well


class Sessions:
    """The verbs of one daemon; safe to call from any thread."""

    def __init__(
        self, journal: Journal, pipeline: Pipeline, publisher: Publisher, clock: Clock, settings: Settings
    ) -> None:
        self._journal = journal
        self._pipeline = pipeline
        self._publisher = publisher
        self._clock = clock
        self._settings = settings
        self.page: str | None = None
        """Where the page is served; told by who serves it."""
        self._changing = threading.Lock()  # two starts, or two changes of one session, must see each other

    # ---- verbs ----------------------------------------------------------------------------------

    def start_session(self, request: SessionRequest) -> SessionView:
        """Create a session and begin to watch; see `Control`."""
        spec, passed_over = usable_spec(request)
        weights = self._pipeline.factory.pin(spec.params.model)
        # All that asks a file server comes before the lock: one that does not answer holds up this start alone.
        real = _real_paths([other.spec.out_dir for other in self._journal.sessions()])
        real[spec.out_dir] = os.path.realpath(spec.out_dir)
        self._check_not_taken(spec, real)
        check_unused(spec.out_dir)
        check_writable(spec.out_dir)
        with self._changing:
            self._check_not_taken(spec, real)  # by a start meanwhile
            with self._journal.transaction():
                session = self._journal.add_session(spec, self._clock.wall(), weights)
                self._journal.pass_over(session.id, request.backfill, passed_over)
                self._journal.set_expected_end(spec.name, request.expected_end_at)
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

    def set_session(self, name: str, changes: Mapping[str, Any]) -> SessionView:
        """Put other values in force for micrographs to come; see `Control`."""
        given = dict(changes)
        if not given:
            raise UsageError(f"session {name}: nothing is given to be set")
        with self._changing:
            session = self._journal.session(name)
            with_end = "expected_end_at" in given
            expected_end_at = given.pop("expected_end_at", None)
            params = replace(session.spec.params, **given)
            weights = session.params.weights
            if "model" in given or weights is None:
                weights = self._pipeline.factory.pin(params.model)
            with self._journal.transaction():
                session = self._journal.set_params(name, params, weights, self._clock.wall())
                if with_end:
                    self._journal.set_expected_end(name, expected_end_at)
        return self._changed_params(name)

    def rethreshold(self, name: str, threshold: float) -> SessionView:
        """Cut what is recorded at another threshold, and what is to come too."""
        with self._changing:
            self._journal.rethreshold(name, threshold, self._clock.wall())
        return self._changed_params(name)

    def rebuild(self, name: str) -> SessionView:
        """Have the recorder write all files of the outputs anew."""
        session = self._journal.session(name)
        self._journal.request_rebuild(session.id)
        return self._view(session)

    def repick(self, name: str, which: Which, glob: str | None = None) -> Repicked:
        """Pick recorded micrographs again; see `Control`."""
        session = self._journal.session(name)
        if session.state not in _PICKING_AGAIN:
            raise SessionError(
                f"session {name}: cannot pick again in a session that is {session.state}; reopen it first"
            )
        states = [MicrographState.FAILED] if which is Which.FAILED else _RECORDED
        chosen = [
            record
            for record in reversed(self._journal.micrographs(session.id, states))
            if (which is not Which.OUTDATED or record.outdated) and _matches(record.name, glob)
        ]
        names = [record.name for record in chosen if not record.source_missing]
        if glob is not None and not chosen:
            kind = "" if which is Which.RECORDED else f"{which} "
            raise UsageError(f"session {name}: no {kind}micrograph that is recorded matches {glob!r}")
        ready, waiting = self._journal.pick_again(session.id, names, self._clock.wall())
        self._pipeline.scanner.look_again(name, waiting)
        self._pipeline.dispatcher.ring()
        return Repicked(self._view(session), len(ready) + len(waiting), len(chosen) - len(names))

    def _changed_params(self, name: str) -> SessionView:
        session = self._journal.session(name)
        self._publisher.params(session)
        return self._view(session)

    def _step(self, name: str, verb: Verb) -> SessionView:
        return self._changed(self._journal.advance(name, verb, self._clock.wall()))

    def _changed(self, session: SessionRecord) -> SessionView:
        """Let the loops notice a change, and show it."""
        self._publisher.state(session.spec.name, session.state)
        self._pipeline.scanner.wake()
        self._pipeline.dispatcher.ring()
        return self._view(session)

    def _check_not_taken(self, spec: SessionSpec, real: Mapping[Path, str]) -> None:
        """Refuse the name of another session, and the output directory that holds, or will hold, its rows."""
        for other in self._journal.sessions():
            if other.spec.name == spec.name:
                raise SessionError(f"session {spec.name} exists already: reopen it, or take another name")
            taken = other.spec.out_dir
            if taken == spec.out_dir or real.get(taken, str(taken)) == real[spec.out_dir]:
                raise SessionError(
                    f"{spec.out_dir} is the output directory of session {other.spec.name}: give another one"
                )

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

    def micrographs(self, name: str, states: Collection[str], limit: int) -> list[MicrographView]:
        """Return the micrographs of a session in some states, the newest first."""
        session = self._journal.session(name)
        found = self._journal.micrographs(session.id, map(MicrographState, states), limit)
        return list(map(_micrograph, found))

    def daemon(self) -> DaemonView:
        """Return what there is to know about the daemon itself."""
        return DaemonView(__version__, self._settings.notices, self.page, self._pipeline.devices)

    def liveness(self) -> Health:
        """Tell whether a restart is needed."""
        if self._pipeline.failure is not None:
            return Health((str(self._pipeline.failure),))
        return Health(tuple(self._pipeline.heartbeats.stale(STALE_AFTER_S)))

    def readiness(self) -> Health:
        """Tell whether micrographs are being picked and recorded."""
        reasons = list(self.liveness().reasons)
        if (not_ready := self._pipeline.not_ready) is not None:
            reasons.append(not_ready)
        try:
            names = [session.spec.name for session in self._journal.sessions(WATCHING)]
        except DrpwatchError as error:
            return Health((*reasons, str(error)))
        for name in names:
            unreadable = self._pipeline.scanner.unreadable(name)
            reasons += [] if unreadable is None else [unreadable]
            reasons += self._pipeline.held_back(name)
        return Health(tuple(reasons), self._pipeline.away)

    def _view(self, session: SessionRecord) -> SessionView:
        spec = session.spec
        totals = self._journal.totals(session.id)
        watched = session.state in WATCHING
        problems = (
            self._pipeline.problems(spec.name) if watched else self._pipeline.recorder.problems(spec.name)
        )
        weights = session.params.weights
        return SessionView(
            name=spec.name,
            state=session.state,
            watch_root=spec.watch_root,
            out_dir=spec.out_dir,
            glob=spec.glob,
            micrograph_prefix=spec.micrograph_prefix,
            params=spec.params,
            params_version=session.params.version,
            weights_sha256=None if weights is None else weights.sha256,
            pixel_size_angstrom=session.pixel_size_angstrom,
            created_at=session.created_at,
            changed_at=session.changed_at,
            last_recorded_at=totals.last_recorded_at,
            micrographs=MicrographCounts(totals.waiting, totals.ready, totals.picked, totals.failed),
            outdated=self._journal.count_outdated(session.id),
            picks=totals.picks,
            micrographs_per_hour=self._rate(session, totals.picked + totals.failed),
            problems=(*problems, *((session.reason,) if session.reason else ())),
            outputs=SessionOutputs(session, self._journal).files,
            behind=session.id in self._journal.sessions_behind(),
            expected_end_at=session.expected_end_at,
            backfill=session.backfill,
            no_events=self._pipeline.scanner.no_events(spec.name),
            sources_missing=totals.sources_missing,
            oldest_unpicked_at=self._journal.oldest_unpicked(session.id) if totals.ready else None,
            idle=watched and self._pipeline.idleness.is_idle(spec.name),
            seen_diameter_angstrom=spec.params.seen_diameter_angstrom(self._journal.enlargement(session.id)),
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


def _micrograph(record: MicrographRecord) -> MicrographView:
    return MicrographView(
        name=record.name,
        generation=record.generation,
        state=record.state,
        reason=record.reason,
        picks=record.n_picks,
        threshold=record.threshold,
        weights_sha256=record.weights_sha256,
        params_version=record.params_version,
        outdated=record.outdated,
        source_missing=record.source_missing,
        first_seen_at=record.first_seen_at,
        ready_at=record.ready_at,
        recorded_at=record.recorded_at,
        seconds=record.seconds,
    )


def _matches(name: str, glob: str | None) -> bool:
    """Tell whether a name, or its last part, matches; `*` stands for anything, slashes included."""
    return glob is None or fnmatchcase(name, glob) or fnmatchcase(name.rpartition("/")[2], glob)


def _real_paths(paths: Iterable[Path]) -> dict[Path, str]:
    """Return where paths lead, over links; those behind a file server that does not answer are left out."""
    real: dict[Path, str] = {}

    def resolve() -> None:
        for path in paths:
            real[path] = os.path.realpath(path)

    thread = threading.Thread(target=resolve, name="real paths", daemon=True)
    thread.start()
    thread.join(_ANSWERS_WITHIN_S)
    return dict(real)
