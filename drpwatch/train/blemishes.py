"""What else is on a grid and on a detector: ice, carbon, gold, cracks, aggregates, padding.

Every function takes the grid that is being laid out and a random generator, and changes the grid in place.
Lengths are in units of the particle's diameter in pixels, so that blemishes look the same to the network
at any pixel size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, zoom
from scipy.special import expit

FloatArray = npt.NDArray[np.float32]


@dataclass(slots=True)
class Grid:
    """One field of view before the exposure; all arrays are (h, w)."""

    thickness_angstrom: FloatArray
    transmission: FloatArray
    ice_gain: FloatArray  # factor on the structural noise of the support
    barred: npt.NDArray[np.bool_]  # no particle is placed, and none is labelled, here
    diameter_px: float

    @classmethod
    def empty(cls, shape_yx: tuple[int, int], diameter_px: float) -> Grid:
        """Return clean, even ice."""
        one = np.ones(shape_yx, dtype=np.float32)
        return cls(np.zeros_like(one), one, one.copy(), np.zeros(shape_yx, dtype=bool), diameter_px)

    @property
    def axes(self) -> tuple[FloatArray, FloatArray]:
        """Open grids of y and x."""
        h, w = self.transmission.shape
        return np.arange(h, dtype=np.float32)[:, None], np.arange(w, dtype=np.float32)[None, :]

    def random_point(self, rng: np.random.Generator) -> tuple[float, float]:
        """Return any y, x of the field."""
        h, w = self.transmission.shape
        return float(rng.uniform(0, h)), float(rng.uniform(0, w))


def smooth_field(rng: np.random.Generator, shape_yx: tuple[int, int], cells: float) -> FloatArray:
    """Return a smooth random field of zero mean and unit deviation with about `cells` cells across."""
    n = max(3, round(cells) + 2)
    coarse = rng.standard_normal((n, n))
    field = zoom(coarse, (shape_yx[0] / n + 0.1, shape_yx[1] / n + 0.1), order=3)[
        : shape_yx[0], : shape_yx[1]
    ]
    return np.asarray((field - field.mean()) / (field.std() + 1e-6), dtype=np.float32)


def gradient(grid: Grid, rng: np.random.Generator) -> None:
    """Make ice that is thicker on one side, and an uneven beam."""
    tilt = smooth_field(rng, grid.transmission.shape, 2)
    grid.transmission *= np.exp(rng.uniform(0, 0.08) * tilt)
    grid.ice_gain *= np.exp(rng.uniform(0, 0.3) * tilt)


def ice_balls(grid: Grid, rng: np.random.Generator) -> None:
    """Add contamination: balls and angular crystals, alone and in heaps, from a third to six diameters."""
    y, x = grid.axes
    heap = grid.random_point(rng)
    heaped = rng.random() < 0.4
    count = int(rng.integers(20, 80)) if rng.random() < 0.15 else int(rng.integers(1, 9))
    for _ in range(count):
        radius = 0.5 * grid.diameter_px * float(np.exp(rng.uniform(np.log(0.35), np.log(6))))
        cy, cx = grid.random_point(rng)
        if heaped:
            cy, cx = rng.normal(heap, 2.5 * grid.diameter_px)
        depth = np.clip(1 - ((y - cy) ** 2 + (x - cx) ** 2) / radius**2, 0, None) ** rng.uniform(0.2, 0.6)
        for _ in range(int(rng.integers(0, 6))):  # facets
            angle, cut = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1.0) * radius
            depth *= ((y - cy) * np.sin(angle) + (x - cx) * np.cos(angle)) < cut
        thickness = float(np.exp(rng.uniform(np.log(60), np.log(900))))
        grid.thickness_angstrom += np.asarray(depth * min(thickness, 250.0), dtype=np.float32)
        grid.transmission *= np.exp(-depth * thickness / rng.uniform(600, 2500)).astype(np.float32)
        grid.barred |= depth > 0.05


def crystalline_ice(grid: Grid, rng: np.random.Generator) -> None:
    """Add a mottled texture with grains of a third to one and a half diameters, everywhere or in patches."""
    sigma = grid.diameter_px * rng.uniform(0.12, 0.5)
    noise = rng.standard_normal(grid.transmission.shape)
    texture = gaussian_filter(noise, sigma) - gaussian_filter(noise, 1.6 * sigma)
    texture /= texture.std()
    if rng.random() < 0.5:
        texture = np.clip(texture - rng.uniform(0, 1), 0, None)
    where = smooth_field(rng, grid.transmission.shape, 3) > rng.uniform(-2, 0.5)
    soft = gaussian_filter(where.astype(np.float32), grid.diameter_px / 2)
    strength = float(np.exp(rng.uniform(np.log(20), np.log(200))))
    grid.thickness_angstrom += np.asarray(texture * soft * strength, dtype=np.float32)
    grid.barred |= (soft > 0.3) & (strength > 60)


def mottle(grid: Grid, rng: np.random.Generator) -> None:
    """Cover the view with a texture that means nothing: thick or dirty ice, frost, residues, a blurred stage.

    Band-passed noise, stretched along one way, through a random curve: spots, streaks, nets and plates.
    """
    h, w = grid.transmission.shape
    fine = grid.diameter_px * float(np.exp(rng.uniform(np.log(0.08), np.log(0.8))))
    stretch = float(np.exp(rng.uniform(0, np.log(6)) * (rng.random() < 0.4)))
    noise = rng.standard_normal((h, w))
    sigmas = np.array([fine, fine * stretch])[:: int(rng.choice([1, -1]))]
    field = gaussian_filter(noise, sigmas, mode="wrap")
    if rng.random() < 0.6:
        field -= gaussian_filter(noise, sigmas * rng.uniform(1.3, 3), mode="wrap")
    field /= field.std()
    curve = int(rng.integers(4))
    if curve == 1:
        field = np.clip(field - rng.uniform(0, 1.5), 0, None)
    elif curve == 2:
        field = np.exp(rng.uniform(0.3, 1) * field)
    elif curve == 3:
        field = -abs(field)
    field = (field - field.mean()) / (field.std() + 1e-6)
    strength = float(np.exp(rng.uniform(np.log(15), np.log(200))))
    grid.thickness_angstrom += np.asarray(field * strength, dtype=np.float32)
    grid.transmission *= np.exp(rng.uniform(-0.03, 0.15) * np.clip(-field, -3, 3)).astype(np.float32)
    grid.barred |= strength > 40


def heaps(grid: Grid, rng: np.random.Generator) -> None:
    """Add aggregates that sprawl: chains and nets of lumps that nobody would pick."""
    h, w = grid.transmission.shape
    seeds = np.zeros((h, w), dtype=np.float32)
    for _ in range(int(rng.integers(1, 5))):
        place, way = np.array(grid.random_point(rng)), rng.uniform(0, 2 * np.pi)
        for _ in range(int(rng.integers(15, 120))):
            way += rng.normal(0, 0.7)
            place += grid.diameter_px * rng.uniform(0.2, 0.6) * np.array([np.sin(way), np.cos(way)])
            row, column = int(place[0]), int(place[1])
            if 0 <= row < h and 0 <= column < w:
                seeds[row, column] += rng.uniform(0.3, 1)
    sigma = grid.diameter_px * rng.uniform(0.12, 0.35)
    heap = gaussian_filter(seeds, sigma) * np.float32(2 * np.pi * sigma**2)
    grid.thickness_angstrom += heap * np.float32(np.exp(rng.uniform(np.log(60), np.log(400))))
    grid.transmission *= np.exp(-heap * np.float32(rng.uniform(0, 0.3)))
    grid.barred |= gaussian_filter(seeds, 1.5 * sigma) * (2 * np.pi * sigma**2) > 0.05


def film_edge(grid: Grid, rng: np.random.Generator) -> None:
    """Add the rim of a hole in carbon or gold, with its fringe; sometimes the film covers the whole view."""
    y, x = grid.axes
    h, w = grid.transmission.shape
    radius = rng.uniform(0.6, 3) * max(h, w)
    angle = rng.uniform(0, 2 * np.pi)
    away = radius - rng.uniform(-0.1, 0.45) * max(h, w)
    cy, cx = h / 2 + away * np.sin(angle), w / 2 + away * np.cos(angle)
    outside = np.hypot(y - cy, x - cx) - radius
    if rng.random() < 0.15:
        outside = np.full((h, w), 1e3, dtype=np.float32)
    film = np.asarray(expit(outside / (grid.diameter_px * rng.uniform(0.03, 0.15))), dtype=np.float32)
    gold = rng.random() < 0.25
    grid.transmission *= 1 - film * np.float32(rng.uniform(0.7, 0.97) if gold else rng.uniform(0.03, 0.35))
    grid.thickness_angstrom += film * np.float32(rng.uniform(20, 200))
    grid.ice_gain *= 1 + film * np.float32(rng.uniform(0.5, 5))
    grid.barred |= film > 0.3


def beads(grid: Grid, rng: np.random.Generator) -> None:
    """Add gold fiducials or ferritin-like dots: small, round, nearly black."""
    y, x = grid.axes
    for _ in range(int(rng.integers(1, 12))):
        cy, cx = grid.random_point(rng)
        radius = grid.diameter_px * rng.uniform(0.12, 0.4)
        dot = np.clip(1.2 - np.hypot(y - cy, x - cx) / radius, 0, 1)
        grid.transmission *= np.asarray(1 - dot * rng.uniform(0.4, 0.95), dtype=np.float32)
        grid.barred |= dot > 0


def crack(grid: Grid, rng: np.random.Generator) -> None:
    """Add a bright tear through the ice, with nothing in it."""
    y, x = grid.axes
    cy, cx = grid.random_point(rng)
    angle = rng.uniform(0, np.pi)
    wander = grid.diameter_px * rng.uniform(0, 2) * smooth_field(rng, grid.transmission.shape, 6)
    distance = abs((y - cy) * np.sin(angle) + (x - cx) * np.cos(angle) + wander)
    width = grid.diameter_px * rng.uniform(0.2, 1.5)
    tear = np.asarray(np.clip(1.5 - distance / width, 0, 1), dtype=np.float32)
    grid.transmission *= 1 + tear * np.float32(rng.uniform(0.1, 0.5))
    grid.ice_gain *= 1 - 0.8 * tear
    grid.barred |= tear > 0.3


def ethane(grid: Grid, rng: np.random.Generator) -> None:
    """Add drops of frozen ethane: round, soft, paler or darker than the ice, up to ten diameters."""
    y, x = grid.axes
    for _ in range(int(rng.integers(1, 6))):
        cy, cx = grid.random_point(rng)
        radius = 0.5 * grid.diameter_px * float(np.exp(rng.uniform(0, np.log(10))))
        drop = expit((radius - np.hypot(y - cy, x - cx)) / (grid.diameter_px * rng.uniform(0.05, 0.4)))
        grid.transmission *= np.exp(np.asarray(drop * rng.uniform(-0.15, 0.1), dtype=np.float32))
        grid.barred |= drop > 0.3


def dead_pixels(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Let some pixels of the detector always say the same: nothing, or far too much."""
    dead = rng.random(image.shape) < 10 ** rng.uniform(-5, -3)
    return np.where(dead, np.float32(rng.choice([0.0, image.min(), 3 * image.max()])), image)


def stripes(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Give rows or columns of the detector another gain."""
    axis = int(rng.integers(2))
    length = image.shape[axis]
    gain = 1 + 0.02 * rng.standard_normal(length) * (rng.random(length) < 0.1)
    return np.asarray(image * np.expand_dims(gain, 1 - axis), dtype=np.float32)


def padding(image: FloatArray, rng: np.random.Generator, diameter_px: float) -> tuple[FloatArray, FloatArray]:
    """Fill strips at the borders with the edge or a constant; return the image and its inside, (h, w)."""
    strips = (rng.uniform(0, 1.2, size=4) * diameter_px * (rng.random(4) < 0.6)).astype(int)
    top, bottom, left, right = (int(s) for s in strips)
    h, w = image.shape
    inside = np.zeros((h, w), dtype=np.float32)
    inside[top : h - bottom, left : w - right] = 1
    core = image[top : h - bottom, left : w - right]
    widths = ((top, bottom), (left, right))
    if rng.random() < 0.7:
        return np.pad(core, widths, mode="edge"), inside
    return np.pad(
        core, widths, constant_values=float(rng.choice([core.min(), core.mean(), core.max()]))
    ), inside


def after_processing(image: FloatArray, rng: np.random.Generator, diameter_px: float) -> FloatArray:
    """Do what programs did to an image before it came here: low-pass, denoise, stretch to 8 bits."""
    choice = rng.random()
    if choice < 0.25:
        image = gaussian_filter(image, diameter_px * rng.uniform(0.01, 0.12))
    elif choice < 0.5:  # a denoiser keeps the low frequencies and some of the detail
        smooth = gaussian_filter(image, diameter_px * rng.uniform(0.03, 0.14))
        image = smooth + rng.choice([0.0, rng.uniform(0, 0.3)]) * (image - smooth)
    if rng.random() < 0.5:
        image = recoloured(image, rng, diameter_px)
    if rng.random() < 0.3:
        low, high = np.percentile(image, [rng.uniform(0.01, 0.5), 100 - rng.uniform(0.01, 0.5)])
        image = np.round(np.clip((image - low) / (high - low + 1e-9), 0, 1) * 255)
    return np.asarray(image, dtype=np.float32)


def recoloured(image: FloatArray, rng: np.random.Generator, diameter_px: float) -> FloatArray:
    """Filter by a smooth random curve of spatial frequency: detector, envelope, sharpening, high-pass.

    The signal-to-noise ratio at each frequency stays; what the eye (and a network) sees changes a lot.
    """
    frequency = np.hypot(np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])[None, :])
    octave = np.log2(np.maximum(frequency * diameter_px, 0.25))  # 0: one diameter
    knots = np.arange(-2.0, 5.0)
    gain = np.exp(np.interp(octave, knots, np.cumsum(rng.normal(0, 0.3, size=len(knots)))))
    if rng.random() < 0.3:
        gain *= 1 - np.exp(-0.5 * (frequency * diameter_px / rng.uniform(0.2, 0.8)) ** 2)
    middle = image.mean()
    return np.asarray(
        np.fft.irfft2(np.fft.rfft2(image - middle) * gain, image.shape) + middle, dtype=np.float32
    )
