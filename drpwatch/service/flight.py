"""What is on the devices now, and what a process said when it died: small files in the state directory.

They outlive the process and tell the next one which micrographs it may have died of. Nothing waits for the
disk, so a mark costs microseconds; a power cut may lose it, and that is no fault of a micrograph.
"""

from __future__ import annotations

import faulthandler
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from drpwatch.errors import DeviceFault
from drpwatch.micrograph import ReadyMicrograph
from drpwatch.session.records import Crash, CrashKind, Suspect

_MARK = "on-device"  # of the first device; those of others have its number behind
_SLOT_BYTES = 16_384  # the longest path, or the stack of a thread
_FATAL = "Fatal Python error: "  # what faulthandler begins with
_LONGEST_STEP_S = 5.0
_POLL_S = 0.2


class _Slot:
    """A file of fixed size that holds one text; written over, so that a full disk has room for it."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        with suppress(OSError):
            os.posix_fallocate(self.fd, 0, _SLOT_BYTES)

    def text(self) -> str:
        return os.pread(self.fd, _SLOT_BYTES, 0).split(b"\0", 1)[0].decode(errors="surrogateescape")

    def write(self, text: str) -> None:
        with suppress(OSError):
            os.pwrite(self.fd, f"{text}\0".encode(errors="surrogateescape"), 0)

    def clear(self) -> None:
        with suppress(OSError):
            os.pwrite(self.fd, bytes(_SLOT_BYTES), 0)


class Flight:
    """The marks of what is on the devices, and the last words of a process.

    Parameters
    ----------
    directory
        The state directory; one process at a time uses it.
    devices
        How many there are.
    """

    def __init__(self, directory: Path, devices: int = 1) -> None:
        self._directory = directory
        self._words = _Slot(directory / "last-words")
        self.suspects: frozenset[int] = frozenset()
        """Micrographs that were on a device in a crash: they are on one alone, so that the next tells which it was."""
        self.changed = threading.Condition()
        self.failed = False
        self.seats = [Seat(self, _Slot(path)) for path in self._paths(devices)]

    def _paths(self, devices: int) -> Iterator[Path]:
        for number in range(devices):
            yield self._directory / (f"{_MARK}-{number}" if number else _MARK)

    def end(self) -> None:
        """Say that nothing is on any device."""
        for seat in self.seats:
            seat.leave()

    def listen(self) -> None:
        """Have the interpreter say which signal ended it, and where it was then."""
        faulthandler.enable(self._words.fd, all_threads=False)

    def close(self) -> None:
        """End `listen`, and let go of the files."""
        if faulthandler.is_enabled():
            faulthandler.disable()
        for slot in (self._words, *(seat.mark for seat in self.seats)):
            os.close(slot.fd)

    def say(self, fault: DeviceFault) -> None:
        """Leave last words."""
        with suppress(OSError):
            os.write(self._words.fd, f"{fault.kind}: {fault}\0".encode(errors="replace"))

    def last_crash(self) -> tuple[Crash, str] | None:
        """Return how the process before this one died, and its last words, once; None if it ended well."""
        words = self._words.text()
        marks = [mark for path in sorted(self._directory.glob(f"{_MARK}*")) if (mark := _taken(path))]
        self._words.clear()
        if not marks and not words:
            return None
        suspects = tuple(
            Suspect(int(number), name)
            for number, _, name in (mark.partition(" ") for mark in marks)
            if number.isdecimal()
        )
        return Crash(*_understood(words), suspects), words


class Seat:
    """The place on one device; used by the thread that owns the device."""

    def __init__(self, flight: Flight, mark: _Slot) -> None:
        self._flight = flight
        self.mark = mark
        self.aboard: ReadyMicrograph | None = None
        """What is on the device now."""
        self.is_alone = False
        """Whether nothing else may go on a device now."""

    def take(
        self, ready: ReadyMicrograph, give_up: threading.Event, beat: Callable[[], None] = lambda: None
    ) -> bool:
        """Say that a micrograph goes onto the device, once it may; False if given up before, or all is over.

        A suspect waits until it is the only one, and others wait for it.
        """
        others = [seat for seat in self._flight.seats if seat is not self]
        with self._flight.changed:
            self.is_alone = False
            while any(seat.is_alone for seat in others):
                if not self._wait(give_up, beat):
                    return False
            self.is_alone = ready.micrograph_id in self._flight.suspects
            while self.is_alone and any(seat.aboard for seat in others):
                if not self._wait(give_up, beat):
                    return False
            if self._flight.failed:
                return False
            self.aboard = ready
            self.mark.write(f"{ready.micrograph_id} {ready.name}")
            return True

    def _wait(self, give_up: threading.Event, beat: Callable[[], None]) -> bool:
        beat()
        self._flight.changed.wait(_POLL_S)
        if give_up.is_set():
            self.is_alone = False
        return not give_up.is_set()

    def leave(self) -> None:
        """Say that nothing is on the device."""
        with self._flight.changed:
            if not self._flight.failed:
                self.aboard, self.is_alone = None, False
                self.mark.write("")
            self._flight.changed.notify_all()

    def fail(self, fault: DeviceFault) -> None:
        """Say why the process has to end; what is on this device stays marked, and nothing else."""
        with self._flight.changed:
            if self._flight.failed:
                return
            self._flight.failed = True
            for seat in self._flight.seats:
                if seat is not self:
                    seat.mark.write("")
            self._flight.say(fault)


def _taken(path: Path) -> str:
    """Return a mark, and clear it."""
    slot = _Slot(path)
    try:
        mark = slot.text()
        slot.clear()
    finally:
        os.close(slot.fd)
    return mark


def _understood(words: str) -> tuple[CrashKind, str]:
    """Return the kind and the reason that last words tell."""
    first = words.splitlines()[0] if words else ""
    if first.startswith(_FATAL):
        return CrashKind.SIGNAL, first.removeprefix(_FATAL).lower()
    kind, _, reason = first.partition(": ")
    if kind in set(CrashKind):
        return CrashKind(kind), reason
    return CrashKind.KILLED, "it was killed, or there was no memory left"


class TimeLimit:
    """Tells when something takes too long; time in which nobody asked, for we were stopped too, hardly counts."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._subject: object = None
        self._taken_s = 0.0
        self._asked_s = 0.0

    def is_over(self, subject: object, now_s: float) -> bool:
        """Tell whether `subject` is the same for longer than the limit; None never is."""
        step_s, self._asked_s = now_s - self._asked_s, now_s
        if subject is not self._subject:
            self._subject, self._taken_s = subject, 0.0
        else:
            self._taken_s += min(step_s, _LONGEST_STEP_S)
        return subject is not None and self._taken_s > self.limit_s
