"""Species: densities of proteins and of shapes made here, and their projections.

A density is 1 inside protein and 0 in ice, so that a projection is the protein's thickness in angstrom.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from drpwatch.errors import UsageError

_VOXELS_ACROSS = 48  # of the shapes made here


@dataclass(frozen=True, slots=True, eq=False)
class Species:
    """One kind of particle.

    `density` is (d, h, w) float32, centred on its centre of mass; `diameter_angstrom` is its longest extent.
    """

    name: str
    density: torch.Tensor
    voxel_angstrom: float
    diameter_angstrom: float

    def project(self, rotations: Rotation, pixel_size_angstrom: float) -> torch.Tensor:
        """Return thickness maps in angstrom, (n, b, b), one for each rotation; b is odd."""
        box = 2 * int(np.ceil(0.6 * self.diameter_angstrom / pixel_size_angstrom)) + 1
        # Averaging down first keeps the linear interpolation below from aliasing.
        step = max(1, round(pixel_size_angstrom / self.voxel_angstrom))
        volume = F.avg_pool3d(self.density[None, None], step, ceil_mode=True, count_include_pad=False)
        extent = torch.tensor(volume.shape[:1:-1]) * step * self.voxel_angstrom / 2  # (x, y, z) half sizes
        axis = (torch.arange(box) - box // 2) * pixel_size_angstrom
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        points = torch.stack([x, y, z], dim=-1).reshape(-1, 3)  # (b*b*b, xyz)
        images = []
        for matrix in rotations.as_matrix():
            turned = points @ torch.from_numpy(matrix.astype(np.float32)) / extent
            sampled = F.grid_sample(volume, turned.view(1, box, box, box, 3), align_corners=False)
            images.append(sampled[0, 0].sum(dim=0) * pixel_size_angstrom)
        return torch.stack(images)


def species_from_map(path: Path) -> Species:
    """Read a density map (.mrc, .map, .gz) and normalise it to 1 inside the protein.

    Raises
    ------
    UsageError
        The file is no 3-D map, is empty, or its header has no voxel size.
    """
    try:
        with mrcfile.open(path, permissive=True) as mrc:
            values = np.asarray(mrc.data, dtype=np.float32)
            voxel = float(mrc.voxel_size.x)
    except (OSError, EOFError, ValueError, TypeError, zlib.error) as error:
        raise UsageError(f"{path}: not a readable map ({error})") from error
    if values.ndim != 3 or min(values.shape) < 4 or voxel <= 0:
        raise UsageError(f"{path}: not a 3-D map with a voxel size")
    values = np.clip(values, 0, None)
    if not values.any():
        raise UsageError(f"{path}: the map is empty")
    inside = values > 0.15 * np.percentile(values[values > 0], 99.5)
    values = np.clip(values / values[inside].mean(), 0, 2) * inside
    return _species(path.name.split(".")[0], values, voxel)


def invented_species(rng: np.random.Generator) -> Species:
    """Make a protein-like shape.

    Blobs with a cyclic or dihedral symmetry, alone or in a detergent belt; a rod, shell, barrel, block or horseshoe.
    """
    size_angstrom = float(np.exp(rng.uniform(np.log(80), np.log(400))))
    axis = np.linspace(-1, 1, _VOXELS_ACROSS, dtype=np.float32)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    kinds = ["blobs"] * 5 + ["belted"] * 2 + ["rod"] + ["shell"] * 4 + ["barrel"] * 2 + ["block", "horseshoe"]
    kind = str(rng.choice(kinds))
    radius = np.sqrt(x**2 + y**2 + z**2)
    around = np.zeros(x.shape, dtype=np.float32)  # what surrounds the protein and is less dense
    if kind == "rod":
        inside = (np.hypot(x, y) < rng.uniform(0.18, 0.4)) & (abs(z) < 0.95)
    elif kind == "shell":
        inside = (radius < 0.95) & (radius > rng.uniform(0.45, 0.85))
        if rng.random() < 0.25:  # a cargo or a genome
            around = rng.uniform(0.2, 0.7) * (radius <= 0.95).astype(np.float32)
    elif kind == "barrel":
        width = rng.uniform(0.5, 0.8)
        ring = np.hypot(x, y)
        inside = (ring < width) & (ring > rng.uniform(0.1, 0.6) * width) & (abs(z) < rng.uniform(0.4, 0.95))
    elif kind == "block":  # a box with rounded corners, as many dihedral tetramers look
        sides = np.array([0.9, rng.uniform(0.55, 0.85), rng.uniform(0.4, 0.7)], dtype=np.float32)
        inside = (abs(z / sides[0]) ** 4 + abs(y / sides[1]) ** 4 + abs(x / sides[2]) ** 4) < 1
    elif kind == "horseshoe":
        ring, turn = np.hypot(x, y), np.arctan2(y, x)
        width = rng.uniform(0.15, 0.3)
        inside = (np.hypot(ring - 0.65, z) < width) & (abs(turn) < rng.uniform(1.6, 2.8))
    elif kind == "belted":
        inside = _symmetric_blobs(rng, 1.6 * x, 1.6 * y, z)
        around = _belt(rng, x, y, z)
    else:
        inside = _symmetric_blobs(rng, x, y, z)
    lumps = _smooth_noise(rng, inside.shape, sigma_px=2.0)  # domains: no protein is homogeneous
    values = np.maximum(inside * np.clip(1 + 0.35 * lumps, 0.2, 2), around)
    shape = _species(f"invented-{kind}", values.astype(np.float32), 1.0)
    return replace(
        shape, voxel_angstrom=size_angstrom / shape.diameter_angstrom, diameter_angstrom=size_angstrom
    )


def _symmetric_blobs(
    rng: np.random.Generator, x: npt.NDArray[Any], y: npt.NDArray[Any], z: npt.NDArray[Any]
) -> npt.NDArray[np.bool_]:
    """Return the union of a few ellipsoids, repeated by a point group C1 to C7, D2 to D4."""
    fold = int(rng.choice([1, 1, 2, 2, 3, 4, 5, 7]))
    dihedral = bool(rng.random() < 0.4)
    inside = np.zeros(x.shape, dtype=bool)
    for _ in range(int(rng.integers(1, 5))):
        reach = rng.uniform(0.15, 0.6)
        direction = rng.normal(size=3)
        centre = reach * direction / np.linalg.norm(direction)
        radii = rng.uniform(0.15, 0.4, size=3)
        for turn in range(fold):
            angle = 2 * np.pi * turn / fold
            cx, cy = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ centre[:2]
            for sign in (1, -1) if dihedral else (1,):
                blob = (
                    ((x - cx) / radii[0]) ** 2
                    + ((y - sign * cy) / radii[1]) ** 2
                    + ((z - sign * centre[2]) / radii[2]) ** 2
                )
                inside |= blob < 1
    return inside


def _belt(
    rng: np.random.Generator, x: npt.NDArray[Any], y: npt.NDArray[Any], z: npt.NDArray[Any]
) -> npt.NDArray[np.float32]:
    """Return a micelle or nanodisc around the membrane's plane: head groups outside, lighter tails inside."""
    width, height = rng.uniform(0.7, 0.95), rng.uniform(0.18, 0.35)
    shape = np.hypot(x, y) ** 4 / width**4 + z**4 / height**4
    heads, tails = rng.uniform(0.4, 0.9), rng.uniform(0.05, 0.35)
    return np.where(shape < 1, np.where(shape < 0.4, tails, heads), 0).astype(np.float32)


def _smooth_noise(
    rng: np.random.Generator, shape: tuple[int, ...], sigma_px: float
) -> npt.NDArray[np.float32]:
    """Return Gaussian noise of unit deviation, smoothed."""
    noise = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma_px, mode="wrap")
    return np.asarray(noise / noise.std(), dtype=np.float32)


def _species(name: str, values: npt.NDArray[np.float32], voxel_angstrom: float) -> Species:
    """Centre a density on its centre of mass, and measure its longest extent."""
    points = np.argwhere(values > 0.3)
    if len(points) == 0:
        raise UsageError(f"{name}: the map has no density above its noise")
    centre = np.average(points, axis=0, weights=values[tuple(points.T)])
    directions = np.random.default_rng(0).normal(size=(200, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    along = (points - centre) @ directions.T  # (n, 200)
    extent_voxels = float((along.max(axis=0) - along.min(axis=0)).max()) + 1
    half = int(np.ceil(np.abs(points - centre).max())) + 2
    cube = np.zeros((2 * half + 1,) * 3, dtype=np.float32)
    moved = np.round(points - centre).astype(int) + half
    cube[tuple(moved.T)] = values[tuple(points.T)]
    return Species(name, torch.from_numpy(cube), voxel_angstrom, extent_voxels * voxel_angstrom)


def load_species(maps: list[Path], invented: int, seed: int) -> list[Species]:
    """Return the species of all maps (files, or folders searched for them) and `invented` ones made here."""
    files: list[Path] = []
    for entry in maps:
        found = sorted(p for p in entry.rglob("*") if p.name.endswith((".mrc", ".map", ".mrc.gz", ".map.gz")))
        files += found if entry.is_dir() else [entry]
        if entry.is_dir() and not found:
            raise UsageError(f"{entry}: no .mrc, .map or .mrc.gz maps in this folder")
    species = [species_from_map(path) for path in files]
    return species + [invented_species(np.random.default_rng((seed, 7, i))) for i in range(invented)]
