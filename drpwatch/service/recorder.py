"""The recorder: the one thread that writes outputs and outcomes."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace

from drpwatch.errors import DrpwatchError, JournalError, OutputError, StarError
from drpwatch.micrograph import Outcome
from drpwatch.service.channel import Channel
from drpwatch.service.clock import Clock
from drpwatch.service.dispatch import Dispatcher
from drpwatch.service.heartbeats import Heartbeats
from drpwatch.service.publish import Publisher
from drpwatch.session.journal import Journal
from drpwatch.session.lifecycle import WATCHING
from drpwatch.session.outputs import SessionOutputs
from drpwatch.session.records import SessionRecord

LOOP = "recorder"
_RETRY_S = (1.0, 2.0, 5.0, 10.0)
_CHECK_S = 1.0  # how often outputs that wait for nothing are looked after
_QUICK_S = 0.2  # a rebuild that can be done as often as it is called for
_REST = 10.0  # so many times what a rebuild of the tables took pass before the next, or nothing else is done
_LONGEST_REST_S = 30.0


@dataclass(slots=True)
class _Desk:
    """One session's outputs, and what could not be written yet, oldest first."""

    outputs: SessionOutputs
    held: deque[Outcome] = field(default_factory=deque)
    problem: str | None = None
    attempts: int = 0
    next_try_s: float = 0.0
    next_rebuild_s: float = 0.0


class Recorder:
    """Records outcomes; where a disk does not take them they are kept and tried again."""

    def __init__(
        self,
        journal: Journal,
        outcomes: Channel[Outcome],
        dispatcher: Dispatcher,
        publisher: Publisher,
        heartbeats: Heartbeats,
        clock: Clock,
    ) -> None:
        self._journal = journal
        self._outcomes = outcomes
        self._dispatcher = dispatcher
        self._publisher = publisher
        self._heartbeats = heartbeats
        self._clock = clock
        self._desks: dict[str, _Desk] = {}
        self._next_check_s = 0.0
        self._abandon = threading.Event()
        self.recovered = threading.Event()
        """Set once the outputs of every live session are as the journal says, or have a problem."""

    def problems(self, session: str) -> tuple[str, ...]:
        """Return what keeps a session's outcomes from being recorded."""
        desk = self._desks.get(session)
        return (desk.problem,) if desk is not None and desk.problem is not None else ()

    def run(self, no_more: threading.Event, abandon: threading.Event) -> None:
        """Bring outputs in step with the journal, then record.

        Ends when `no_more` is set and the channel is empty, or abandoned.
        """
        self._abandon = abandon
        self._heartbeats.beat(LOOP)
        for session in self._journal.sessions(WATCHING):
            self._look_after(self._desk(session))
        self.recovered.set()
        while not abandon.is_set():
            self._heartbeats.beat(LOOP)
            outcome = self._outcomes.get()
            try:
                if outcome is not None:
                    self._take_in(outcome)
                elif no_more.is_set():
                    break
                self._check()
            except JournalError as error:
                self._publisher.problem("journal", "", str(error))
                no_more.wait(_CHECK_S)
        for desk in self._desks.values():
            if desk.held:
                self._try(desk)
        self._heartbeats.end(LOOP)

    def _take_in(self, outcome: Outcome) -> None:
        """Record an outcome now, or behind those of its session that wait already."""
        try:
            desk = self._desk(self._journal.session(outcome.ready.session))
        except DrpwatchError:
            self._dispatcher.done(outcome.ready)  # it stays ready in the journal
            raise
        desk.held.append(outcome)
        if desk.problem is None:
            self._try(desk)

    def _check(self) -> None:
        """Once in a while: try again what was held, and rebuild what became dirty."""
        now_s = self._clock.monotonic()
        if now_s < self._next_check_s:
            return
        self._next_check_s = now_s + _CHECK_S
        behind = self._journal.sessions_behind()
        # Also of a session that has ended, where somebody asked for another threshold, or a rebuild.
        at_work = [one for one in self._journal.sessions() if one.state in WATCHING or one.id in behind]
        for session in at_work:
            desk = self._desk(session)
            if now_s < desk.next_try_s:
                continue
            if desk.held:
                self._try(desk)
            else:
                self._look_after(desk)
        names = {session.spec.name for session in at_work}
        for name in [name for name, desk in self._desks.items() if name not in names and not desk.held]:
            self._dispatcher.release(name)
            del self._desks[name]

    def _try(self, desk: _Desk) -> None:
        """Record what is held, in order, until the disk refuses, or it is abandoned."""
        while desk.held:
            if self._abandon.is_set():
                return
            self._heartbeats.beat(LOOP)
            outcome = desk.held[0]
            try:
                self._bring_up(desk)
                self._record(desk, outcome)
            except (OutputError, JournalError) as error:
                self._hold(desk, outcome.ready.session, error)
                return
            desk.held.popleft()
            self._dispatcher.done(outcome.ready)
        try:
            self._bring_up(desk)
        except (OutputError, JournalError) as error:
            self._hold(desk, desk.outputs.session, error)
        else:
            self._go_on(desk)

    def _bring_up(self, desk: _Desk) -> None:
        """Rebuild the tables where they are behind, unless that took long and was done just now."""
        started_s = self._clock.monotonic()
        if not desk.outputs.behind or started_s < desk.next_rebuild_s:
            return
        desk.outputs.recover()
        now_s = self._clock.monotonic()
        took_s = now_s - started_s
        desk.next_rebuild_s = now_s + min(_REST * took_s, _LONGEST_REST_S) if took_s > _QUICK_S else 0.0

    def _record(self, desk: _Desk, outcome: Outcome) -> None:
        """Record one outcome; what cannot be written as it is becomes a failure with the reason."""
        started = time.perf_counter()
        try:
            recorded = desk.outputs.record(outcome, self._clock.wall())
        except (OutputError, JournalError):
            raise
        except Exception as error:
            if outcome.failure is not None:
                raise JournalError(f"unexpected {type(error).__name__} while recording: {error}") from error
            reason = str(error)
            if not isinstance(error, StarError):
                self._publisher.crashed(LOOP, error)
                reason = f"unexpected {type(error).__name__} while recording: {error}"
            outcome = replace(outcome, picks=None, failure=reason)
            recorded = desk.outputs.record(outcome, self._clock.wall())
        if recorded is not None:
            self._publisher.recorded(recorded, time.perf_counter() - started)

    def _look_after(self, desk: _Desk) -> None:
        """Repair outputs that are dirty, missing or too long."""
        try:
            self._bring_up(desk)
            if not desk.outputs.behind:
                desk.outputs.recover()
            if desk.outputs.catch_up():
                self._next_check_s = 0.0  # there may be more
            self._publisher.free(desk.outputs.session, desk.outputs.free_bytes)
        except (OutputError, JournalError) as error:
            self._hold(desk, desk.outputs.session, error)
        else:
            self._go_on(desk)

    def _hold(self, desk: _Desk, session: str, error: DrpwatchError) -> None:
        desk.problem = str(error)
        desk.next_try_s = self._clock.monotonic() + _RETRY_S[min(desk.attempts, len(_RETRY_S) - 1)]
        desk.attempts += 1
        self._dispatcher.hold(session)
        self._publisher.problem(
            "journal" if isinstance(error, JournalError) else "output", session, str(error)
        )

    def _go_on(self, desk: _Desk) -> None:
        if desk.problem is not None:
            desk.problem, desk.attempts, desk.next_try_s = None, 0, 0.0
            self._dispatcher.release(desk.outputs.session)
            self._publisher.over("output", desk.outputs.session)
            self._publisher.over("journal", desk.outputs.session)

    def _desk(self, session: SessionRecord) -> _Desk:
        name = session.spec.name
        if name not in self._desks:
            self._desks[name] = _Desk(SessionOutputs(session, self._journal))
        return self._desks[name]
