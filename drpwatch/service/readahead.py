"""Reading files in order, each in a thread while the one before is picked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from drpwatch.errors import DrpwatchError, IncompleteMicrograph
from drpwatch.formats import mrc
from drpwatch.micrograph import Fingerprint, ImageHeader
from drpwatch.service.channel import Channel
from drpwatch.watch.probe import probe


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """One file that was read: its (h, w) pixels in the dtype of the file, or what is wrong with it."""

    name: str
    header: ImageHeader | None = None
    fingerprint: Fingerprint | None = None
    pixels: npt.NDArray[Any] | None = None
    problem: str | None = None
    seconds: float = 0.0


def read_ahead(root: Path, names: Sequence[str], give_up: threading.Event) -> Iterator[Read]:
    """Yield each file, read in a thread while the one before is picked."""
    channel: Channel[Read] = Channel(1)

    def read_all() -> None:
        for name in names:
            if not channel.put(_read(root, name), give_up):
                return

    # A daemon thread: a read that hangs on a dead server must not keep the program.
    threading.Thread(target=read_all, name="reader", daemon=True).start()
    for _ in names:
        read = None
        while read is None:
            read = channel.get()
        yield read


def _read(root: Path, name: str) -> Read:
    """Read one file."""
    started = time.perf_counter()
    found = probe(root / name)
    read = Read(name, found.header, found.fingerprint)
    problem: Exception | None = found.problem
    pixels = None
    if problem is None and found.header is not None:
        try:
            pixels = mrc.read_pixels(root / name, found.header, found.fingerprint)
        except Exception as error:  # noqa: BLE001 - top of a thread: it becomes the micrograph's reason
            problem = error
    return replace(
        read,
        pixels=pixels,
        problem=None if problem is None else _sentence(problem),
        seconds=time.perf_counter() - started,
    )


def _sentence(problem: Exception) -> str:
    """Return why a file was not read; here nothing is waited for."""
    if isinstance(problem, IncompleteMicrograph) and str(problem).startswith("have "):
        return f"truncated: {problem}"
    if isinstance(problem, DrpwatchError):
        return str(problem)
    return f"unexpected {type(problem).__name__} while reading: {problem}"
