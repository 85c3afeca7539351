"""Signals: handlers set flags and wake the main thread, which does the work."""

from __future__ import annotations

import os
import select
import signal
from types import FrameType
from typing import Self


class Signals:
    """While entered, SIGTERM and SIGINT ask to stop, SIGHUP asks to reload. Main thread only."""

    def __init__(self) -> None:
        self.stop: str | None = None
        """Name of the signal that asked to stop."""
        self._reload = False
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before: dict[int, object] = {}
        self._wakeup_before = -1

    def __enter__(self) -> Self:
        # The interpreter itself writes to the pipe when a signal comes, so none is missed in `wait`.
        self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._reader)
        os.close(self._writer)

    def wake(self) -> None:
        """End a `wait`, from any thread."""
        os.write(self._writer, b"\0")

    def wait(self, timeout_s: float) -> None:
        """Wait until a signal comes or somebody wakes us."""
        select.select([self._reader], [], [], timeout_s)
        try:
            os.read(self._reader, 4096)
        except BlockingIOError:
            return

    def reload_asked(self) -> bool:
        """Tell whether a reload was asked for since the last call."""
        asked, self._reload = self._reload, False
        return asked

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._reload = True
        else:
            self.stop = signal.Signals(number).name
