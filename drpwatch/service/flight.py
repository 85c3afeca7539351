"""What is on the device now, and what a process said when it died: two small files in the state directory.

They outlive the process and tell the next one which micrograph it may have died of. Nothing waits for the
disk, so a mark costs microseconds; a power cut may lose it, and that is no fault of a micrograph.
"""

from __future__ import annotations

import faulthandler
import os
from contextlib import suppress
from pathlib import Path

from drpwatch.errors import DeviceFault
from drpwatch.micrograph import ReadyMicrograph
from drpwatch.session.records import Crash, CrashKind

_SLOT_BYTES = 16_384  # the longest path, or the stack of a thread
_FATAL = "Fatal Python error: "  # what faulthandler begins with
_LONGEST_STEP_S = 5.0


class _Slot:
    """A file of fixed size that holds one text; written over, so that a full disk has room for it."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        with suppress(OSError):
            os.posix_fallocate(self.fd, 0, _SLOT_BYTES)

    def text(self) -> str:
        return os.pread(self.fd, _SLOT_BYTES, 0).split(b"\0", 1)[0].decode(errors="surrogateescape")

    def clear(self) -> None:
        with suppress(OSError):
            os.pwrite(self.fd, bytes(_SLOT_BYTES), 0)


class Flight:
    """The mark of what is on the device, and the last words of a process.

    Parameters
    ----------
    directory
        The state directory; one process at a time uses it.
    """

    def __init__(self, directory: Path) -> None:
        self._mark = _Slot(directory / "on-device")
        self._words = _Slot(directory / "last-words")
        self.aboard: ReadyMicrograph | None = None
        """What is on the device now."""

    def begin(self, ready: ReadyMicrograph) -> None:
        """Say that a micrograph goes onto the device."""
        self.aboard = ready
        name = f"{ready.micrograph_id} {ready.name}\0".encode(errors="surrogateescape")
        with suppress(OSError):
            os.pwrite(self._mark.fd, name, 0)

    def end(self) -> None:
        """Say that nothing is on the device."""
        self.aboard = None
        with suppress(OSError):
            os.pwrite(self._mark.fd, b"\0", 0)

    def fail(self, fault: DeviceFault) -> None:
        """Say why the process has to end; what is on the device stays marked."""
        with suppress(OSError):
            os.write(self._words.fd, f"{fault.kind}: {fault}\0".encode(errors="replace"))

    def listen(self) -> None:
        """Have the interpreter say which signal ended it, and where it was then."""
        faulthandler.enable(self._words.fd, all_threads=False)

    def close(self) -> None:
        """End `listen`, and let go of the files."""
        if faulthandler.is_enabled():
            faulthandler.disable()
        os.close(self._mark.fd)
        os.close(self._words.fd)

    def last_crash(self) -> tuple[Crash, str] | None:
        """Return how the process before this one died, and its last words, once; None if it ended well."""
        mark, words = self._mark.text(), self._words.text()
        self._mark.clear()
        self._words.clear()
        if not mark and not words:
            return None
        kind, reason = _understood(words)
        number, _, name = mark.partition(" ")
        on_device = (int(number), name) if number.isdecimal() else ()
        return Crash(kind, reason, *on_device), words


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
