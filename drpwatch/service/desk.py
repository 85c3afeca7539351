"""The desk: what is to be recorded of one session, and the thread that writes it while there is something to write.

Each session has its own, for a file server that does not answer holds whoever writes to it, without end. The
others go on, and the one that hangs is told of.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import replace

from drpwatch.errors import DrpwatchError, JournalError, OutputError, StarError
from drpwatch.micrograph import Outcome
from drpwatch.service.clock import Clock
from drpwatch.service.dispatch import Dispatcher
from drpwatch.service.publish import Publisher
from drpwatch.session.journal import Journal
from drpwatch.session.outputs import SessionOutputs
from drpwatch.session.records import SessionRecord

HANGS_AFTER_S = 20.0
"""One file, or the rows of one micrograph, that take longer are told of."""

_RETRY_S = (1.0, 2.0, 5.0, 10.0)
_QUICK_S = 0.2  # a rebuild that can be done as often as it is called for
_REST = 10.0  # so many times what a rebuild of the tables took pass before the next, or nothing else is done
_LONGEST_REST_S = 30.0
MOST_HELD = 8
"""With so many outcomes nothing more of the session is handed out until half of them are recorded."""


class Desk:
    """One session's outputs, and what could not be written yet, oldest first.

    The methods are for the recorder's thread; `problem` is for any.
    """

    def __init__(
        self,
        session: SessionRecord,
        journal: Journal,
        dispatcher: Dispatcher,
        publisher: Publisher,
        clock: Clock,
        abandon: threading.Event,
    ) -> None:
        self.name = session.spec.name
        self.failure: Exception | None = None
        """An error that nobody foresaw: the daemon has to end."""
        self.looked_after = threading.Event()
        """Set once the outputs were as the journal says, or had a problem."""
        self._outputs = SessionOutputs(session, journal, self._beat)
        self._dispatcher = dispatcher
        self._publisher = publisher
        self._clock = clock
        self._abandon = abandon
        self._lock = threading.Lock()
        self._held: deque[Outcome] = deque()
        self._refuses = False  # nothing more of the session is handed out
        self._since_s: float | None = None  # when the thread last made progress; None while there is none
        self._thread: threading.Thread | None = None
        self._problem: str | None = None
        self._told = False  # of a problem that may not be over
        self._attempts = 0
        self._next_try_s = 0.0
        self._next_rebuild_s = 0.0

    def put(self, outcome: Outcome) -> None:
        """Have an outcome recorded, behind those that wait already."""
        with self._lock:
            self._held.append(outcome)
        self._admit()
        if self._problem is None:
            self._begin()

    def look(self) -> None:
        """Once in a while: try again what is held, and repair what is not as the journal says."""
        if self._clock.monotonic() >= self._next_try_s:
            self._begin()

    def finish(self) -> None:
        """Try a last time to record what is held."""
        if self._held:
            self._begin()

    def join(self, timeout_s: float) -> None:
        """Wait for the end of what is being done."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def leave(self) -> None:
        """Have nothing to do with the session any more."""
        self._dispatcher.release(self.name)

    @property
    def is_free(self) -> bool:
        """Whether nothing is held, and nothing being done."""
        with self._lock:
            return not self._held and self._since_s is None

    @property
    def is_at_work(self) -> bool:
        """Whether something is being done that makes progress."""
        with self._lock:
            return self._since_s is not None and not self._is_silent(self._since_s)

    @property
    def problem(self) -> str | None:
        """What keeps outcomes from being recorded, or None."""
        since_s = self._since_s
        if since_s is not None and self._is_silent(since_s):
            return self._hanging
        return self._problem

    def tell_if_hanging(self) -> None:
        """Tell of a thread that makes no progress."""
        if self.problem == self._hanging:
            self._told = True
            self._publisher.problem("output", self.name, self._hanging)

    @property
    def _hanging(self) -> str:
        return (
            f"session {self.name}: writing to {self._outputs.directory} takes longer than {HANGS_AFTER_S:.0f} s:"
            " its file server may not answer"
        )

    def _is_silent(self, since_s: float) -> bool:
        return self._clock.monotonic() - since_s > HANGS_AFTER_S

    def _begin(self) -> None:
        """Start the thread, unless there is one."""
        with self._lock:
            if self._since_s is not None:
                return
            self._since_s = self._clock.monotonic()
            self._thread = threading.Thread(target=self._work, name=f"recorder-{self.name}", daemon=True)
        self._thread.start()

    def _admit(self) -> None:
        """Have more of the session handed out, or not, as there is room and no problem."""
        with self._lock:
            most = MOST_HELD // 2 if self._refuses else MOST_HELD - 1
            refuses = self._problem is not None or len(self._held) > most
            if refuses != self._refuses:
                self._refuses = refuses
                (self._dispatcher.hold if refuses else self._dispatcher.release)(self.name)

    # ---- in the thread --------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while self._since_s is not None:
                more = False
                if self._held:
                    self._record_held()
                else:
                    more = self._look_after()
                self.looked_after.set()
                with self._lock:  # whoever puts an outcome here from now on starts another thread
                    if not (more or self._held) or self._problem is not None or self._abandon.is_set():
                        self._since_s = None
        except Exception as error:  # noqa: BLE001 - top of a stage thread: the daemon ends with it
            self.failure, self._since_s = error, None

    def _beat(self) -> None:
        """Say that something came to its end."""
        self._since_s = self._clock.monotonic()

    def _record_held(self) -> None:
        """Record what is held, in order, until the disk refuses, or it is abandoned."""
        while self._held:
            if self._abandon.is_set():
                return
            self._beat()
            outcome = self._held[0]
            try:
                self._bring_up()
                self._record(outcome)
            except (OutputError, JournalError) as error:
                self._hold(error)
                return
            with self._lock:
                self._held.popleft()
            self._dispatcher.done(outcome.ready)
            self._admit()
        try:
            self._bring_up()
        except (OutputError, JournalError) as error:
            self._hold(error)
        else:
            self._go_on()

    def _bring_up(self) -> None:
        """Rebuild the tables where they are behind, unless that took long and was done just now."""
        started_s = self._clock.monotonic()
        if not self._outputs.behind or started_s < self._next_rebuild_s:
            return
        self._outputs.recover()
        now_s = self._clock.monotonic()
        took_s = now_s - started_s
        self._next_rebuild_s = now_s + min(_REST * took_s, _LONGEST_REST_S) if took_s > _QUICK_S else 0.0

    def _record(self, outcome: Outcome) -> None:
        """Record one outcome; what cannot be written as it is becomes a failure with the reason."""
        started = time.perf_counter()
        try:
            recorded = self._outputs.record(outcome, self._clock.wall())
        except (OutputError, JournalError):
            raise
        except Exception as error:
            if outcome.failure is not None:
                raise JournalError(f"unexpected {type(error).__name__} while recording: {error}") from error
            reason = str(error)
            if not isinstance(error, StarError):
                self._publisher.crashed("recorder", error)
                reason = f"unexpected {type(error).__name__} while recording: {error}"
            outcome = replace(outcome, picks=None, failure=reason)
            recorded = self._outputs.record(outcome, self._clock.wall())
        if recorded is not None:
            self._publisher.recorded(recorded, time.perf_counter() - started)

    def _look_after(self) -> bool:
        """Repair outputs that are dirty, missing or too long; return whether there may be more to do."""
        more = False
        try:
            self._bring_up()
            if not self._outputs.behind:
                self._outputs.recover()
            more = self._outputs.catch_up()
            self._publisher.free(self.name, self._outputs.free_bytes)
        except (OutputError, JournalError) as error:
            self._hold(error)
        else:
            self._go_on()
        return more

    def _hold(self, error: DrpwatchError) -> None:
        self._problem = str(error)
        self._next_try_s = self._clock.monotonic() + _RETRY_S[min(self._attempts, len(_RETRY_S) - 1)]
        self._attempts += 1
        self._admit()
        self._told = True
        kind = "journal" if isinstance(error, JournalError) else "output"
        self._publisher.problem(kind, self.name, str(error))

    def _go_on(self) -> None:
        self._problem, self._attempts, self._next_try_s = None, 0, 0.0
        self._admit()
        if self._told:
            self._told = False
            self._publisher.over("output", self.name)
            self._publisher.over("journal", self.name)
