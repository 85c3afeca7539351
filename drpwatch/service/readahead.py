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
from drpwatch.service.channel import Allocate, Buffer, Buffers, Channel
from drpwatch.watch.probe import probe

_BUFFERS = 3  # one that is picked, one that waits, and one that is read


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """One file that was read: its (h, w) pixels in the dtype of the file, or what is wrong with it."""

    name: str
    header: ImageHeader | None = None
    fingerprint: Fingerprint | None = None
    pixels: npt.NDArray[Any] | None = None
    buffer: Buffer | None = None  # that has the pixels; None: they have memory of their own
    problem: str | None = None
    seconds: float = 0.0


def read_ahead(
    root: Path, names: Sequence[str], give_up: threading.Event, allocate: Allocate
) -> Iterator[Read]:
    """Yield each file, read in a thread while the one before is picked.

    Its pixels are there until the next one is asked for: memory is allocated once, and used again and again.
    """
    channel: Channel[Read] = Channel(1)
    buffers = Buffers(_BUFFERS)
    buffers.allocate_by(allocate, lambda _: None)

    def read_all() -> None:
        for name in names:
            if not channel.put(_read(root, name, buffers, give_up), give_up):
                return

    # A daemon thread: a read that hangs on a dead server must not keep the program.
    threading.Thread(target=read_all, name="reader", daemon=True).start()
    for _ in names:
        read = None
        while read is None:
            read = channel.get()
        yield read
        if read.buffer is not None:
            buffers.give_back(read.buffer)


def _read(root: Path, name: str, buffers: Buffers, give_up: threading.Event) -> Read:
    """Read one file."""
    started = time.perf_counter()
    found = probe(root / name)
    read = Read(name, found.header, found.fingerprint)
    problem: Exception | None = found.problem
    pixels = buffer = None
    if problem is None and found.header is not None:
        try:
            if not found.header.compressed:  # the size of what is in a gzip file is only a claim
                buffer = buffers.take(found.header.data_bytes, give_up)
            pixels = mrc.read_pixels(root / name, found.header, found.fingerprint, buffer)
        except Exception as error:  # noqa: BLE001 - top of a thread: it becomes the micrograph's reason
            problem = error
    return replace(
        read,
        pixels=pixels,
        buffer=buffer,
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
