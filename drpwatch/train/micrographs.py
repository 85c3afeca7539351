"""Simulated micrographs on disk: MRC files of one species, and their truth as a STAR file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from drpwatch.errors import UsageError
from drpwatch.formats import star
from drpwatch.formats.mrc import write_mrc
from drpwatch.train.shapes import Species, load_species
from drpwatch.train.simulate import CLEAR, draw_conditions, simulate

FloatArray = npt.NDArray[np.float32]

TRUTH = "truth.star"
DTYPES = ("float32", "float16", "int8", "int16", "uint16")
DIFFICULTIES = ("clear", "any")

_OTHERS = 4  # invented species that lend fragments
_SIGMAS = 8.0  # of the image that the range of an integer type holds on either side
_MOST_COUNTS = 16_000


@dataclass(frozen=True, slots=True)
class Simulation:
    """What to simulate.

    Raises
    ------
    UsageError
        A value is out of the range in which it has a meaning.
    """

    count: int = 10
    shape_yx: tuple[int, int] = (2048, 2048)
    pixel_size_angstrom: float = 1.5
    maps: tuple[Path, ...] = ()
    diameter_angstrom: float | None = None  # None: as the species is
    seed: int = 1
    difficulty: str = "clear"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.count < 1 or min(self.shape_yx) < 64 or max(self.shape_yx) > 16_384:
            raise UsageError("simulate at least one micrograph of 64 to 16384 pixels along each side")
        if not 0.1 <= self.pixel_size_angstrom <= 20:
            raise UsageError(f"pixel size {self.pixel_size_angstrom} Å is not between 0.1 and 20 Å")
        if self.diameter_angstrom is not None and not 40 <= self.diameter_angstrom <= 2000:
            raise UsageError(f"diameter {self.diameter_angstrom} Å is not between 40 and 2000 Å")
        if self.dtype not in DTYPES:
            raise UsageError(f"dtype {self.dtype}: allowed are {', '.join(DTYPES)}")
        if self.difficulty not in DIFFICULTIES:
            raise UsageError(f"difficulty {self.difficulty}: allowed are {', '.join(DIFFICULTIES)}")


@dataclass(frozen=True, slots=True)
class Written:
    """One micrograph on disk, and how many particles its truth has."""

    name: str
    n_particles: int


def choose_species(wanted: Simulation) -> tuple[Species, tuple[Species, ...]]:
    """Return the species to show and those that lend fragments.

    Of several maps the one closest to the diameter is shown, or the seed decides; without maps a shape is
    invented and scaled to the diameter.

    Raises
    ------
    UsageError
        A map cannot be used, or the particle does not fit the micrograph.
    """
    every = load_species(list(wanted.maps), 0 if wanted.maps else 1 + _OTHERS, wanted.seed)
    shown = every[0]
    target = wanted.diameter_angstrom
    if wanted.maps and target is not None:
        shown = min(every, key=lambda one: abs(one.diameter_angstrom - target))
    elif wanted.maps:
        shown = every[int(np.random.default_rng(wanted.seed).integers(len(every)))]
    others = tuple(one for one in every if one is not shown)
    if target is not None and not wanted.maps:
        factor = target / shown.diameter_angstrom
        shown = replace(shown, voxel_angstrom=shown.voxel_angstrom * factor, diameter_angstrom=target)
    if 2 * shown.diameter_angstrom > min(wanted.shape_yx) * wanted.pixel_size_angstrom:
        raise UsageError(
            f"{shown.name} is {shown.diameter_angstrom:.0f} Å across, more than half of the micrograph:"
            " give a larger shape or pixel size"
        )
    return shown, others


def write_micrographs(
    out_dir: Path, wanted: Simulation, species: Species, others: Sequence[Species]
) -> Iterator[Written]:
    """Write the micrographs one by one, and at the end the truth; the same wishes give the same bytes.

    The truth leaves out particles that are closer than half a diameter to the edge: nobody extracts them.

    Raises
    ------
    UsageError
        The directory has a truth already, or cannot be written.
    """
    if (out_dir / TRUTH).exists():
        raise UsageError(f"{out_dir} has a {TRUTH} already: give another directory")
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        truth = [star.particles_header(star.Optics(pixel_size_angstrom=wanted.pixel_size_angstrom))]
        for number in range(wanted.count):
            name = f"simulated_{number + 1:04d}.mrc"
            pixels, yx = simulate_one(wanted, species, others, number)
            write_mrc(out_dir / name, as_dtype(pixels, wanted.dtype), wanted.pixel_size_angstrom)
            truth.append(star.particles_rows(name, yx, np.ones(len(yx), dtype=np.float32)))
            yield Written(name, len(yx))
        (out_dir / TRUTH).write_bytes(b"".join(truth))
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise UsageError(f"{error.filename or out_dir}: cannot be written: {why}") from error


def simulate_one(
    wanted: Simulation, species: Species, others: Sequence[Species], number: int
) -> tuple[FloatArray, FloatArray]:
    """Return the pixels, (h, w), and the centres, (n, 2) yx, of one micrograph of a run."""
    rng = np.random.default_rng((wanted.seed, number))
    conditions = CLEAR if wanted.difficulty == "clear" else draw_conditions(rng)
    scene = simulate(species, others, conditions, wanted.shape_yx, wanted.pixel_size_angstrom, rng)
    margin = 0.5 * species.diameter_angstrom / wanted.pixel_size_angstrom
    far = np.array(wanted.shape_yx, dtype=np.float32) - 1 - margin
    whole = ((scene.yx_px >= margin) & (scene.yx_px <= far)).all(axis=1)
    return scene.pixels, scene.yx_px[whole]


def as_dtype(pixels: FloatArray, dtype: str) -> npt.NDArray[Any]:
    """Return the pixels, (h, w), as another type; integers keep eight deviations on either side of the mean."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return pixels.astype(kind)
    half = min(np.iinfo(kind).max, _MOST_COUNTS)
    spread = max(float(pixels.std()), 1e-12)
    steps = np.round((pixels - pixels.mean()) / spread * (half / _SIGMAS))
    offset = half if kind.kind == "u" else 0
    return np.asarray((np.clip(steps, -half, half) + offset).astype(kind))
