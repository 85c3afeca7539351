"""Threads beside the way of a micrograph: nothing waits for them."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

_ENDS_WITHIN_S = 1.0


class Aside(ABC):
    """Something with a thread of its own, which is left behind when it hangs at the end."""

    def __init__(self, name: str) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what is not written by then is left out."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(_ENDS_WITHIN_S)

    @abstractmethod
    def _run(self) -> None:
        """Work until `_stop` is set."""
