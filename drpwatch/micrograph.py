"""The types that stages hand to each other, and the conversion between pixels and angstrom.

Arrays are `yx` (row, column). Pixel coordinates are those of the file: 0-based, row 0 is the first
row stored, pixel centres at integers. Only `formats.star` writes `xy`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from drpwatch.errors import UnusableMicrograph, UsageError

FloatArray = npt.NDArray[np.float32]

SCORE_FLOOR = 0.02
"""Candidates below this score are not kept, not even in the journal."""
_CLEARLY_LARGER = 1.1  # times the diameter given


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What `stat` says of one state of a file; equal fingerprints mean the same content."""

    size_bytes: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class Sighting:
    """One look at one directory entry."""

    name: str  # path below the watch root, "/" separated: the micrograph's identity
    fingerprint: Fingerprint
    is_file: bool  # False for a directory, FIFO, socket or device that carries a micrograph's name


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What is needed to read the pixels of one 2-D image."""

    shape_yx: tuple[int, int]
    dtype: np.dtype[Any]  # as stored, byte order included
    data_offset_bytes: int
    pixel_size_yx_angstrom: tuple[float, float] | None  # None: the header does not say
    compressed: bool = False  # gzip: then the file's own size says nothing of completeness

    @property
    def data_bytes(self) -> int:
        """Size of the pixel data."""
        return self.shape_yx[0] * self.shape_yx[1] * self.dtype.itemsize

    @property
    def expected_bytes(self) -> int:
        """Size of the whole file once it is complete."""
        return self.data_offset_bytes + self.data_bytes


@dataclass(frozen=True, slots=True)
class PickParams:
    """What a user says about the specimen; a diameter is all that is needed.

    Raises
    ------
    UsageError
        A value is out of the range in which it has a meaning.
    """

    diameter_angstrom: float
    pixel_size_angstrom: float | None = None  # None: read from each header
    negative_stain: bool = False
    threshold: float | None = None  # None: the default that the weights carry
    model: str = "general"  # name of shipped weights, or a path

    def __post_init__(self) -> None:
        if not (math.isfinite(self.diameter_angstrom) and 10 <= self.diameter_angstrom <= 10_000):
            raise UsageError(f"diameter {self.diameter_angstrom} Å is not between 10 and 10000 Å")
        size = self.pixel_size_angstrom
        if size is not None and not (math.isfinite(size) and 0.05 <= size <= 50):
            raise UsageError(f"pixel size {size} Å is not between 0.05 and 50 Å")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise UsageError(f"threshold {self.threshold} is not a probability between 0 and 1")

    def seen_diameter_angstrom(self, enlargement: float) -> float | None:
        """Return the diameter that so many times the one given is; None if that is not clearly more."""
        return enlargement * self.diameter_angstrom if enlargement >= _CLEARLY_LARGER else None

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Rebuild from `as_dict`."""
        return cls(**values)

    def pixel_size_yx(self, header: ImageHeader) -> tuple[float, float]:
        """Return angstrom per pixel along y and x: the user's value, else the header's.

        Raises
        ------
        UnusableMicrograph
            Neither says; a guess would put every pick out of scale.
        """
        if self.pixel_size_angstrom is not None:
            return self.pixel_size_angstrom, self.pixel_size_angstrom
        if header.pixel_size_yx_angstrom is None:
            raise UnusableMicrograph(
                "the header gives no pixel size: give the session a --pixel-size-angstrom"
            )
        return header.pixel_size_yx_angstrom


@dataclass(frozen=True, slots=True)
class ReadyMicrograph:
    """A micrograph that is whole and waits to be picked, with all that picking it needs."""

    micrograph_id: int
    session: str
    name: str
    generation: int
    path: Path
    header: ImageHeader
    fingerprint: Fingerprint
    params_id: int
    params: PickParams
    ready_at: float = 0.0  # unix seconds: when it was found whole
    weights_sha256: str | None = (
        None  # of the weights to pick with; None: whatever the model's name stands for
    )
    asked: bool = False  # somebody wants it picked again, whether or not the file has changed
    content: str | None = None  # checksum of the pixels, once they were read


@dataclass(frozen=True, slots=True)
class Picks:
    """Candidates of one micrograph, best first; all that reach `SCORE_FLOOR` are kept.

    `yx_px` is (n, 2) float32 in full-frame pixels, `score` is (n,) float32: the probability that
    the candidate is a particle. Those at or above `threshold` are the picks. Particles were seen to be
    `enlargement` times the diameter given across, or no larger than that.
    """

    yx_px: FloatArray
    score: FloatArray
    threshold: float
    weights_sha256: str  # empty: not known
    enlargement: float = 1.0

    @property
    def chosen(self) -> npt.NDArray[np.bool_]:
        """(n,) mask of the candidates that are picks."""
        # float32 on both sides: a threshold moved later must not change what was chosen now.
        return np.asarray(self.score >= np.float32(self.threshold))

    @property
    def count(self) -> int:
        """Number of picks."""
        return int(self.chosen.sum())


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one micrograph's way: its picks, or the reason why there are none."""

    ready: ReadyMicrograph
    picks: Picks | None
    failure: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)  # per stage: read, prepare, detect, choose
    device: str | None = None  # what picked it

    def __post_init__(self) -> None:
        if (self.picks is None) == (self.failure is None):
            raise ValueError("an outcome has either picks or a failure")


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """What people see of one micrograph, as grey values."""

    micrograph: npt.NDArray[np.uint8]  # (h, w): the whole frame, shrunk; row 0 is that of the file
    spectrum: npt.NDArray[np.uint8]  # (s, s): zero frequency in the middle, Nyquist at the edges
