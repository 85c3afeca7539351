"""A simulated microscope: micrographs that arrive in a directory as they do at a real one.

Owns: which file is written when, in how many pieces, and what goes wrong on the way. Does not own: what a
micrograph looks like (`simulate`), nor who picks it.

What goes wrong: every file grows in pieces; one stays truncated while later ones arrive; one is written again,
with other content, after it was picked; and a file that is no micrograph carries a micrograph's name.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from drpwatch.formats import mrc
from drpwatch.train import simulate
from drpwatch.train.shapes import Species, invented_species

SHAPE_YX = (1024, 1024)
PIXEL_SIZE_ANGSTROM = 3.0
LEAST_COUNT = 6  # fewer leave no room for what goes wrong

_TRUNCATED, _REWRITTEN = 1, 2  # indices
_COMPLETED_AFTER, _REWRITTEN_AFTER = (
    3,
    4,
)  # indices of the exposures after which it is put right, or rewritten
_PIECES = 4
_JUNK = b"This is a note that somebody saved under a micrograph's name.\n" * 40
_POLL_S = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Exposure:
    """One state of one micrograph; `truth_yx` is (n, 2) pixels, of the particles that are wholly inside."""

    name: str  # below the directory
    generation: int
    truth_yx: npt.NDArray[np.float32]
    finished_at: float  # unix seconds: when its last byte was written


@dataclass(frozen=True, slots=True, eq=False)
class _Content:
    """What is, or will be, in a file."""

    data: bytes
    truth_yx: npt.NDArray[np.float32]


class Microscope:
    """Writes `count` micrographs of one species below a directory.

    `exposures` has the last state of each that is whole, by name, and grows while `run` works.
    """

    def __init__(self, directory: Path, species: Species, count: int, seed: int, pace_s: float) -> None:
        self.species = species
        self.exposures: dict[str, Exposure] = {}
        self._directory = directory
        self._count = count
        self._seed = seed
        self.pace_s = pace_s

    @property
    def names(self) -> list[str]:
        """All names that there will be, in order, without that of the junk."""
        half = (self._count + 1) // 2
        return [f"square_{1 + (i >= half)}/mic_{i + 1:04d}.mrc" for i in range(self._count)]

    @property
    def junk_name(self) -> str:
        """The file that is no micrograph."""
        return "square_1/note.mrc"

    @property
    def rewritten_name(self) -> str:
        """The micrograph that is written again."""
        return self.names[_REWRITTEN]

    def run(self, stop: threading.Event, is_picked: Callable[[str], bool]) -> None:
        """Write everything; return early where `stop` is set.

        Parameters
        ----------
        stop
            Ends it at the next piece.
        is_picked
            Tells whether a micrograph has been picked; the rewrite waits for that.
        """
        for name in (*self.names, self.junk_name):
            (self._directory / name).parent.mkdir(parents=True, exist_ok=True)
        half_written = _Content(b"", np.empty((0, 2), np.float32))
        for index, name in enumerate(self.names):
            content = self._expose(index, generation=1)
            if index == _TRUNCATED:
                half_written = content
                self._write(name, content.data[: len(content.data) // 2], stop)
            elif self._write(name, content.data, stop):
                self._finished(name, 1, content)
            if index == 0:
                (self._directory / self.junk_name).write_bytes(_JUNK)
            if index == _COMPLETED_AFTER:
                self._complete(self.names[_TRUNCATED], half_written, stop)
            if index == _REWRITTEN_AFTER:
                self._rewrite(stop, is_picked)
            if stop.is_set():
                return

    def _complete(self, name: str, content: _Content, stop: threading.Event) -> None:
        """Write the other half of the truncated micrograph."""
        if self._write(name, content.data, stop, start_bytes=len(content.data) // 2):
            self._finished(name, 1, content)

    def _rewrite(self, stop: threading.Event, is_picked: Callable[[str], bool]) -> None:
        """Write other content over a micrograph that has been picked."""
        name = self.rewritten_name
        while not is_picked(name):
            if stop.wait(_POLL_S):
                return
        content = self._expose(_REWRITTEN, generation=2)
        if self._write(name, content.data, stop):
            self._finished(name, 2, content)

    def _expose(self, index: int, generation: int) -> _Content:
        """Simulate a micrograph, and bring it into the form of a file."""
        scene = simulate.simulate(
            self.species,
            [],
            simulate.CLEAR,
            SHAPE_YX,
            PIXEL_SIZE_ANGSTROM,
            np.random.default_rng((self._seed, index, generation)),
        )
        with TemporaryDirectory() as folder:
            path = Path(folder, "exposure.mrc")
            mrc.write_mrc(path, scene.pixels, PIXEL_SIZE_ANGSTROM)
            data = path.read_bytes()
        margin = self.species.diameter_angstrom / PIXEL_SIZE_ANGSTROM / 2
        far = np.array(SHAPE_YX) - 1 - margin
        whole = ((scene.yx_px >= margin) & (scene.yx_px <= far)).all(axis=1)
        return _Content(data, scene.yx_px[whole])

    def _write(self, name: str, data: bytes, stop: threading.Event, start_bytes: int = 0) -> bool:
        """Write a file's content in pieces, after a pause each; return whether all is written."""
        with (self._directory / name).open("r+b" if start_bytes else "wb", buffering=0) as file:
            file.seek(start_bytes)
            for piece in _pieces(data[start_bytes:]):
                if stop.wait(self.pace_s / _PIECES):
                    return False
                file.write(piece)
        return True

    def _finished(self, name: str, generation: int, content: _Content) -> None:
        self.exposures[name] = Exposure(name, generation, content.truth_yx, time.time())


def _pieces(data: bytes) -> Iterator[bytes]:
    length = -(-len(data) // _PIECES)
    for start in range(0, len(data), length):
        yield data[start : start + length]


def compact_species(seed: int) -> Species:
    """Return an invented species of a middling size, filled, whose views all have much the same width."""
    for i in range(1000):
        species = invented_species(np.random.default_rng((seed, 11, i)))
        bulk = float((species.density > 0.3).float().mean())
        middle = species.density.shape[0] // 2
        core = float(
            species.density[middle - 2 : middle + 3, middle - 2 : middle + 3, middle - 2 : middle + 3].mean()
        )
        if 140 <= species.diameter_angstrom <= 230 and bulk >= 0.2 and core >= 0.3:
            return species
    raise AssertionError("one shape in ten is like that")
