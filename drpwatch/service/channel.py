"""What connects two stages: a bounded queue whose waits end when the daemon does, and pooled buffers."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from drpwatch.errors import DeviceNotReady

T = TypeVar("T")

_POLL_S = 0.2  # how late a wait notices that it should end


def _silent() -> None:
    """Nobody asks whether we are alive."""


class Channel(Generic[T]):
    """A bounded queue; the backlog stays in the journal, so few places are enough."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._queue: queue.Queue[T] = queue.Queue(capacity)

    def put(self, item: T, give_up: threading.Event, beat: Callable[[], None] = _silent) -> bool:
        """Wait for a place, beating; False, without the item, once `give_up` is set."""
        while not give_up.is_set():
            beat()
            try:
                self._queue.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def offer(self, item: T) -> bool:
        """Put an item in if there is a place now."""
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            return False
        return True

    def get(self, timeout_s: float = _POLL_S) -> T | None:
        """Return the next item, None if none comes in time."""
        try:
            return self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None

    @property
    def depth(self) -> int:
        """Number of items in it now."""
        return self._queue.qsize()


Buffer = npt.NDArray[np.uint8]
Allocate = Callable[[int], Buffer]


def _plain(size_bytes: int) -> Buffer:
    """Return memory as it comes."""
    return np.empty(size_bytes, np.uint8)


class Buffers:
    """A fixed number of byte buffers that are used again and again, so that memory stays flat."""

    def __init__(self, count: int) -> None:
        self._free: list[Buffer] = [_plain(0) for _ in range(count)]
        self._surplus = 0  # to be dropped once they are given back
        self._returned = threading.Condition()
        self._allocate: Allocate = _plain
        self._asked: Allocate = _plain
        self._tell: Callable[[str], None] = lambda _: None
        self._outdated: list[Buffer] = []  # in use, and allocated otherwise than it is done now
        self._used: list[Buffer] = []

    def allocate_by(self, allocate: Allocate, tell: Callable[[str], None]) -> None:
        """Allocate this way from now on, and let go of buffers of before as they come back.

        Parameters
        ----------
        allocate
            Returns memory, (n,); raises DeviceNotReady where there is none of its kind: then usual memory is taken
            from then on.
        tell
            Called with the reason.
        """
        with self._returned:
            if allocate == self._asked:
                return
            self._asked = self._allocate = allocate
            self._tell = tell
            self._free = [_plain(0) for _ in self._free]
            self._outdated = list(self._used)

    def take(
        self, size_bytes: int, give_up: threading.Event, beat: Callable[[], None] = _silent
    ) -> Buffer | None:
        """Wait for a buffer of at least this size, (n,), beating; None once `give_up` is set.

        Raises
        ------
        MemoryError
            There is no room for one of this size.
        """
        with self._returned:
            while not self._free:
                beat()
                if give_up.is_set():
                    return None
                self._returned.wait(_POLL_S)
            fitting = [n for n, buffer in enumerate(self._free) if buffer.size >= size_bytes]
            if fitting:
                taken = self._free.pop(fitting[0])
            else:
                taken = self._larger(size_bytes)
                del self._free[0]  # after it is sure that there is another in its place
            self._used.append(taken)
            return taken

    def _larger(self, size_bytes: int) -> Buffer:
        try:
            return self._allocate(size_bytes)
        except DeviceNotReady as error:
            self._tell(str(error))
            self._allocate = _plain
            return _plain(size_bytes)

    def give_back(self, buffer: Buffer) -> None:
        """Return a buffer; nobody may look at it any more."""
        with self._returned:
            self._used = [one for one in self._used if one is not buffer]
            outdated = [one for one in self._outdated if one is not buffer]
            if self._surplus:
                self._surplus -= 1
            else:
                self._free.append(buffer if len(outdated) == len(self._outdated) else _plain(0))
                self._returned.notify()
            self._outdated = outdated

    def grow(self) -> None:
        """Have one buffer more."""
        with self._returned:
            self._free.append(_plain(0))
            self._returned.notify()

    def shrink(self) -> None:
        """Have one buffer less, as soon as one is free."""
        with self._returned:
            if self._free:
                del self._free[-1]
            else:
                self._surplus += 1
