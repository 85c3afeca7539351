"""Levels of sessions: the metrics that are read from the journal, again and again, for each live session."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from drpwatch.service.clock import Clock
from drpwatch.service.metrics import Metrics
from drpwatch.session import disk
from drpwatch.session.journal import Journal
from drpwatch.session.records import MicrographState, SessionRecord

_SHOWN_AFTER_END_S = 300.0  # long enough for a last scrape


class SessionLevels:
    """Keeps the series of sessions in step with the journal; used by the main thread.

    Parameters
    ----------
    is_idle
        Tells whether nothing new comes to a session.
    held_back
        Tells why the outputs of a session cannot be written now; empty while they can.
    """

    def __init__(
        self,
        journal: Journal,
        metrics: Metrics,
        clock: Clock,
        is_idle: Callable[[str], bool],
        held_back: Callable[[str], tuple[str, ...]],
    ) -> None:
        self._journal = journal
        self._metrics = metrics
        self._clock = clock
        self._is_idle = is_idle
        self._held_back = held_back

    def show(self, live: Iterable[SessionRecord]) -> None:
        """Show how live sessions stand, and end the series of those that ended a while ago."""
        live = list(live)
        self._metrics.session_active.set(len(live))
        self._metrics.state_free_bytes.set(self._state_free_bytes())
        for session in live:
            self._show(session)
        for name in self._metrics.sessions - {session.spec.name for session in live}:
            if self._clock.wall() - self._journal.session(name).changed_at > _SHOWN_AFTER_END_S:
                self._metrics.forget_session(name)

    def _show(self, session: SessionRecord) -> None:
        name, metrics, journal = session.spec.name, self._metrics, self._journal
        metrics.add_session(name, session.state)
        totals = journal.totals(session.id)
        for state in MicrographState:
            metrics.session_micrographs.labels(session=name, state=state).set(getattr(totals, state))
        metrics.session_picks.labels(session=name).set(totals.picks)
        metrics.quarantined.labels(session=name).set(journal.count_quarantined(session.id))
        medians = journal.median_picks(session.id)
        if medians is not None:
            metrics.median_picks.labels(session=name, of="newest").set(medians.newest)
            metrics.median_picks.labels(session=name, of="all").set(medians.all)
        oldest = journal.oldest_unpicked(session.id)
        metrics.oldest_unpicked_timestamp_seconds.labels(session=name).set(oldest or 0.0)
        last_seen = journal.last_seen_at(session.id) or 0.0
        metrics.last_new_micrograph_timestamp_seconds.labels(session=name).set(
            max(last_seen, session.changed_at)
        )
        metrics.expected_end_timestamp_seconds.labels(session=name).set(session.expected_end_at or 0.0)
        metrics.session_idle.labels(session=name).set(int(self._is_idle(name)))
        metrics.output_writable.labels(session=name).set(int(not self._held_back(name)))

    def _state_free_bytes(self) -> int:
        """Return the room that the journal has; none where its directory cannot be asked."""
        try:
            return disk.free_bytes(self._journal.path.parent)
        except OSError:
            return 0
