"""Many simulated scenes: by several processes, the same whatever their number, and small in memory."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from drpwatch.cores import usable_cores
from drpwatch.errors import DrpwatchError
from drpwatch.pick.preprocess import Preprocessing
from drpwatch.train.dataset import Example, make_example
from drpwatch.train.shapes import Species, load_species

_CHUNK = 4  # scenes that a process is given at once
_species: list[Species] = []  # of a worker process


@dataclass(frozen=True, slots=True)
class Studio:
    """All that decides a scene besides its number."""

    maps: tuple[Path, ...]
    invented: int
    seed: int
    preprocessing: Preprocessing
    true_ice: bool = False  # see `draw_conditions`

    def make(self, species: Sequence[Species], number: int) -> Example:
        """Simulate one scene, in half precision."""
        return packed(make_example(species, self.preprocessing, self.seed, number, true_ice=self.true_ice))

    def species(self) -> list[Species]:
        """Load the maps, and invent the shapes."""
        return load_species(list(self.maps), self.invented, self.seed)


@dataclass(frozen=True, slots=True, eq=False)
class _Sent:
    """An example on its way between processes, in NumPy arrays: tensors would take a file handle each."""

    layers: npt.NDArray[np.float16]  # image, matched, label, weight: (4, h, w)
    yx_px: npt.NDArray[np.float32]
    diameter_px: float


def simulate_scenes(
    studio: Studio,
    species: list[Species],
    numbers: Sequence[int],
    workers: int,
    stop: threading.Event,
    progress: Callable[[int], None],
) -> list[Example]:
    """Simulate scenes, in the order of their numbers; half precision: 0.8 MB for one of 320x320.

    Parameters
    ----------
    species
        The studio's.
    workers
        Processes; 0 for one on each core that this process may use, 1 for none but this one.
    progress
        Called with the number of scenes that are done.

    Raises
    ------
    KeyboardInterrupt
        `stop` was set.
    DrpwatchError
        A process was killed.
    """
    workers = min(workers or usable_cores(), max(1, len(numbers) // _CHUNK))
    source = _here(studio, species, numbers) if workers == 1 else _elsewhere(studio, numbers, workers)
    examples = []
    try:
        for example in source:
            examples.append(example)
            progress(len(examples))
            if stop.is_set():
                raise KeyboardInterrupt
    finally:
        source.close()
    return examples


def packed(example: Example) -> Example:
    """Return an example whose tensors are float16."""
    return Example(
        example.image.half(),
        example.matched.half(),
        example.label.half(),
        example.weight.half(),
        example.yx_px,
        example.diameter_px,
    )


def _here(studio: Studio, species: list[Species], numbers: Sequence[int]) -> Generator[Example]:
    """Yield scenes made by this process."""
    with _one_thread():
        for number in numbers:
            yield studio.make(species, number)


def _elsewhere(studio: Studio, numbers: Sequence[int], workers: int) -> Generator[Example]:
    """Yield scenes made by other processes."""
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(studio,)
    )
    try:
        for sent in pool.map(_make, [(studio, number) for number in numbers], chunksize=_CHUNK):
            image, matched, label, weight = torch.from_numpy(sent.layers)
            yield Example(image, matched, label, weight, sent.yx_px, sent.diameter_px)
    except BrokenProcessPool as error:
        raise DrpwatchError(
            "a process that simulates was killed, maybe for want of memory: give fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(studio: Studio) -> None:
    """Prepare a worker; what the terminal sends is for the parent to decide about."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    _species.extend(studio.species())


def _make(work: tuple[Studio, int]) -> _Sent:
    """Make one scene in a worker."""
    studio, number = work
    example = studio.make(_species, number)
    layers = torch.stack([example.image, example.matched, example.label, example.weight])
    return _Sent(layers.numpy(), example.yx_px, example.diameter_px)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute as a worker does, to the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
