"""Signs of life: each loop beats while it makes progress, and whoever asks learns which one stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Heartbeats:
    """The last beat of each loop, by name ("scanner", "loader-1")."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}

    def beat(self, loop: str) -> None:
        """Say that a loop made progress; its first beat makes it known."""
        with self._lock:
            self._last[loop] = self._monotonic()

    def end(self, loop: str) -> None:
        """Say that a loop has ended as it should."""
        with self._lock:
            self._last.pop(loop, None)

    def ages_s(self) -> dict[str, float]:
        """Return the seconds since the last beat of each loop."""
        now = self._monotonic()
        with self._lock:
            return {loop: now - last for loop, last in self._last.items()}

    def stale(self, limit_s: float) -> list[str]:
        """Return a sentence for each loop that has been silent for longer than the limit."""
        return [
            f"the {loop} loop has made no progress for {age:.0f} s"
            for loop, age in sorted(self.ages_s().items())
            if age > limit_s
        ]
