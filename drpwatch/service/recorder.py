"""The recorder: sees to it that what there is to record of each session comes to its desk."""

from __future__ import annotations

import threading

from drpwatch.errors import DrpwatchError, JournalError
from drpwatch.micrograph import Outcome
from drpwatch.service.channel import Channel
from drpwatch.service.clock import Clock
from drpwatch.service.desk import Desk
from drpwatch.service.dispatch import Dispatcher
from drpwatch.service.heartbeats import Heartbeats
from drpwatch.service.publish import Publisher
from drpwatch.session.journal import Journal
from drpwatch.session.lifecycle import WATCHING
from drpwatch.session.records import SessionRecord

LOOP = "recorder"
_CHECK_S = 1.0  # how often outputs that wait for nothing are looked after
_PARTING_S = 0.1  # how often it is asked whether a desk that is still at work hangs


class Recorder:
    """Keeps one `Desk` for each session. It asks no file system of outputs itself, so it never hangs."""

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
        self._desks: dict[str, Desk] = {}
        self._next_check_s = 0.0
        self._abandon = threading.Event()
        self.recovered = threading.Event()
        """Set once the outputs of every live session are as the journal says, or have a problem."""

    def problems(self, session: str) -> tuple[str, ...]:
        """Return what keeps a session's outcomes from being recorded."""
        desk = self._desks.get(session)
        problem = None if desk is None else desk.problem
        return () if problem is None else (problem,)

    def run(self, no_more: threading.Event, abandon: threading.Event) -> None:
        """Bring outputs in step with the journal, then record.

        Ends when `no_more` is set and the channel is empty, or abandoned.
        """
        self._abandon = abandon
        self._heartbeats.beat(LOOP)
        first = [self._desk(session) for session in self._journal.sessions(WATCHING)]
        for desk in first:
            desk.look()
        while not abandon.is_set():
            self._heartbeats.beat(LOOP)
            self._note_recovery(first)
            self._raise_failure()
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
        self._part()
        self._heartbeats.end(LOOP)

    def _note_recovery(self, first: list[Desk]) -> None:
        if all(desk.looked_after.is_set() or desk.problem is not None for desk in first):
            self.recovered.set()

    def _raise_failure(self) -> None:
        """End the daemon where a desk met what nobody foresaw."""
        for desk in self._desks.values():
            if desk.failure is not None:
                raise desk.failure

    def _take_in(self, outcome: Outcome) -> None:
        """Put an outcome on the desk of its session."""
        try:
            desk = self._desk(self._journal.session(outcome.ready.session))
        except DrpwatchError:
            self._dispatcher.done(outcome.ready)  # it stays ready in the journal
            raise
        desk.put(outcome)

    def _check(self) -> None:
        """Once in a while: have every session's outputs looked after."""
        now_s = self._clock.monotonic()
        if now_s < self._next_check_s:
            return
        self._next_check_s = now_s + _CHECK_S
        behind = self._journal.sessions_behind()
        # Also of a session that has ended, where somebody asked for another threshold, or a rebuild.
        at_work = [one for one in self._journal.sessions() if one.state in WATCHING or one.id in behind]
        for session in at_work:
            self._desk(session).look()
        names = {session.spec.name for session in at_work}
        for name, desk in list(self._desks.items()):
            desk.tell_if_hanging()
            if name not in names and desk.is_free:
                desk.leave()
                del self._desks[name]

    def _part(self) -> None:
        """Let every desk finish, but for those that a file server holds: what they have is ready in the journal."""
        for desk in self._desks.values():
            if not self._abandon.is_set():
                desk.finish()
        for desk in self._desks.values():
            while desk.is_at_work:
                self._heartbeats.beat(LOOP)
                desk.join(_PARTING_S)
        self._raise_failure()

    def _desk(self, session: SessionRecord) -> Desk:
        name = session.spec.name
        if name not in self._desks:
            self._desks[name] = Desk(
                session, self._journal, self._dispatcher, self._publisher, self._clock, self._abandon
            )
        return self._desks[name]
