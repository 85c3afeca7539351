"""One watched session: what its discovery says, written to the journal, up to the end of its draining."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from drpwatch.config import Watch
from drpwatch.errors import ScanFailed
from drpwatch.micrograph import Fingerprint, ReadyMicrograph
from drpwatch.service.admission import refusal
from drpwatch.service.clock import Clock
from drpwatch.service.publish import Publisher
from drpwatch.session.journal import LOOK_AGAIN, Journal
from drpwatch.session.lifecycle import SessionState, Verb
from drpwatch.session.records import MicrographState, SessionRecord
from drpwatch.watch.discovery import GONE, Back, Discovery, Event, Gone, LeftOut, Ready, Rejected, Waiting
from drpwatch.watch.hints import Hints
from drpwatch.watch.scan import NameFilter

DRAIN_GRACE_S = 10.0
"""Beyond the settle time, how long a stopped session waits for a file that does not change."""


@dataclass(frozen=True, slots=True)
class _Unread:
    """A state of a file that looks whole, and could not be read whole."""

    fingerprint: Fingerprint
    reason: str
    since_s: float


class SessionWatch:
    """Looks after the files of one session; used by the thread of its lookout."""

    def __init__(
        self,
        session: SessionRecord,
        journal: Journal,
        config: Watch,
        publisher: Publisher,
        clock: Clock,
        wake: threading.Event,
        *,
        after_restart: bool,
    ) -> None:
        spec = session.spec
        self.name = spec.name
        self.root = spec.watch_root
        self.unreadable: str | None = None
        """Why the root cannot be read; None while it can."""
        self._left_out: tuple[str, ...] = ()
        self._id = session.id
        self._journal = journal
        self._config = config
        self._publisher = publisher
        self._clock = clock
        self._discovery = Discovery(
            spec.watch_root, spec.glob, config.settle_s, config.incomplete_after_s, prefer=config.prefer
        )
        self._hints = Hints(spec.watch_root, NameFilter(spec.glob), wake, enabled=config.hints)
        self._passed_over = journal.passed_over(session.id)
        # What failed without its file being known (it was gone) may come back, so it is not finished.
        self._known: dict[str, Fingerprint | None] = {
            **self._passed_over,
            **journal.fingerprints(session.id),
        }
        # Of these a look tells what became of them, also of those that are gone.
        waiting = journal.micrographs(session.id, [MicrographState.WAITING])
        self._discovery.recall(
            {record.name: record.reason or "" for record in waiting}, journal.missing_sources(session.id)
        )
        self._next_full_s = clock.monotonic()
        self._changed_s: dict[str, float] = {}  # waiting name -> when its reason last changed
        self._unread: dict[str, _Unread] = {}
        self._draining_since_s: float | None = None
        self._last_scan_done = False
        self._allowed: frozenset[str] | None = None  # while draining: the names that are still finished
        if after_restart and session.state is SessionState.DRAINING:
            # Stopped in the life of another process, which took the last look.
            self._draining_since_s = clock.monotonic()
            self._allowed = self._unfinished_names()

    @property
    def problems(self) -> tuple[str, ...]:
        """What keeps files from being seen, one sentence each."""
        return self._left_out if self.unreadable is None else (self.unreadable,)

    @property
    def no_events(self) -> str | None:
        """Why files are found by scans alone; None while the kernel tells of them, too."""
        return self._hints.reason

    def close(self) -> None:
        """Stop listening."""
        self._hints.stop()

    def settle_again(self, ready: ReadyMicrograph, reason: str) -> None:
        """Take it that a micrograph, found whole, could not be read whole."""
        now_s = self._clock.monotonic()
        before = self._unread.get(ready.name)
        same = before is not None and before.fingerprint == ready.fingerprint
        since_s = before.since_s if before is not None and same else now_s
        self._unread[ready.name] = _Unread(ready.fingerprint, reason, since_s)
        self._known.pop(ready.name, None)
        self._changed_s[ready.name] = now_s
        self._discovery.recall({ready.name: reason})  # a look tells what became of it, also if it is gone

    def look_again(self, names: Iterable[str]) -> None:
        """Take it that the journal has these names waiting, though their files may be as they were."""
        names = list(names)
        for name in names:
            self._known.pop(name, None)
            self._unread.pop(name, None)
            self._changed_s[name] = self._clock.monotonic()
        self._discovery.recall(dict.fromkeys(names, LOOK_AGAIN))

    def due_in_s(self) -> float:
        """Return in how many seconds the next look is due."""
        now_s = self._clock.monotonic()
        look_s = self._discovery.next_look_s(now_s)
        full_s = self._next_full_s - now_s
        return max(0.0, full_s if look_s is None else min(look_s, full_s))

    def look(self, session: SessionRecord) -> int:
        """Look once, if something is due or hinted at; return how many micrographs became ready."""
        now_s = self._clock.monotonic()
        draining = session.state is SessionState.DRAINING
        if draining and self._draining_since_s is None:
            self._draining_since_s = self._next_full_s = now_s  # one last look at everything
            self._last_scan_done = False
        elif not draining:
            self._draining_since_s = self._allowed = None
        hinted = self._hints.take()
        full = now_s >= self._next_full_s
        if full:
            self._hints.ensure()
            self._next_full_s = now_s + self._config.poll_interval_s
        elif not hinted and self.due_in_s() > 0:
            return 0
        try:
            events = self._discovery.look(self._known, hinted, now_s, full=full)
        except ScanFailed as error:
            self._failed(str(error), now_s)
            if draining and now_s - (self._draining_since_s or now_s) >= self._patience_s:
                self._drain(now_s, full=True)  # whoever stopped the session may have taken the disk away
            return 0
        if full:
            self.unreadable, self._left_out = None, self._discovery.problems
            self._scanned(now_s, ok=True)
            self._publisher.over("scan", self.name)
        ready = self._take_in([self._judge(event, now_s, draining=draining) for event in events])
        if draining:
            self._drain(now_s, full=full)
        return ready

    def _failed(self, sentence: str, now_s: float) -> None:
        """Conclude nothing from a root that cannot be read, but say so."""
        self.unreadable = sentence
        self._scanned(now_s, ok=False)
        self._publisher.problem("scan", self.name, sentence)

    def _scanned(self, since_s: float, *, ok: bool) -> None:
        took_s = self._clock.monotonic() - since_s
        self._publisher.scanned(self.name, took_s, ok=ok, no_events=self.no_events)

    # ---- events ---------------------------------------------------------------------------------

    def _judge(self, event: Event, now_s: float, *, draining: bool) -> Event:
        """Give up on a file that looks whole and unchanged, but could not be read whole for too long."""
        unread = self._unread.get(event.name)
        if unread is None or not isinstance(event, Ready):
            return event
        patience_s = self._config.incomplete_after_s
        if draining:
            patience_s = min(patience_s, self._patience_s)
        unchanged_s = now_s - unread.since_s
        if event.fingerprint == unread.fingerprint and unchanged_s < patience_s:
            return event
        del self._unread[event.name]
        if event.fingerprint != unread.fingerprint:
            return event
        return Rejected(event.name, f"{unread.reason}, unchanged for {unchanged_s:.0f} s", event.fingerprint)

    def _take_in(self, events: list[Event]) -> int:
        """Write events to the journal, all or none of them."""
        if self._allowed is not None:
            events = [event for event in events if event.name in self._allowed]
        if not events:
            return 0
        failed: dict[str, str] = {}
        try:
            with self._journal.transaction():
                # Asked here: since the look began it may have been paused.
                is_first = self._journal.session(self.name).state is SessionState.WAITING
                is_first = is_first and any(not isinstance(event, Gone | Back | LeftOut) for event in events)
                if is_first:
                    self._journal.advance(self.name, Verb.FOUND, self._clock.wall())
                for event in events:
                    reason = self._write(event)
                    if reason is not None:
                        failed[event.name] = reason
        except BaseException:
            for event in events:  # the next scan finds them anew
                self._discovery.forget(event.name)
            raise
        if is_first:
            self._publisher.state(self.name, SessionState.RUNNING)
        return self._tell(events, failed)

    def _write(self, event: Event) -> str | None:
        """Write one event; return the reason if the micrograph failed with it."""
        now = self._clock.wall()
        if isinstance(event, Gone | Back | LeftOut):
            self._write_source(event)
            return None
        if isinstance(event, Waiting):
            self._journal.note_waiting(self._id, event.name, event.reason, now)
            return None
        reason = (
            event.reason
            if isinstance(event, Rejected)
            else refusal(self._journal, self.name, event.name, event.header)
        )
        if reason is not None:
            self._journal.note_failed(self._id, event.name, reason, event.fingerprint, now)
        elif isinstance(event, Ready):
            self._journal.note_ready(self._id, event.name, event.header, event.fingerprint, now)
        return reason

    def _write_source(self, event: Gone | Back | LeftOut) -> None:
        """Write what became of a file of which something may be recorded."""
        name = event.name
        if isinstance(event, Gone):
            restored = self._journal.note_gone(self._id, name, GONE)
            if restored is not None:
                self._known[name] = restored
        elif isinstance(event, LeftOut):
            self._journal.note_left_out(self._id, name)
            self._known.pop(name, None)
        elif not self._journal.note_back(self._id, name) and name not in self._passed_over:
            self._known.pop(name, None)  # it had moved away: now it is a new one

    def _tell(self, events: list[Event], failed: dict[str, str]) -> int:
        """Remember and publish what is in the journal now; return how many micrographs became ready."""
        now_s = self._clock.monotonic()
        ready = 0
        for event in events:
            if isinstance(event, LeftOut):
                self._changed_s.pop(event.name, None)
                self._publisher.left_out(self.name, event.name)
                continue
            if isinstance(event, Gone | Back):
                self._publisher.source(self.name, event.name, missing=isinstance(event, Gone))
                continue
            if isinstance(event, Waiting):
                self._changed_s[event.name] = now_s
                self._publisher.waiting(self.name, event.name, event.reason)
                continue
            self._changed_s.pop(event.name, None)
            rewritten = event.name in self._known
            self._known[event.name] = event.fingerprint
            if event.name in failed:
                self._publisher.rejected(self.name, event.name, failed[event.name])
            elif isinstance(event, Ready):
                ready += 1
                self._publisher.found(self.name, event.name, event.found_by, rewritten=rewritten)
        return ready

    # ---- draining -------------------------------------------------------------------------------

    def _drain(self, now_s: float, *, full: bool) -> None:
        """Give up on what does not become whole, and complete the session when nothing is left."""
        self._last_scan_done = self._last_scan_done or full
        if self._allowed is None:
            if not self._last_scan_done or self._discovery.next_look_s(now_s) == 0.0:
                return  # one look opens so many files at most: first the rest of them
            self._allowed = self._unfinished_names()
        self._allowed -= self._give_up(now_s)
        totals = self._journal.totals(self._id)
        if not (totals.waiting or totals.ready or self._id in self._journal.sessions_behind()):
            self._journal.advance(self.name, Verb.DRAINED, self._clock.wall())
            self._publisher.state(self.name, SessionState.COMPLETED)

    @property
    def _patience_s(self) -> float:
        """How long a stopped session waits for a file that does not change."""
        return self._config.settle_s + DRAIN_GRACE_S

    def _give_up(self, now_s: float) -> set[str]:
        """Fail what waits and has not changed for too long; return the names, which are over and done with."""
        assert self._draining_since_s is not None
        given_up = set()
        for record in self._journal.micrographs(self._id, [MicrographState.WAITING]):
            since_s = max(self._draining_since_s, self._changed_s.get(record.name, 0.0))
            if now_s - since_s < self._patience_s:
                continue
            reason = f"not whole when the session was stopped: {record.reason}"
            self._journal.note_failed(self._id, record.name, reason, None, self._clock.wall())
            self._discovery.forget(record.name)
            self._publisher.rejected(self.name, record.name, reason)
            given_up.add(record.name)
        return given_up

    def _unfinished_names(self) -> frozenset[str]:
        # Ready ones too: they may change before they are read.
        records = self._journal.micrographs(self._id, [MicrographState.WAITING, MicrographState.READY])
        return frozenset(record.name for record in records)
