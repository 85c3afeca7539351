"""The scanner: sees to it that every session that is watched has its lookout."""

from __future__ import annotations

import threading
from collections import deque

from drpwatch.config import Watch
from drpwatch.errors import JournalError
from drpwatch.micrograph import ReadyMicrograph
from drpwatch.service.clock import Clock
from drpwatch.service.dispatch import Dispatcher
from drpwatch.service.heartbeats import Heartbeats
from drpwatch.service.lookout import Lookout
from drpwatch.service.publish import Publisher
from drpwatch.session.journal import Journal
from drpwatch.session.lifecycle import WATCHING, SessionState

LOOP = "scanner"
_LONGEST_WAIT_S = 1.0  # new sessions are noticed within it
_PARTING_S = 2.0  # a lookout that hangs has nothing that could be lost


class Scanner:
    """Keeps one `Lookout` for each session that is watched. It asks no file system itself, so it never hangs."""

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
        self._lookouts: dict[str, Lookout] = {}
        # Asked here, before anybody can stop one in this life: these took their last look in another.
        draining = journal.sessions((SessionState.DRAINING,))
        self._drained_before = {session.spec.name for session in draining}
        self._returned: deque[tuple[ReadyMicrograph, str]] = deque()
        self._again: deque[tuple[str, list[str]]] = deque()

    def configure(self, config: Watch) -> None:
        """Have every session watched with other settings from now on; what settles begins anew."""
        self._config = config
        for lookout in tuple(self._lookouts.values()):
            lookout.configure(config)

    def wake(self) -> None:
        """Let the next looks come now: a session has changed."""
        self._wake.set()
        for lookout in tuple(self._lookouts.values()):
            lookout.wake()

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
        lookout = self._lookouts.get(session)
        return () if lookout is None else lookout.problems

    def no_events(self, session: str) -> str | None:
        """Return why a session's files are found by scans alone; None while the kernel tells of them, too."""
        lookout = self._lookouts.get(session)
        return None if lookout is None else lookout.no_events

    def unreadable(self, session: str) -> str | None:
        """Return why a session's watch root cannot be read at all."""
        lookout = self._lookouts.get(session)
        return None if lookout is None else lookout.unreadable

    def unnoted(self, session: str) -> str | None:
        """Return why the journal does not take what is found of a session."""
        lookout = self._lookouts.get(session)
        return None if lookout is None else lookout.unnoted

    def run(self, stop: threading.Event) -> None:
        """Keep lookouts until stopped."""
        while not stop.is_set():
            self._heartbeats.beat(LOOP)
            self._wake.clear()
            self._round(stop)
            self._wake.wait(_LONGEST_WAIT_S)
        for lookout in self._lookouts.values():
            lookout.wake()
        for lookout in self._lookouts.values():
            lookout.join(_PARTING_S)
        self._heartbeats.end(LOOP)

    def _round(self, stop: threading.Event) -> None:
        """Begin with new sessions, part with ended ones, and hand on what was put back."""
        try:
            names = [session.spec.name for session in self._journal.sessions(WATCHING)]
        except JournalError as error:
            self._publisher.problem("journal", "", str(error))
            return
        self._publisher.over("journal", "")
        for lookout in [one for one in self._lookouts.values() if not one.is_alive]:
            lookout.take_back()
            del self._lookouts[lookout.name]
        for name in names:
            if name not in self._lookouts and not stop.is_set():
                self._lookouts[name] = self._lookout(name)
                self._lookouts[name].start(stop)
        self._hand_on()
        for lookout in self._lookouts.values():
            lookout.tell_if_hanging()

    def _hand_on(self) -> None:
        """Give each lookout what concerns its session."""
        while self._again:
            name, names = self._again.popleft()
            if name in self._lookouts:  # else a later one begins with what the journal says
                self._lookouts[name].look_again(names)
        while self._returned:
            ready, reason = self._returned.popleft()
            lookout = self._lookouts.get(ready.session) or self._lookout(ready.session)
            lookout.put_back(ready, reason)
            if not lookout.is_alive:
                lookout.take_back()

    def _lookout(self, name: str) -> Lookout:
        after_restart = name in self._drained_before
        self._drained_before.discard(name)
        return Lookout(
            name,
            self._journal,
            self._config,
            self._dispatcher,
            self._publisher,
            self._clock,
            after_restart=after_restart,
        )
