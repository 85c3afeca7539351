"""Sessions to which nothing comes any more: they are called idle, and completed if that is wanted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from drpwatch.config import Session
from drpwatch.service.clock import Clock
from drpwatch.service.publish import Publisher
from drpwatch.session.journal import Journal
from drpwatch.session.lifecycle import SessionState, Verb
from drpwatch.session.records import SessionRecord

_COMPLETED_BY_ITSELF = frozenset({SessionState.WAITING, SessionState.RUNNING})


@dataclass(frozen=True, slots=True)
class _Quiet:
    """What last happened to a session, and since when we know that nothing else has."""

    last: tuple[float | None, float]
    since_s: float


class Idleness:
    """Counts how long nothing new came to each session.

    It counts by our own monotonic clock and from the start of the daemon at the earliest: a clock that jumps
    ahead, or a daemon that was down for days, must not complete a session.
    """

    def __init__(self, journal: Journal, config: Session, publisher: Publisher, clock: Clock) -> None:
        self._journal = journal
        self.config = config
        """What counts from the next look on."""
        self._publisher = publisher
        self._clock = clock
        self._quiet: dict[str, _Quiet] = {}

    def is_idle(self, session: str) -> bool:
        """Tell whether nothing new came for long."""
        quiet = self._quiet.get(session)
        return quiet is not None and self._clock.monotonic() - quiet.since_s >= self.config.idle_after_s

    def look(self, live: Iterable[SessionRecord]) -> bool:
        """Take note of what came, stop sessions to which nothing did; return whether there were any."""
        now_s, stopped, quiet = self._clock.monotonic(), False, {}
        limit_s = self.config.auto_complete_after_s
        for session in live:
            name = session.spec.name
            last = (self._journal.last_seen_at(session.id), session.changed_at)
            before = self._quiet.get(name)
            quiet[name] = before if before is not None and before.last == last else _Quiet(last, now_s)
            quiet_s = now_s - quiet[name].since_s
            if limit_s and quiet_s >= limit_s and session.state in _COMPLETED_BY_ITSELF:
                reason = f"stopped by itself: no new micrograph for {quiet_s / 3600:.2g} h"
                self._journal.advance(name, Verb.STOP, self._clock.wall(), reason)
                self._publisher.state(name, SessionState.DRAINING, reason)
                stopped = True
        self._quiet = quiet
        return stopped
