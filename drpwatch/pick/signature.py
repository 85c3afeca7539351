"""What a field of view looks like as a whole: a few numbers, from which particles too weak to be seen one by one show.

Round particles leave the rings of their form factor in the power spectrum, in places that the diameter tells; ice
does not, however grainy. And what is darker than its surroundings in spots, as particles are, is skewed.
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

from drpwatch.pick.device import quantiles
from drpwatch.pick.windows import windows

SPECTRUM_BINS = 16
SIGNATURE = SPECTRUM_BINS + 4 + 6
"""Numbers of a signature: the power spectrum, the roundness, the moments."""

_SPECTRUM_WINDOW_PX = 4 * SPECTRUM_BINS
_DIAMETER_PX = 18.0  # of a particle in the networks' image
_RING_WINDOW_PX = 128
_RINGS = slice(3, 36)  # of 1/128 per pixel: from 0.4 to 5 per diameter
_LEAST_POWER = 1e-6
_OUTER = tuple(np.arange(0.60, 1.16, 0.05))  # diameters of balls and shells, in those of the particle
_HOLLOW = (0.0, 0.4, 0.6, 0.75)  # inner diameters of shells, in the outer ones
_REACH = (2.0, 4.0)  # spatial frequencies per diameter at which their rings have faded to 1/e
_SMOOTH = (5, 6)  # cosines that describe a spectrum without rings
_MOST_EVIDENCE = 8.0
_SPOTS_PX = (4.0, 6.0, 9.0)
_MARGIN_PX = 18
_SAMPLE = 16_384  # pixels that robust statistics look at
_CLIP_SIGMAS = 5.0


def signature(picture: torch.Tensor) -> torch.Tensor:
    """Return the signature, (26,) float32, of a picture (h, w) at the networks' scale, on its device."""
    return torch.cat([power_spectrum(picture), roundness(picture), moments(picture)])


def power_spectrum(picture: torch.Tensor) -> torch.Tensor:
    """Return the log of the mean power of (h, w) in rings of spatial frequency up to Nyquist, (16,).

    The mean over half-overlapping windows of 64 px under a Hann window (Welch 1967); white noise of unit
    deviation gives zeros.
    """
    size = _SPECTRUM_WINDOW_PX
    picture = _at_least(picture, size)
    views = picture.unfold(0, size, size // 2).unfold(1, size, size // 2).reshape(-1, size, size)
    power = torch.zeros(size, size // 2 + 1, device=picture.device)
    for part in torch.split(views, 256):
        power += _periodograms(part).sum(dim=0)
    mean = power.flatten().double() @ _spectrum_bins(picture.device) / len(views)
    return mean.float().clamp_min(1e-3).log()


def roundness(picture: torch.Tensor) -> torch.Tensor:
    """Return what the power spectrum of (h, w) says of round particles, (4,).

    To the spectrum of a typical window are fitted a few smooth curves, and the form factor of each of many balls and
    shells. Of the best one: the log of how many deviations it stands out by (chance makes 1 to 3), three times the
    share of all ripples that it explains, and the deviations once more in units of the ripples that there are; then
    that share with one more smooth curve.
    """
    ripples = _typical_rings(picture).double()[_RINGS]
    told = []
    for fit in (_fit_of(count, picture.device) for count in _SMOOTH):
        weighted = ripples * fit.weight * math.sqrt(picture.numel())
        left = weighted - fit.smooth @ (fit.smooth.T @ weighted)
        deviations = (fit.round.T @ left).amax()
        everything = left.square().sum().clamp_min(1e-12)
        usual = (everything / (len(left) - fit.smooth.shape[1])).clamp_min(1).sqrt()
        share = 3 * deviations.square() / everything
        told.append((deviations.clamp_min(0).log1p(), share, (deviations / usual).clamp(0, _MOST_EVIDENCE)))
    return torch.stack([*told[0], told[1][1]]).float()


def moments(picture: torch.Tensor) -> torch.Tensor:
    """Return skewness and excess kurtosis of (h, w) as spots of three sizes see it, (6,); noise gives zeros.

    A spot is the difference of two Gaussians, one twice as wide as the other; outliers are limited.
    """
    margins = [min(_MARGIN_PX, length // 4) for length in picture.shape]
    inner = tuple(
        slice(margin, length - margin) for margin, length in zip(margins, picture.shape, strict=True)
    )
    transform = torch.fft.rfft2(picture)
    square = _frequencies(picture.shape[0], picture.shape[1], picture.device).square()
    told = []
    for width in _SPOTS_PX:
        wide = torch.exp(-2 * (math.pi * width) ** 2 * square)
        spots = torch.fft.irfft2(transform * (wide**0.25 - wide), s=picture.shape)[inner].flatten()
        sample = spots[:: max(1, len(spots) // _SAMPLE)]
        middle = quantiles(sample, (0.5,))
        deviation = 1.4826 * quantiles((sample - middle).abs(), (0.5,)) + 1e-6
        z = ((spots - middle) / deviation).clamp(-_CLIP_SIGMAS, _CLIP_SIGMAS)
        squared = z * z
        told += [(squared * z).mean(), (squared * squared).mean() - 3]
    return torch.stack(told).float()


class _Fit(NamedTuple):
    """A least-squares fit to rings.

    `weight` is (n,), for a picture of one pixel; `smooth` (n, k) orthonormal; `round` (n, m) has a direction for each
    ball and shell, of unit length and across all that is smooth.
    """

    weight: torch.Tensor
    smooth: torch.Tensor
    round: torch.Tensor


@cache
def _fit_of(count: int, device: torch.device) -> _Fit:
    """Return the fit with so many cosines.

    The log of a ring's power is known the better, the more independent values of the Fourier transform lie in it:
    pi times its radius times its width for each pixel of the picture.
    """
    ring = np.arange(_RING_WINDOW_PX // 2 + 1)[_RINGS]
    weight = np.sqrt(np.pi * ring) / _RING_WINDOW_PX
    along = np.linspace(0, 1, len(ring))
    cosines = np.array([np.cos(np.pi * k * along) for k in range(count)])
    smooth, _ = np.linalg.qr((cosines * weight).T)
    shapes = (np.array([_form_factor(*shape) for shape in product(_OUTER, _HOLLOW, _REACH)]) * weight).T
    across = shapes - smooth @ (smooth.T @ shapes)
    across /= np.sqrt((across**2).sum(0))
    return _Fit(
        *(torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in (weight, smooth, across))
    )


def _form_factor(outer: float, hollow: float, reach: float) -> npt.NDArray[np.float64]:
    """Return the power of a ball or shell at the rings, (n,), seen in weak phase contrast at low frequency.

    There the contrast transfer grows with the square of the frequency: its rings stay equally high where those of
    the form factor itself fall with the fourth power.
    """
    frequency = np.arange(_RING_WINDOW_PX // 2 + 1)[_RINGS] / _RING_WINDOW_PX * _DIAMETER_PX
    x = np.pi * frequency * outer
    amplitude = _ball(x) - (hollow**3 * _ball(x * hollow) if hollow else 0)
    return np.asarray(amplitude**2 * frequency**4 * np.exp(-((frequency / reach) ** 2)))


def _ball(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the Fourier transform of a ball of unit volume; x is pi times diameter times frequency (Rayleigh 1911)."""
    return np.asarray(3 * (np.sin(x) - x * np.cos(x)) / x**3)


def _typical_rings(picture: torch.Tensor) -> torch.Tensor:
    """Return the log of the power of (h, w) in rings of 1/128 per pixel, (65,).

    Its mean over windows of 128 px: what is in few of them, be it however strong, counts for little.
    """
    size = _RING_WINDOW_PX
    picture = _at_least(picture, size)
    rows, columns = (math.ceil(2 * (length - size) / size) + 1 for length in picture.shape)
    views = windows(picture, size, (rows, columns))  # they overlap by half or more
    ring = (_frequencies(size, size, picture.device) * size).round().long()
    in_ring = _in_rings(ring, size // 2 + 1).float()
    power = [_periodograms(part).flatten(1) @ in_ring for part in torch.split(views, 64)]
    return torch.cat(power).clamp_min(_LEAST_POWER).log().mean(dim=0)


def _at_least(picture: torch.Tensor, size_px: int) -> torch.Tensor:
    """Return a picture whose sides are no shorter than that: its last rows and columns are repeated."""
    missing = [max(0, size_px - length) for length in picture.shape]
    if not any(missing):
        return picture
    return F.pad(picture[None, None], (0, missing[1], 0, missing[0]), mode="replicate")[0, 0]


def _periodograms(views: torch.Tensor) -> torch.Tensor:
    """Return the power of windows, (n, size, size // 2 + 1); 1 in the mean for white noise of unit deviation."""
    window = torch.hann_window(views.shape[-1], device=views.device)
    taper = window[:, None] * window
    centred = views - views.mean(dim=(1, 2), keepdim=True)
    power: torch.Tensor = torch.fft.rfft2(centred * taper).abs().square() / taper.square().sum()
    return power


def _frequencies(h: int, w: int, device: torch.device) -> torch.Tensor:
    """Return the spatial frequency per pixel of each value of a real Fourier transform, (h, w // 2 + 1)."""
    return torch.hypot(
        torch.fft.fftfreq(h, device=device)[:, None], torch.fft.rfftfreq(w, device=device)[None]
    )


@cache
def _spectrum_bins(device: torch.device) -> torch.Tensor:
    """Return what takes the mean over the bins of a power spectrum, (64 * 33, 16) float64."""
    frequency = _frequencies(_SPECTRUM_WINDOW_PX, _SPECTRUM_WINDOW_PX, device)
    return _in_rings((frequency * 2 * SPECTRUM_BINS).long(), SPECTRUM_BINS)


@cache
def _fine_rings(device: torch.device) -> torch.Tensor:
    """Return what takes the mean over rings of 1/128 per pixel, (128 * 65, 65) float32."""
    frequency = _frequencies(_RING_WINDOW_PX, _RING_WINDOW_PX, device)
    return _in_rings((frequency * _RING_WINDOW_PX).round().long(), _RING_WINDOW_PX // 2 + 1).float()


def _in_rings(ring: torch.Tensor, count: int) -> torch.Tensor:
    """Return the matrix that takes the mean over each ring; what is in none, the corners, is left out.

    A product, which a GPU takes in the same order each time.
    """
    in_ring = (ring.flatten()[:, None] == torch.arange(count, device=ring.device)).double()
    return in_ring / in_ring.sum(0)
