"""A field of view under the filter that is matched to its own particles, which nobody has seen yet.

The filter that finds a known shape in noise best is its Fourier transform over the power of the noise (Turin 1960).
Neither is known of a micrograph. But rings in its power spectrum tell what balls or shells there may be
(`drpwatch.pick.rings`): the filter is the mean over all of them, each as probable as it explains these rings. Where
there are none, that is a blob of about the particle's size, held against noise as it is here.
"""

from __future__ import annotations

import torch

from drpwatch.pick.device import middle_and_deviation
from drpwatch.pick.rings import RINGS, WINDOW_PX, amplitudes, evidence, frequencies, typical_rings

_LEAST_POWER = 1e-3  # of the strongest ring's: what is weaker is no noise, but what a low-pass left
_MOST_SIGMAS = 8.0
_SAMPLE = 65_536  # pixels that robust statistics look at


def matched(picture: torch.Tensor, rings: torch.Tensor | None = None) -> torch.Tensor:
    """Return a picture (h, w) at the networks' scale, dark particles in it, under its matched filter.

    In robust deviations, (h, w) float32, particles bright. `rings` are those of the picture, where somebody has them.
    """
    rings = typical_rings(picture) if rings is None else rings
    h, w = picture.shape
    place = (frequencies(h, w, picture.device) * WINDOW_PX).clamp_max(RINGS - 1.001)
    low = place.long()
    transfer = matched_transfer(rings, picture.numel())
    transfer = transfer[low] + (place - low) * (transfer[low + 1] - transfer[low])
    found = torch.fft.irfft2(torch.fft.rfft2(picture) * -transfer, s=(h, w))
    sample = found.flatten()[:: max(1, found.numel() // _SAMPLE)]
    middle, deviation = middle_and_deviation(sample)
    scaled: torch.Tensor = (found - middle.float()) / deviation.clamp_min(1e-12).float()
    return scaled.clamp_(-_MOST_SIGMAS, _MOST_SIGMAS)


def matched_transfer(rings: torch.Tensor, pixels: int) -> torch.Tensor:
    """Return what the filter multiplies each ring with, (65,) float32, for a picture of so many pixels.

    Ripples are what signal adds to noise, in shares of the noise: what explains them is the particle as it is in an
    image whose noise has been made white. So the filter makes it white, and no more.
    """
    shape = amplitudes(rings.device) @ evidence(rings, pixels).probabilities
    power = (rings - rings.max()).exp().clamp_min(_LEAST_POWER)
    return shape.float() / power.sqrt()
