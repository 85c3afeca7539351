"""Server-sent events: what happens in the daemon, told to every open page.

An event says that something changed, and the page asks for it; so an event that is lost costs a moment and
no truth. Each has an id, and a page that was away is told what it missed, or, where that is not known any
more, that it has to look at everything anew.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

_KEPT = 1000  # events that a page may have missed
_KEEP_ALIVE_S = 15.0  # proxies and browsers take longer silence for the end
_RETRY_MS = 1000
MOST_STREAMS = 64


@dataclass(frozen=True, slots=True)
class _Event:
    number: int
    kind: str
    data: str


class Events:
    """The last events, and the streams that wait for the next; `tell` is safe to call from any thread."""

    def __init__(self) -> None:
        self._life = secrets.token_hex(4)  # numbers begin anew with each daemon
        self._lock = threading.Lock()
        self._last: deque[_Event] = deque(maxlen=_KEPT)
        self._number = 0
        self._waiting: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._closed = False

    def tell(self, kind: str, **values: Any) -> None:
        """Tell every stream; never waits."""
        with self._lock:
            self._number += 1
            self._last.append(_Event(self._number, kind, json.dumps(values)))
        self._wake()

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        self._wake()

    @property
    def full(self) -> bool:
        """Whether there are as many streams as may be."""
        return len(self._waiting) >= MOST_STREAMS

    async def stream(self, last_id: str | None = None) -> AsyncIterator[bytes]:
        """Yield events as they are sent, beginning after the one with `last_id`."""
        bell = asyncio.Event()
        with self._lock:
            self._waiting[bell] = asyncio.get_running_loop()
        try:
            after = self._place(last_id)
            yield f"retry: {_RETRY_MS}\n".encode()
            if after is None:
                after = self._number
                yield self._format("reset" if last_id else "hello", after, "{}")
            while not self._closed:
                bell.clear()
                missed, events = self._since(after)
                if missed:
                    after = self._number
                    yield self._format("reset", after, "{}")
                for event in events:
                    after = event.number
                    yield self._format(event.kind, after, event.data)
                try:
                    await asyncio.wait_for(bell.wait(), _KEEP_ALIVE_S)
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            with self._lock:
                del self._waiting[bell]

    def _place(self, last_id: str | None) -> int | None:
        """Return the number of an event of this daemon, None for another's."""
        life, _, number = (last_id or "").partition("-")
        return int(number) if life == self._life and number.isascii() and number.isdecimal() else None

    def _since(self, after: int) -> tuple[bool, list[_Event]]:
        """Return whether some of the events after a number are gone, and, if not, all of them."""
        with self._lock:
            if self._number - after > len(self._last) or after > self._number:
                return True, []
            return False, [event for event in self._last if event.number > after]

    def _format(self, kind: str, number: int, data: str) -> bytes:
        return f"id: {self._life}-{number}\nevent: {kind}\ndata: {data}\n\n".encode()

    def _wake(self) -> None:
        with self._lock:
            for bell, loop in self._waiting.items():
                if not loop.is_closed():
                    loop.call_soon_threadsafe(bell.set)
