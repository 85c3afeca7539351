"""Simulated micrographs: particles in ice, seen through a real CTF, with all that goes wrong on a grid.

A scene is laid out (`_place`, `blemishes`), exposed (`optics.expose`) and post-processed. The same code makes
training data at the networks' working scale, where a diameter is about 18 pixels, and whole micrographs at a
microscope's pixel size. Everything is drawn from the seed and the scene's number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from drpwatch.pick.trees import tree_of
from drpwatch.train import blemishes
from drpwatch.train.blemishes import Grid
from drpwatch.train.optics import PHASE_PER_ANGSTROM, Optics, expose, transfer
from drpwatch.train.shapes import Species

FloatArray = npt.NDArray[np.float32]

_ICE_NOISE_ANGSTROM = (2.5, 10.0)
"""Of protein, the rms over pixels of 10 A: density fluctuations of water, of which the structure factor at low
frequency is 0.06, are 4 A in ice that is 300 A thick."""
_DIRTY, _DIRT = 0.15, 4  # so often a buffer has so many times more
_LEAST_VISIBLE = 1.6, 2.5
"""Signal-to-noise ratio of the filter that knows the particle, at least: for networks, and where scores are learned.
There, fields in which next to nothing can be found would teach only that noise, too, is often right by chance."""
_DOSES = (0.01, 500.0)  # electrons per square angstrom
_HALVINGS = 20
_CROWDED = (0.15, 0.7), (0.2, 1.0)
"""Coverage that is wanted of fields with many particles: for networks, and where scores are learned. There the grid is
as people make it, crowded; and much of what is wanted finds no place."""
_TRIES = 12  # places that are tried for each particle
_VIEWS = 40  # different projections of one species in one scene


@dataclass(frozen=True, slots=True)
class Conditions:
    """What is drawn for one scene."""

    optics: Optics
    dose_per_angstrom_squared: float
    ice_noise_angstrom: float  # rms of the support's thickness in pixels of 10 angstrom
    visibility: float | None  # if given, noise is scaled to this signal-to-noise ratio of a matched filter
    coverage: float  # share of the field's area that discs of one diameter cover; 0: no particle
    spacing: float  # least distance of two particles, in diameters
    preferred_view: bool
    clustered: bool
    blemished: float  # factor on the chance of every blemish; 0: a clean grid
    true_ice: bool = False  # the ice's noise is what it is: only the dose is scaled


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A simulated micrograph and its truth.

    `pixels` is (h, w) float32, particles dark; `yx_px` is (n, 2) float32, centres of mass; `inside` is
    (h, w), 0 where a label would be unfair (padding).
    """

    pixels: FloatArray
    yx_px: FloatArray
    inside: FloatArray
    species: str
    diameter_angstrom: float
    pixel_size_angstrom: float
    conditions: Conditions


def draw_conditions(rng: np.random.Generator, *, true_ice: bool = False) -> Conditions:
    """Draw one session's worth of conditions, from easy to hopeless.

    Parameters
    ----------
    true_ice
        Whether ice has the noise that it has. Networks that find particles learn more from ice of any noise; what a
        score is worth is to be learned from ice as it is, whose noise, like particles, shows the rings of the CTF; and
        from fields that hold either nothing or what can be found, mostly a crowd of it.
    """
    plate = rng.random() < 0.08
    close = plate or rng.random() < 0.25  # to focus: hollow particles become rings there
    strongest = 5 if rng.random() < 0.5 else 22  # weak particles take more learning than clear ones
    optics = Optics(
        voltage_kv=float(rng.choice([200.0, 300.0])),
        spherical_aberration_mm=float(rng.choice([2.0, 2.7])),
        amplitude_contrast=float(rng.uniform(0.06, 0.12)),
        defocus_um=float(rng.uniform(0.4, 1.5) if close else np.exp(rng.uniform(np.log(0.6), np.log(4.0)))),
        phase_shift_rad=float(rng.uniform(0.8, 2.2)) if plate else 0.0,
        b_factor_angstrom_squared=float(rng.uniform(80, 500)),
    )
    dose_per_angstrom_squared = float(np.exp(rng.uniform(np.log(0.8), np.log(60))))
    ice_noise_angstrom = float(np.exp(rng.uniform(np.log(4), np.log(40))))
    if true_ice:
        ice_noise_angstrom = float(np.exp(rng.uniform(*np.log(_ICE_NOISE_ANGSTROM))))
        ice_noise_angstrom *= _DIRT if rng.random() < _DIRTY else 1
    return Conditions(
        optics=optics,
        dose_per_angstrom_squared=dose_per_angstrom_squared,
        ice_noise_angstrom=ice_noise_angstrom,
        visibility=float(np.exp(rng.uniform(np.log(_LEAST_VISIBLE[true_ice]), np.log(strongest)))),
        coverage=float(
            rng.choice([0.0, rng.uniform(0.01, 0.15), rng.uniform(*_CROWDED[true_ice])], p=[0.17, 0.17, 0.66])
        ),
        spacing=float(rng.uniform(0.55, 1.15)),
        preferred_view=bool(rng.random() < 0.15),
        clustered=bool(rng.random() < 0.25),
        blemished=float(rng.choice([0.0, 1.0], p=[0.25, 0.75])),
        true_ice=true_ice,
    )


CLEAR = Conditions(
    optics=Optics(defocus_um=2.0),
    dose_per_angstrom_squared=40.0,
    ice_noise_angstrom=12.0,
    visibility=None,
    coverage=0.2,
    spacing=1.0,
    preferred_view=False,
    clustered=False,
    blemished=0.0,
)
"""A good session at a modern microscope: what the demo shows."""


def simulate(
    species: Species,
    others: Sequence[Species],
    conditions: Conditions,
    shape_yx: tuple[int, int],
    pixel_size_angstrom: float,
    rng: np.random.Generator,
) -> Scene:
    """Simulate one micrograph of `species`; `others` lend fragments, which are not labelled."""
    conditions = _made_visible(conditions, species, pixel_size_angstrom, rng)
    diameter_px = species.diameter_angstrom / pixel_size_angstrom
    grid = Grid.empty(shape_yx, diameter_px)
    _blemish(grid, conditions, rng)
    if others and rng.random() < 0.4 * conditions.blemished:
        _scatter_fragments(grid, others, pixel_size_angstrom, rng)
    yx = _place(grid, conditions, rng)
    _add(grid.thickness_angstrom, species, yx, pixel_size_angstrom, conditions.preferred_view, rng)
    if len(yx) and rng.random() < 0.2 * conditions.blemished:
        _aggregate(grid, species, pixel_size_angstrom, rng)
    noise = rng.standard_normal(shape_yx, dtype=np.float32) * grid.ice_gain
    grid.thickness_angstrom += noise * np.float32(conditions.ice_noise_angstrom * 10 / pixel_size_angstrom)
    image = expose(
        grid.thickness_angstrom,
        grid.transmission,
        conditions.optics,
        pixel_size_angstrom,
        conditions.dose_per_angstrom_squared,
        rng,
    )
    inside = np.ones(shape_yx, dtype=np.float32)
    if rng.random() < 0.1 * conditions.blemished:
        image = blemishes.stripes(image, rng)
    if rng.random() < 0.05 * conditions.blemished:
        image = blemishes.dead_pixels(image, rng)
    if conditions.blemished:
        image = blemishes.after_processing(image, rng, diameter_px)
    if rng.random() < 0.1 * conditions.blemished:
        image, inside = blemishes.padding(image, rng, diameter_px)
    hidden = grid.barred | (inside == 0)
    yx = yx[~hidden[tuple(np.clip(np.round(yx).astype(int), 0, np.array(shape_yx) - 1).T)]]
    return Scene(
        pixels=image,
        yx_px=yx.astype(np.float32),
        inside=inside,
        species=species.name,
        diameter_angstrom=species.diameter_angstrom,
        pixel_size_angstrom=pixel_size_angstrom,
        conditions=conditions,
    )


def _made_visible(
    conditions: Conditions, species: Species, pixel_size_angstrom: float, rng: np.random.Generator
) -> Conditions:
    """Return conditions whose noise gives the wanted visibility, or comes as near to it as the ice lets it.

    The signal-to-noise ratio of the filter that is matched to the mean projection and to both noises:
    d'^2 = sum over k of |signal(k)|^2 / noise(k), leaving out what is larger than two diameters.
    """
    if conditions.visibility is None:
        return conditions
    views = species.project(Rotation.random(6, rng=rng), pixel_size_angstrom).numpy()
    shape = views.shape[1:]
    radian = 2 * PHASE_PER_ANGSTROM * np.sqrt(300 / conditions.optics.voltage_kv)
    ctf_squared = transfer(conditions.optics, shape, pixel_size_angstrom) ** 2
    signal = (np.abs(np.fft.rfft2(views)) ** 2).mean(axis=0) * radian**2 * ctf_squared
    k = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :]) / pixel_size_angstrom
    ice = (radian * conditions.ice_noise_angstrom * 10 / pixel_size_angstrom) ** 2 * ctf_squared

    def seen_squared(dose: float) -> float:
        shot = 1 / (dose * pixel_size_angstrom**2)
        ratio = np.where(k > 0.5 / species.diameter_angstrom, signal / (ice + shot), 0)
        return float(2 * ratio.sum() / (shape[0] * shape[1]))  # rfft2 holds half of the plane

    wanted_squared = conditions.visibility**2
    if conditions.true_ice:
        return replace(conditions, dose_per_angstrom_squared=_dose_for(wanted_squared, seen_squared))
    factor = seen_squared(conditions.dose_per_angstrom_squared) / wanted_squared
    return replace(
        conditions,
        dose_per_angstrom_squared=float(np.clip(conditions.dose_per_angstrom_squared / factor, 0.05, 500)),
        ice_noise_angstrom=float(conditions.ice_noise_angstrom * np.sqrt(factor)),
    )


def _dose_for(wanted_squared: float, seen_squared: Callable[[float], float]) -> float:
    """Return the dose at which so much is seen, by halving the range of doses."""
    low, high = _DOSES
    for _ in range(_HALVINGS):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if seen_squared(middle) < wanted_squared else (low, middle)
    return low


def _blemish(grid: Grid, conditions: Conditions, rng: np.random.Generator) -> None:
    """Draw which blemishes this field has, and lay them out."""
    chances = (
        (blemishes.gradient, 0.7),
        (blemishes.ice_balls, 0.35),
        (blemishes.film_edge, 0.2),
        (blemishes.crystalline_ice, 0.1),
        (blemishes.mottle, 0.1),
        (blemishes.heaps, 0.05),
        (blemishes.ethane, 0.04),
        (blemishes.beads, 0.06),
        (blemishes.crack, 0.06),
    )
    # Fields are empty for a reason.
    factor = conditions.blemished * (2.0 if conditions.coverage == 0 else 1.0)
    for blemish, chance in chances:
        if rng.random() < chance * factor:
            blemish(grid, rng)


def _place(grid: Grid, conditions: Conditions, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return particle centres, (n, 2), no two closer than the spacing, none on what is barred."""
    h, w = grid.transmission.shape
    wanted = int(conditions.coverage * h * w / (np.pi * (grid.diameter_px / 2) ** 2))
    candidates = rng.uniform((0, 0), (h, w), size=(_TRIES * wanted + 1, 2))
    index = tuple(candidates.astype(int).T)
    keep = ~grid.barred[index]
    if conditions.clustered:
        keep &= blemishes.smooth_field(rng, (h, w), 4)[index] > rng.uniform(-0.8, 0.5)
    return thin(candidates[keep], conditions.spacing * grid.diameter_px)[:wanted]


def thin(yx: npt.NDArray[np.float64], distance: float) -> npt.NDArray[np.float64]:
    """Return the points, first come first kept, of which no two are closer than `distance`."""
    keep = np.ones(len(yx), dtype=bool)
    if len(yx) > 1:
        for first, second in sorted(tree_of(yx).query_pairs(distance)):
            if keep[first]:
                keep[second] = False
    return yx[keep]


def _add(
    thickness: FloatArray,
    species: Species,
    yx: npt.NDArray[np.float64],
    pixel_size_angstrom: float,
    preferred_view: bool,
    rng: np.random.Generator,
) -> None:
    """Add projections of the species, centred at `yx` to the nearest pixel, to the thickness map."""
    if len(yx) == 0:
        return
    turns = Rotation.random(min(_VIEWS, len(yx)), rng=rng)
    if preferred_view:  # one view, tilted by some degrees, at any in-plane angle
        tilt = Rotation.from_rotvec(rng.normal(0, 0.2, size=(len(turns), 3)))
        spin = Rotation.from_rotvec(np.outer(rng.uniform(0, 2 * np.pi, len(turns)), (0, 0, 1)))
        turns = spin * tilt * turns[0]
    views = species.project(turns, pixel_size_angstrom).numpy()
    half = views.shape[1] // 2
    padded = np.zeros((thickness.shape[0] + 2 * half, thickness.shape[1] + 2 * half), dtype=np.float32)
    pixels = np.clip(np.round(yx).astype(int), 0, np.array(thickness.shape) - 1)
    for i, (y, x) in enumerate(pixels):
        padded[y : y + 2 * half + 1, x : x + 2 * half + 1] += views[i % len(views)]
    thickness += padded[half : half + thickness.shape[0], half : half + thickness.shape[1]]


def _scatter_fragments(
    grid: Grid, others: Sequence[Species], pixel_size_angstrom: float, rng: np.random.Generator
) -> None:
    """Add pieces that are too small to be the particle: broken complexes, free subunits."""
    h, w = grid.transmission.shape
    other = others[int(rng.integers(len(others)))]
    wanted = rng.uniform(0.15, 0.5) * grid.diameter_px * pixel_size_angstrom
    small = replace(
        other,
        voxel_angstrom=other.voxel_angstrom * wanted / other.diameter_angstrom,
        diameter_angstrom=float(wanted),
    )
    count = int(rng.uniform(0.2, 2.5) * h * w / (np.pi * grid.diameter_px**2))
    yx = rng.uniform((0, 0), (h - 1, w - 1), size=(count, 2))
    _add(grid.thickness_angstrom, small, yx, pixel_size_angstrom, False, rng)


def _aggregate(grid: Grid, species: Species, pixel_size_angstrom: float, rng: np.random.Generator) -> None:
    """Add a heap of the protein itself, which nobody would pick."""
    h, w = grid.transmission.shape
    centre = np.array(grid.random_point(rng))
    count = int(rng.integers(8, 40))
    spread = grid.diameter_px * rng.uniform(0.6, 1.0) * np.sqrt(count) / 3
    yx = np.clip(rng.normal(centre, spread, size=(count, 2)), 0, (h - 1, w - 1))
    _add(grid.thickness_angstrom, species, yx, pixel_size_angstrom, False, rng)
    y, x = grid.axes
    grid.barred |= np.hypot(y - centre[0], x - centre[1]) < 2 * spread
