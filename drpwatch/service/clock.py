"""The two clocks of the daemon: one for durations, one for what people read."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Where loops take their time from; tests hand in their own."""

    monotonic: Callable[[], float] = time.monotonic  # seconds, never set back
    wall: Callable[[], float] = time.time  # unix seconds
