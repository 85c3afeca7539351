"""Which ready micrograph is next: sessions in turn, inside one the newest first when it is behind."""

from __future__ import annotations

import threading
from collections.abc import Collection

from drpwatch.micrograph import ReadyMicrograph
from drpwatch.session.journal import Journal
from drpwatch.session.lifecycle import PICKING, WATCHING


class Dispatcher:
    """Hands each ready micrograph to one loader; what is on its way is remembered here, not journalled.

    After a crash nothing is on its way, so everything unrecorded is handed out again.

    Parameters
    ----------
    newest_first_beyond
        With more ready micrographs than this, a session has its newest picked first, so that the view is
        live; else the oldest.
    """

    def __init__(self, journal: Journal, newest_first_beyond: int) -> None:
        self._journal = journal
        self.newest_first_beyond = newest_first_beyond
        self._changed = threading.Condition()
        self._changes = 0
        self._on_way: dict[int, str] = {}  # micrograph id -> session
        self._held: set[str] = set()
        self._last = ""  # the session that had its turn last

    def take(self, avoid: Collection[str] = ()) -> ReadyMicrograph | None:
        """Return the next micrograph of a session not in `avoid`, which is then on its way; None if none is there."""
        with self._changed:
            sessions = self._journal.sessions(PICKING)
            names = sorted(session.spec.name for session in sessions)
            by_name = {session.spec.name: session for session in sessions}
            after = [name for name in names if name > self._last]
            for name in [*after, *(name for name in names if name <= self._last)]:
                if name in self._held or name in avoid:
                    continue
                taken = frozenset(id_ for id_, session in self._on_way.items() if session == name)
                ready = self._journal.next_ready(by_name[name], taken, self.newest_first_beyond)
                if ready is not None:
                    self._on_way[ready.micrograph_id] = name
                    self._last = name
                    return ready
        return None

    def done(self, ready: ReadyMicrograph) -> None:
        """Say that a micrograph is recorded or given up: if the journal has it as ready, it comes again."""
        with self._changed:
            self._on_way.pop(ready.micrograph_id, None)

    def hold(self, session: str) -> None:
        """Hand out nothing more of a session: its outcomes cannot be recorded now."""
        with self._changed:
            self._held.add(session)

    def release(self, session: str) -> None:
        """Undo `hold`."""
        with self._changed:
            self._held.discard(session)
        self.ring()

    def weights_in_use(self) -> frozenset[str]:
        """Return the SHA-256 of all weights that live sessions pick with."""
        live = self._journal.sessions(WATCHING)
        return frozenset(one.params.weights.sha256 for one in live if one.params.weights is not None)

    def ring(self) -> None:
        """Say that there may be something new to take."""
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def wait(self, seen: int, timeout_s: float) -> int:
        """Wait until somebody rings who had not when `seen` was returned; return what to wait with next."""
        with self._changed:
            if self._changes == seen:
                self._changed.wait(timeout_s)
            return self._changes

    @property
    def on_way(self) -> int:
        """Number of micrographs taken and not yet recorded."""
        with self._changed:
            return len(self._on_way)
