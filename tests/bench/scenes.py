"""Micrographs for benches of speed: dark discs in white noise, quick to make, with as many candidates as real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from drpwatch.formats.mrc import write_mrc
from drpwatch.train.micrographs import Simulation, choose_species, simulate_one

Pixels = npt.NDArray[np.float32]

PIXEL_SIZE_ANGSTROM = 1.1
DIAMETER_ANGSTROM = 150.0
DENSITY = 300 / 4096**2  # particles in each pixel: a crowded grid


def micrograph(
    seed: int,
    shape_yx: tuple[int, int] = (4096, 4096),
    particles: int | None = None,
    diameter_angstrom: float = DIAMETER_ANGSTROM,
) -> Pixels:
    """Return (h, w) pixels with so many particles; by default they are as dense as on a crowded grid."""
    rng = np.random.default_rng(seed)
    h, w = shape_yx
    pixels = rng.standard_normal(shape_yx, dtype=np.float32)
    count = round(h * w * DENSITY) if particles is None else particles
    radius = int(diameter_angstrom / PIXEL_SIZE_ANGSTROM / 2)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    side = 2 * radius + 1
    disc = (0.4 * (np.hypot(y, x) < radius)).astype(np.float32)
    corners = np.column_stack([rng.integers(0, length - side, size=count) for length in (h, w)])
    for top, left in corners:
        pixels[top : top + side, left : left + side] -= disc
    return pixels


def simulated(count: int, shape_yx: tuple[int, int]) -> list[Pixels]:
    """Return micrographs, (h, w), as `drpwatch simulate` makes them: slower to make, and what the model knows."""
    wanted = Simulation(
        count, shape_yx, PIXEL_SIZE_ANGSTROM, diameter_angstrom=DIAMETER_ANGSTROM, difficulty="clear"
    )
    species, others = choose_species(wanted)
    return [simulate_one(wanted, species, others, number)[0] for number in range(count)]


def write_different(
    folder: Path, count: int, shape_yx: tuple[int, int], dtype: str = "float32"
) -> list[Path]:
    """Write one micrograph so often, shifted each time: what was picked before is not picked again."""
    pixels: npt.NDArray[Any] = micrograph(1, shape_yx).astype(dtype)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"bench_{number:04d}.mrc" for number in range(count)]
    for number, path in enumerate(paths):
        write_mrc(path, np.roll(pixels, 16 * number, axis=(0, 1)), PIXEL_SIZE_ANGSTROM)
    return paths
