"""What a field of view looks like as a whole: a few numbers, from which particles too weak to be seen one by one show.

Round particles leave the rings of their form factor in the power spectrum, in places that the diameter tells; ice
does not, however grainy. And what is darker than its surroundings in spots, as particles are, is skewed.
"""

from __future__ import annotations

import math
from functools import cache

import torch

from drpwatch.pick.device import quantiles
from drpwatch.pick.matched import matched
from drpwatch.pick.rings import (
    SMOOTH,
    at_least,
    evidence,
    frequencies,
    in_rings,
    periodograms,
    typical_rings,
)

SPECTRUM_BINS = 16
SIGNATURE = SPECTRUM_BINS + 4 + 6 + 2
"""Numbers of a signature: the power spectrum, the roundness, the moments of spots and of the filtered field."""

_SPECTRUM_WINDOW_PX = 4 * SPECTRUM_BINS
_COSINES = SMOOTH, SMOOTH + 1
_MOST_EVIDENCE = 8.0
_SPOTS_PX = (4.0, 6.0, 9.0)
_MARGIN_PX = 18
_SAMPLE = 16_384  # pixels that robust statistics look at
_CLIP_SIGMAS = 5.0


def signature(picture: torch.Tensor, rings: torch.Tensor | None = None) -> torch.Tensor:
    """Return the signature, (28,) float32, of a picture (h, w) at the networks' scale, on its device.

    `rings` are those of the picture, where somebody has them.
    """
    rings = typical_rings(picture) if rings is None else rings
    return torch.cat(
        [
            power_spectrum(picture),
            roundness(rings, picture.numel()),
            spot_moments(picture),
            moments(_inner(matched(picture, rings))),
        ]
    )


def power_spectrum(picture: torch.Tensor) -> torch.Tensor:
    """Return the log of the mean power of (h, w) in rings of spatial frequency up to Nyquist, (16,).

    The mean over half-overlapping windows of 64 px under a Hann window (Welch 1967); white noise of unit
    deviation gives zeros.
    """
    size = _SPECTRUM_WINDOW_PX
    picture = at_least(picture, size)
    views = picture.unfold(0, size, size // 2).unfold(1, size, size // 2).reshape(-1, size, size)
    power = torch.zeros(size, size // 2 + 1, device=picture.device)
    for part in torch.split(views, 256):
        power += periodograms(part).sum(dim=0)
    mean = power.flatten().double() @ _spectrum_bins(picture.device) / len(views)
    return mean.float().clamp_min(1e-3).log()


def roundness(rings: torch.Tensor, pixels: int) -> torch.Tensor:
    """Return what the rings of a picture's spectrum, (65,), say of round particles, (4,); it has so many pixels.

    To the spectrum of a typical window are fitted a few smooth curves, and the form factor of each of many balls and
    shells. Of the best one: the log of how many deviations it stands out by (chance makes 1 to 3), three times the
    share of all ripples that it explains, and the deviations once more in units of the ripples that there are; then
    that share with one more smooth curve.
    """
    told = []
    for smooth in _COSINES:
        found = evidence(rings, pixels, smooth)
        deviations = found.deviations.amax()
        share = 3 * deviations.square() / found.everything
        told.append(
            (deviations.clamp_min(0).log1p(), share, (deviations / found.usual).clamp(0, _MOST_EVIDENCE))
        )
    return torch.stack([*told[0], told[1][1]]).float()


def spot_moments(picture: torch.Tensor) -> torch.Tensor:
    """Return the moments of (h, w) as spots of three sizes see it, (6,).

    A spot is the difference of two Gaussians, one twice as wide as the other.
    """
    transform = torch.fft.rfft2(picture)
    square = frequencies(picture.shape[0], picture.shape[1], picture.device).square()
    told = []
    for width in _SPOTS_PX:
        wide = torch.exp(-2 * (math.pi * width) ** 2 * square)
        told.append(moments(_inner(torch.fft.irfft2(transform * (wide**0.25 - wide), s=picture.shape))))
    return torch.cat(told)


def moments(filtered: torch.Tensor) -> torch.Tensor:
    """Return skewness and excess kurtosis of a filtered field (h, w), (2,); noise gives zeros, outliers are limited."""
    values = filtered.flatten()
    sample = values[:: max(1, len(values) // _SAMPLE)]
    middle = quantiles(sample, (0.5,))
    deviation = 1.4826 * quantiles((sample - middle).abs(), (0.5,)) + 1e-6
    z = ((values - middle) / deviation).clamp(-_CLIP_SIGMAS, _CLIP_SIGMAS)
    squared = z * z
    return torch.stack([(squared * z).mean(), (squared * squared).mean() - 3]).float()


def _inner(filtered: torch.Tensor) -> torch.Tensor:
    """Return a filtered field without its borders, where the filter saw the other side."""
    margins = [min(_MARGIN_PX, length // 4) for length in filtered.shape]
    rows, columns = (
        slice(margin, length - margin) for margin, length in zip(margins, filtered.shape, strict=True)
    )
    return filtered[rows, columns]


@cache
def _spectrum_bins(device: torch.device) -> torch.Tensor:
    """Return what takes the mean over the bins of a power spectrum, (64 * 33, 16) float64."""
    frequency = frequencies(_SPECTRUM_WINDOW_PX, _SPECTRUM_WINDOW_PX, device)
    return in_rings((frequency * 2 * SPECTRUM_BINS).long(), SPECTRUM_BINS)
