"""The scanner: one thread that looks after the files of all sessions."""

from __future__ import annotations

import threading
from collections import deque

from drpwatch.config import Watch
from drpwatch.errors import JournalError, OutputError
from drpwatch.micrograph import ReadyMicrograph
from drpwatch.service.clock import Clock
from drpwatch.service.dispatch import Dispatcher
from drpwatch.service.heartbeats import Heartbeats
from drpwatch.service.publish import Publisher
from drpwatch.service.watching import SessionWatch
from drpwatch.session.journal import Journal
from drpwatch.session.lifecycle import WATCHING
from drpwatch.session.records import SessionRecord

LOOP = "scanner"
_LONGEST_WAIT_S = 1.0  # new sessions and stops are noticed within it
_SHORTEST_WAIT_S = 0.02  # a burst of hints is one look


class Scanner:
    """Keeps one `SessionWatch` for each session that is watched."""

    def __init__(
        self,
        journal: Journal,
        config: Watch,
        dispatcher: Dispatcher,
        publisher: Publisher,
        heartbeats: Heartbeats,
        clock: Clock,
    ) -> None:
        self._journal = journal
        self._config = config
        self._dispatcher = dispatcher
        self._publisher = publisher
        self._heartbeats = heartbeats
        self._clock = clock
        self._wake = threading.Event()
        self._watches: dict[str, SessionWatch] = {}
        self._first_round = True
        self._returned: deque[tuple[ReadyMicrograph, str]] = deque()
        self._again: deque[tuple[str, list[str]]] = deque()

    def wake(self) -> None:
        """Let the next look come now: a session has changed."""
        self._wake.set()

    def put_back(self, ready: ReadyMicrograph, reason: str) -> None:
        """Have a micrograph settle anew: it was not whole when it was read."""
        self._returned.append((ready, reason))
        self._wake.set()

    def look_again(self, session: str, names: list[str]) -> None:
        """Have names settle anew that the journal has waiting by now: they are to be picked again."""
        self._again.append((session, names))
        self._wake.set()

    def problems(self, session: str) -> tuple[str, ...]:
        """Return what keeps a session's files from being seen."""
        watch = self._watches.get(session)
        return () if watch is None else watch.problems

    def unreadable(self, session: str) -> str | None:
        """Return why a session's watch root cannot be read at all."""
        watch = self._watches.get(session)
        return None if watch is None else watch.unreadable

    def run(self, stop: threading.Event) -> None:
        """Look until stopped."""
        try:
            while not stop.is_set():
                self._heartbeats.beat(LOOP)
                self._wake.clear()
                self._round(stop)
                due_s = min((watch.due_in_s() for watch in self._watches.values()), default=_LONGEST_WAIT_S)
                self._wake.wait(min(due_s, _LONGEST_WAIT_S))
                stop.wait(_SHORTEST_WAIT_S)
        finally:
            for watch in self._watches.values():
                watch.close()
            self._heartbeats.end(LOOP)

    def _round(self, stop: threading.Event) -> None:
        """Give each session its look; one that fails leaves the others alone."""
        try:
            sessions = self._journal.sessions(WATCHING)
        except JournalError as error:
            self._publisher.problem("journal", "", str(error))
            return
        self._publisher.over("journal", "")
        self._keep_in_step(sessions)
        self._take_back()
        for session in sessions:
            if stop.is_set():
                return
            self._heartbeats.beat(LOOP)
            self._look(session)
        self._first_round = False

    def _look(self, session: SessionRecord) -> None:
        name = session.spec.name
        try:
            if name not in self._watches:
                self._watches[name] = SessionWatch(
                    session,
                    self._journal,
                    self._config,
                    self._publisher,
                    self._clock,
                    self._wake,
                    after_restart=self._first_round,
                )
            if self._watches[name].look(session):
                self._dispatcher.ring()
        except (JournalError, OutputError) as error:
            self._publisher.problem("journal", name, str(error))
        except Exception as error:  # noqa: BLE001 - top of a stage thread: one session, one round
            self._publisher.crashed(LOOP, error)
        else:
            self._publisher.over("journal", name)

    def _keep_in_step(self, sessions: list[SessionRecord]) -> None:
        """Drop the watches of sessions that ended."""
        names = {session.spec.name for session in sessions}
        for name in [name for name in self._watches if name not in names]:
            self._watches.pop(name).close()

    def _take_back(self) -> None:
        """Let what was put back wait again; here, so that no look comes between its two halves."""
        while self._again:
            session, names = self._again.popleft()
            if session in self._watches:  # else its watch begins with what the journal says
                self._watches[session].look_again(names)
        while self._returned:
            ready, reason = self._returned.popleft()
            try:
                self._journal.put_back(ready.micrograph_id, reason)
            except (JournalError, OutputError) as error:  # it stays ready and is read again
                self._publisher.problem("journal", ready.session, str(error))
            else:
                self._publisher.put_back(ready.session, ready.name, reason)
                if ready.session in self._watches:
                    self._watches[ready.session].settle_again(ready, reason)
            self._dispatcher.done(ready)
