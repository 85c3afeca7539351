"""Which micrographs are being read, and since when: a file server that does not answer holds who reads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from drpwatch.micrograph import ReadyMicrograph

HANGS_AFTER_S = 10.0
"""A read that takes longer gives its loader's place to another one, and its session no second one."""


class Reads:
    """The reads that are under way; safe to use from any thread."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._reading: dict[str, tuple[ReadyMicrograph, float]] = {}  # by loader

    @contextmanager
    def reading(self, loader: str, ready: ReadyMicrograph) -> Iterator[None]:
        """Note that a loader reads a micrograph."""
        with self._lock:
            self._reading[loader] = ready, self._monotonic()
        try:
            yield
        finally:
            with self._lock:
                del self._reading[loader]

    @property
    def hanging(self) -> dict[str, ReadyMicrograph]:
        """By loader, what it has been reading for so long that the file server may not answer."""
        now_s = self._monotonic()
        with self._lock:
            return {
                loader: ready
                for loader, (ready, since_s) in self._reading.items()
                if now_s - since_s > HANGS_AFTER_S
            }

    @property
    def hanging_sessions(self) -> frozenset[str]:
        """The sessions of these."""
        return frozenset(ready.session for ready in self.hanging.values())

    def problems(self, session: str) -> tuple[str, ...]:
        """Return a sentence for each micrograph of a session whose reading hangs."""
        return tuple(
            f"{ready.path}: reading it takes longer than {HANGS_AFTER_S:.0f} s: its file server may not answer"
            for ready in self.hanging.values()
            if ready.session == session
        )
