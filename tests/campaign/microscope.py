"""A scripted microscope: it writes micrographs in every way that real ones are written, and keeps a log.

The log is the truth that a checker goes by: for each name the last thing that is so. It has no line of the
daemon, its MRC files neither.
"""

from __future__ import annotations

import gzip
import heapq
import itertools
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.daemon.rule import POISONED_PIXEL, SHAPE, image

MANNERS = ("beside", "part", "pieces", "allocated", "at once", "old time", "future time")
POISON = "poison"  # the process that picks it crashes
GARBAGE = ("text", "tiff", "stack", "transform", "blank", "not a number", "empty", "header only", "half")
PIXEL_SIZE_ANGSTROM = 1.5
_FATES = {
    "stays": 82,
    "rewritten": 8,
    "touched": 2,
    "truncated": 2,
    "repaired": 2,
    "deleted": 2,
    "moved": 2,
}
_POISONED = 0.004
_SQUARE = 40  # micrographs of one sub-directory, whose names occur in each of them
_DAY_S = 86_400.0

Steps = Iterator[float]
"""What is done, with pauses in seconds between."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One micrograph of the plan."""

    session: str
    name: str
    seed: int
    manner: str
    fate: str  # what becomes of it: stays, rewritten, touched, truncated, repaired, deleted, moved
    garbage: str | None  # it begins as such


def plan(seed: int, count: int, sessions: tuple[str, ...]) -> list[Shot]:
    """Return what the microscope is going to do; sub-directories are born on the way."""
    draw = random.Random(f"plan {seed}")
    numbers = {session: itertools.count() for session in sessions}
    shots = []
    for n in range(count):
        session = sessions[n % len(sessions)]
        number = next(numbers[session])
        ending = "mrc.gz" if session.startswith("gz") else "mrc"
        name = f"Grid Square_{number // _SQUARE}/Data/mic_{number % _SQUARE:03d}.{ending}"
        (fate,) = draw.choices(tuple(_FATES), tuple(_FATES.values()))
        garbage = draw.choice(GARBAGE) if draw.random() < 0.06 else None
        if draw.random() < _POISONED:
            garbage, fate = POISON, "stays"
        if garbage is not None and draw.random() < 0.6:
            fate = "stays"
        shots.append(Shot(session, name, seed * 1_000_000 + n * 10, draw.choice(MANNERS), fate, garbage))
    return shots


class Microscope(threading.Thread):
    """Carries out a plan at a rate; `log` is complete when the thread has ended."""

    def __init__(self, root: Path, shots: list[Shot], rate_hz: float, log: Path) -> None:
        super().__init__(name="microscope", daemon=True)
        self._root, self._shots, self._interval_s = root, shots, 1 / rate_hz
        self._log = log
        self._draw = random.Random(shots[0].seed)
        self.stop = threading.Event()
        self.written = 0
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - whoever runs the campaign raises it again
            self.failure = error

    def _work(self) -> None:
        """Begin one shot after the other, and go on with those that are under way."""
        begun = time.monotonic()
        tie = itertools.count()
        due = [(n * self._interval_s, next(tie), self._expose(shot)) for n, shot in enumerate(self._shots)]
        heapq.heapify(due)
        while due and not self.stop.is_set():
            at_s, _, steps = heapq.heappop(due)
            self.stop.wait(max(0.0, begun + at_s - time.monotonic()))
            pause_s = next(steps, None)
            if pause_s is not None:
                heapq.heappush(due, (time.monotonic() - begun + pause_s, next(tie), steps))

    def _note(self, shot: Shot, what: str, **more: object) -> None:
        line = {"session": shot.session, "name": shot.name, "is": what, "at": time.time(), **more}
        with self._log.open("a") as log:
            log.write(json.dumps(line) + "\n")

    # ---- one micrograph -------------------------------------------------------------------------

    def _expose(self, shot: Shot) -> Steps:
        path = self._root / shot.session / shot.name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.written += 1
        if self._draw.random() < 0.03:
            self._leave_siblings(shot, path)
        if shot.garbage is not None:
            path.write_bytes(_packed(path, garbage(shot.garbage, shot.seed)))
            self._note(shot, "bad", why=shot.garbage)
        else:
            yield from self._write(path, shot.seed, shot.manner)
            self._note(shot, "good", seed=shot.seed)
        if shot.fate != "stays":
            yield self._draw.uniform(0.1, 8.0)
            yield from self._change(shot, path)

    def _change(self, shot: Shot, path: Path) -> Steps:
        """Do what becomes of it."""
        if shot.fate == "touched" and shot.garbage is None:
            os.utime(path)
        elif shot.fate == "deleted":
            path.unlink()
            self._note(shot, "gone", seed=None if shot.garbage else shot.seed)
        elif shot.fate == "moved" and shot.garbage is None:
            name = shot.name.replace("mic_", "moved/mic_")
            path.parent.joinpath("moved").mkdir(exist_ok=True)
            path.rename(self._root / shot.session / name)
            self._note(shot, "moved")
            self._note(replace(shot, name=name), "good", seed=shot.seed)
        elif shot.fate in ("rewritten", "touched", "moved"):
            for version in range(1, self._draw.randint(2, 3)):
                yield from self._rewrite(path, shot.seed + version)
                self._note(shot, "good", seed=shot.seed + version)
                yield self._draw.uniform(0.05, 3.0)
        else:
            os.truncate(path, path.stat().st_size // 2)
            self._note(shot, "bad", why="truncated")
            if shot.fate == "repaired":
                yield self._draw.uniform(0.2, 6.0)
                yield from self._rewrite(path, shot.seed + 5)
                self._note(shot, "good", seed=shot.seed + 5)

    def _rewrite(self, path: Path, seed: int) -> Steps:
        yield from self._write(path, seed, self._draw.choice(("in place", *MANNERS)))

    def _write(self, path: Path, seed: int, manner: str) -> Steps:
        """Write a good micrograph; every manner ends with another fingerprint than any before."""
        data = _packed(path, micrograph(seed))
        parts = [data[:700], data[700 : len(data) // 2], data[len(data) // 2 :]]
        if manner in ("beside", "part", "old time", "future time"):
            beside = path.with_name(f".{path.name}.Xy12Zw" if manner != "part" else f"{path.name}.part")
            beside.write_bytes(data)
            yield self._draw.uniform(0.0, 0.3)
            if manner in ("old time", "future time"):
                then_s = time.time() + (-400 if manner == "old time" else 400) * _DAY_S
                os.utime(beside, (then_s, then_s))
            beside.rename(path)
            return
        with path.open("wb" if manner != "in place" or not path.exists() else "r+b") as file:
            if manner == "allocated":
                file.truncate(len(data))
            for part in parts if manner != "at once" else [data]:
                file.write(part)
                file.flush()
                yield self._draw.uniform(0.0, 0.25)
            file.truncate()

    def _leave_siblings(self, shot: Shot, path: Path) -> None:
        """Leave what is never a micrograph."""
        stem, ending = path.name.split(".", 1)
        for name in (
            f"{stem}_noDW.{ending}",
            f"{stem}_PS.{ending}",
            f"{path.name}.tmp",
            f".{path.name}.Ab34Cd",
        ):
            path.with_name(name).write_bytes(_packed(path, micrograph(shot.seed)))
            self._note(replace(shot, name=str(Path(shot.name).with_name(name))), "no micrograph")


def micrograph(seed: int) -> bytes:
    """Return a whole MRC file of the image that a seed stands for."""
    return header(*SHAPE) + image(seed).astype("<f4").tobytes()


def header(ny: int, nx: int, nz: int = 1, mode: int = 2) -> bytes:
    """Return 1024 bytes of MRC2014."""
    words = np.zeros(256, "<i4")
    words[:4] = nx, ny, nz, mode
    words[7:10] = nx, ny, nz
    words[10:13] = np.array([nx, ny, nz], "<f4").__mul__(np.float32(PIXEL_SIZE_ANGSTROM)).view("<i4")
    words[16:19] = 1, 2, 3
    words[52] = int.from_bytes(b"MAP ", "little")
    words[53] = int.from_bytes(b"DD\0\0", "little")
    return words.tobytes()


def garbage(kind: str, seed: int) -> bytes:
    """Return the content of a file that is no micrograph that can be picked."""
    whole = micrograph(seed)
    pixels = len(whole) - 1024
    return {
        "text": b"this is the log of another program\n" * 200,
        "tiff": b"II*\0" + whole[4:],
        "stack": header(*SHAPE, nz=3) + whole[1024:] * 3,
        "transform": header(*SHAPE, mode=4) + whole[1024:] * 2,
        POISON: header(*SHAPE) + poison(seed).tobytes(),
        "blank": header(*SHAPE) + np.full(pixels // 4, 7.0, "<f4").tobytes(),
        "not a number": header(*SHAPE) + np.full(pixels // 4, np.nan, "<f4").tobytes(),
        "empty": b"",
        "header only": whole[:1024],
        "half": whole[: len(whole) // 2],
    }[kind]


def poison(seed: int) -> npt.NDArray[np.float32]:
    """Return (h, w) pixels that look like any others, but for the first."""
    pixels = image(seed)
    pixels[0, 0] = POISONED_PIXEL
    return pixels


def _packed(path: Path, data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0) if path.suffix == ".gz" else data
