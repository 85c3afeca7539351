"""The rings that round particles leave in a field's power spectrum, in places that their diameter tells.

Balls and shells of about the particle's size are held against the ripples of the spectrum: how well each of them
explains these tells whether there are round particles at all, and what they look like.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from drpwatch.pick.windows import windows

WINDOW_PX = 128
RINGS = WINDOW_PX // 2 + 1
"""Rings of 1/128 per pixel, from 0 to Nyquist."""
DIAMETER_PX = 18.0
"""Of a particle in the networks' image."""

_LOOKED_AT = slice(3, 36)  # rings from 0.4 to 5 per diameter
_LEAST_POWER = 1e-6
OUTER = tuple(np.arange(0.60, 1.36, 0.05).tolist())
"""Diameters of balls and shells, in those of the particle."""
SMOOTH = 5
"""Cosines that describe a spectrum without rings."""

_HOLLOW = (0.0, 0.4, 0.6, 0.75)  # inner diameters of shells, in the outer ones
_REACH = (2.0, 3.0, 4.0)  # spatial frequencies per diameter at which their rings have faded to 1/e


class Evidence(NamedTuple):
    """What the ripples of a spectrum say of balls and shells, on the device of the spectrum.

    `deviations` (m,) is by how many standard deviations each of them stands out (chance makes 1 to 3 of the best);
    `everything` is the sum of squares of all ripples in these units, and `usual` the deviation that they have.
    """

    deviations: torch.Tensor
    everything: torch.Tensor
    usual: torch.Tensor

    @property
    def probabilities(self) -> torch.Tensor:
        """How probable each of them is, (m,), as errors are normal and as large as all ripples are."""
        return (0.5 * (self.deviations.clamp_min(0) / self.usual).square()).softmax(0)


def typical_rings(picture: torch.Tensor) -> torch.Tensor:
    """Return the log of the power of (h, w) in rings, (65,).

    Its mean over windows of 128 px: what is in few of them, be it however strong, counts for little.
    """
    picture = at_least(picture, WINDOW_PX)
    rows, columns = (math.ceil(2 * (length - WINDOW_PX) / WINDOW_PX) + 1 for length in picture.shape)
    views = windows(picture, WINDOW_PX, (rows, columns))  # they overlap by half or more
    in_ring = _fine_rings(picture.device)
    power = [periodograms(part).flatten(1) @ in_ring for part in torch.split(views, 64)]
    return torch.cat(power).clamp_min(_LEAST_POWER).log().mean(dim=0)


def evidence(
    rings: torch.Tensor, pixels: int, smooth: int = SMOOTH, outer: tuple[float, ...] = OUTER
) -> Evidence:
    """Hold balls and shells against the ripples of a spectrum: what its smooth curve does not explain.

    Parameters
    ----------
    rings
        What `typical_rings` returned.
    pixels
        Of the picture: the more there are, the better a ring's power is known.
    smooth
        How many cosines describe the smooth curve.
    outer
        Diameters of the balls and shells; all shapes of one diameter come one after the other.
    """
    fit = _fit_of(smooth, outer, rings.device)
    weighted = rings.double()[_LOOKED_AT] * fit.weight * math.sqrt(pixels)
    left = weighted - fit.smooth @ (fit.smooth.T @ weighted)
    everything = left.square().sum().clamp_min(1e-12)
    usual = (everything / (len(left) - smooth)).clamp_min(1).sqrt()
    return Evidence(fit.round.T @ left, everything, usual)


@cache
def amplitudes(device: torch.device) -> torch.Tensor:
    """Return the Fourier transform of each ball and shell at the rings, (65, m) float64: unit rms where looked at."""
    return torch.from_numpy(_amplitudes(OUTER)).to(device)


class _Fit(NamedTuple):
    """A least-squares fit to rings.

    `weight` is (n,), for a picture of one pixel; `smooth` (n, k) orthonormal; `round` (n, m) has a direction for each
    ball and shell, of unit length and across all that is smooth.
    """

    weight: torch.Tensor
    smooth: torch.Tensor
    round: torch.Tensor


@cache
def _fit_of(count: int, outer: tuple[float, ...], device: torch.device) -> _Fit:
    """Return the fit with so many cosines.

    The log of a ring's power is known the better, the more independent values of the Fourier transform lie in it:
    pi times its radius times its width for each pixel of the picture.
    """
    ring = np.arange(RINGS)[_LOOKED_AT]
    weight = np.sqrt(np.pi * ring) / WINDOW_PX
    along = np.linspace(0, 1, len(ring))
    cosines = np.array([np.cos(np.pi * k * along) for k in range(count)])
    smooth, _ = np.linalg.qr((cosines * weight).T)
    shapes = _amplitudes(outer)[_LOOKED_AT] ** 2 * weight[:, None]
    across = shapes - smooth @ (smooth.T @ shapes)
    across /= np.sqrt((across**2).sum(0))
    return _Fit(
        *(torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in (weight, smooth, across))
    )


@cache
def _amplitudes(outer: tuple[float, ...]) -> npt.NDArray[np.float64]:
    table = np.array([_amplitude(*shape) for shape in product(outer, _HOLLOW, _REACH)]).T
    return np.ascontiguousarray(table / np.sqrt((table[_LOOKED_AT] ** 2).mean(0)))


def _amplitude(outer: float, hollow: float, reach: float) -> npt.NDArray[np.float64]:
    """Return the Fourier transform of a ball or shell at the rings, (65,), in weak phase contrast at low frequency.

    There the contrast transfer grows with the square of the frequency: its rings stay equally high where those of
    the form factor itself fall with the fourth power.
    """
    frequency = np.arange(RINGS) / WINDOW_PX * DIAMETER_PX
    x = np.pi * frequency * outer
    form = _ball(x) - (hollow**3 * _ball(x * hollow) if hollow else 0)
    return np.asarray(form * frequency**2 * np.exp(-0.5 * (frequency / reach) ** 2))


def _ball(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the Fourier transform of a ball of unit volume; x is pi times diameter times frequency (Rayleigh 1911)."""
    x = np.maximum(x, 1e-3)
    return np.asarray(3 * (np.sin(x) - x * np.cos(x)) / x**3)


def at_least(picture: torch.Tensor, size_px: int) -> torch.Tensor:
    """Return a picture whose sides are no shorter than that: its last rows and columns are repeated."""
    missing = [max(0, size_px - length) for length in picture.shape]
    if not any(missing):
        return picture
    return F.pad(picture[None, None], (0, missing[1], 0, missing[0]), mode="replicate")[0, 0]


def periodograms(views: torch.Tensor) -> torch.Tensor:
    """Return the power of windows, (n, size, size // 2 + 1); 1 in the mean for white noise of unit deviation."""
    window = torch.hann_window(views.shape[-1], device=views.device)
    taper = window[:, None] * window
    centred = views - views.mean(dim=(1, 2), keepdim=True)
    power: torch.Tensor = torch.fft.rfft2(centred * taper).abs().square() / taper.square().sum()
    return power


def frequencies(h: int, w: int, device: torch.device) -> torch.Tensor:
    """Return the spatial frequency per pixel of each value of a real Fourier transform, (h, w // 2 + 1)."""
    return torch.hypot(
        torch.fft.fftfreq(h, device=device)[:, None], torch.fft.rfftfreq(w, device=device)[None]
    )


def in_rings(ring: torch.Tensor, count: int) -> torch.Tensor:
    """Return the matrix, float64, that takes the mean over each ring; what is in none, the corners, is left out.

    A product, which a GPU takes in the same order each time.
    """
    in_ring = (ring.flatten()[:, None] == torch.arange(count, device=ring.device)).double()
    return in_ring / in_ring.sum(0)


@cache
def _fine_rings(device: torch.device) -> torch.Tensor:
    """Return what takes the mean over rings of 1/128 per pixel, (128 * 65, 65) float32."""
    frequency = frequencies(WINDOW_PX, WINDOW_PX, device)
    return in_rings((frequency * WINDOW_PX).round().long(), RINGS).float()
