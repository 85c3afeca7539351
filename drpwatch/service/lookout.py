"""The lookout: one thread that looks after the files of one session.

Each session has its own, for a file server that does not answer holds whoever asks it, without end. The
others go on, and the one that hangs is told of.
"""

from __future__ import annotations

import threading
from collections import deque

from drpwatch.config import Watch
from drpwatch.errors import JournalError, OutputError
from drpwatch.micrograph import ReadyMicrograph
from drpwatch.service.clock import Clock
from drpwatch.service.dispatch import Dispatcher
from drpwatch.service.publish import Publisher
from drpwatch.service.watching import SessionWatch
from drpwatch.session.journal import Journal
from drpwatch.session.lifecycle import WATCHING, SessionState
from drpwatch.session.records import SessionRecord

HANGS_AFTER_S = 60.0
"""A look that takes longer is told of: the first one at 100,000 files on a slow server takes some seconds."""

_LONGEST_WAIT_S = 1.0  # stops and pauses are noticed within it
_SHORTEST_WAIT_S = 0.02  # a burst of hints is one look


class Lookout:
    """The thread of one session's `SessionWatch`; it ends with the session."""

    def __init__(
        self,
        name: str,
        journal: Journal,
        config: Watch,
        dispatcher: Dispatcher,
        publisher: Publisher,
        clock: Clock,
        *,
        after_restart: bool,
    ) -> None:
        self.name = name
        self.unnoted: str | None = None
        """Why the journal does not take what is found; None while it does."""
        self._journal = journal
        self._config = config
        self._dispatcher = dispatcher
        self._publisher = publisher
        self._clock = clock
        self._after_restart = after_restart
        self._wake = threading.Event()
        self._watch: SessionWatch | None = None
        self._watch_config = config  # of the watch that there is
        self._looking_since_s: float | None = None
        self._returned: deque[tuple[ReadyMicrograph, str]] = deque()
        self._again: deque[list[str]] = deque()
        self._thread: threading.Thread | None = None

    def start(self, stop: threading.Event) -> None:
        """Begin to look, until stopped or the session ends."""
        self._thread = threading.Thread(
            target=self._run, args=(stop,), name=f"lookout-{self.name}", daemon=True
        )
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the thread, which a file server may hold up."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs, or hangs."""
        return self._thread is not None and self._thread.is_alive()

    def configure(self, config: Watch) -> None:
        """Watch with other settings from the next look on."""
        self._config = config
        self._wake.set()

    def wake(self) -> None:
        """Let the next look come now."""
        self._wake.set()

    def put_back(self, ready: ReadyMicrograph, reason: str) -> None:
        """Have a micrograph settle anew: it was not whole when it was read."""
        self._returned.append((ready, reason))
        self._wake.set()

    def look_again(self, names: list[str]) -> None:
        """Have names settle anew that the journal has waiting by now."""
        self._again.append(names)
        self._wake.set()

    @property
    def problems(self) -> tuple[str, ...]:
        """What keeps files from being seen, one sentence each."""
        hanging = self._hanging
        if hanging is not None:
            return (hanging,)
        return () if self._watch is None else self._watch.problems

    @property
    def unreadable(self) -> str | None:
        """Why the watch root cannot be read at all; None while it can."""
        return self._hanging or (None if self._watch is None else self._watch.unreadable)

    @property
    def no_events(self) -> str | None:
        """Why files are found by scans alone; None while the kernel tells of them, too."""
        return None if self._watch is None else self._watch.no_events

    def tell_if_hanging(self) -> None:
        """Tell of a look that does not come to an end; for another thread to call."""
        hanging = self._hanging
        if hanging is not None and self._watch is not None:
            self._publisher.hangs(self.name, f"{self._watch.root}: {_SILENT}")

    @property
    def _hanging(self) -> str | None:
        since_s, watch = self._looking_since_s, self._watch
        if since_s is None or watch is None:
            return None
        looking_s = self._clock.monotonic() - since_s
        if looking_s < HANGS_AFTER_S:
            return None
        return f"{watch.root}: {_SILENT}; waiting for it since {looking_s:.0f} s"

    # ---- in the thread --------------------------------------------------------------------------

    def _run(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                self._wake.clear()
                if not self._round():
                    return
                due_s = _LONGEST_WAIT_S if self._watch is None else self._watch.due_in_s()
                self._wake.wait(min(due_s, _LONGEST_WAIT_S))
                stop.wait(_SHORTEST_WAIT_S)
        finally:
            if self._watch is not None:
                self._watch.close()

    def _round(self) -> bool:
        """Look once; an error costs one round. Return whether the session is still watched."""
        self._looking_since_s = self._clock.monotonic()
        try:
            session = self._journal.session(self.name)
            if session.state not in WATCHING:
                return False
            self.take_back()
            self._look(session)
        except (JournalError, OutputError) as error:
            self.unnoted = str(error)
            self._publisher.problem("journal", self.name, str(error))
        except Exception as error:  # noqa: BLE001 - top of a stage thread: one session, one round
            self._publisher.crashed(f"lookout-{self.name}", error)
        else:
            self.unnoted = None
            self._publisher.over("journal", self.name)
        finally:
            self._looking_since_s = None
        return True

    def _look(self, session: SessionRecord) -> None:
        config = self._config
        if (
            self._watch is not None
            and config != self._watch_config
            and session.state is not SessionState.DRAINING
        ):
            self._watch.close()
            self._watch = None
        if self._watch is None:
            self._watch_config = config
            self._watch = SessionWatch(
                session,
                self._journal,
                config,
                self._publisher,
                self._clock,
                self._wake,
                after_restart=self._after_restart,
            )
        if self._watch.look(session):
            self._dispatcher.ring()

    def take_back(self) -> None:
        """Let what was put back wait again; here, so that no look comes between its two halves.

        Also for another thread to call, once this one has ended.
        """
        while self._again:
            names = self._again.popleft()
            if self._watch is not None:  # else it begins with what the journal says
                self._watch.look_again(names)
        while self._returned:
            ready, reason = self._returned.popleft()
            try:
                self._journal.put_back(ready.micrograph_id, reason)
            except (JournalError, OutputError) as error:  # it stays ready and is read again
                self._publisher.problem("journal", ready.session, str(error))
            else:
                self._publisher.put_back(ready.session, ready.name, reason)
                if self._watch is not None:
                    self._watch.settle_again(ready, reason)
            self._dispatcher.done(ready)


_SILENT = "the watch directory's file server does not answer"
