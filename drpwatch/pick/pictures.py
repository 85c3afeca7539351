"""What people look at: a micrograph in which particles show, and its power spectrum.

Both are made on the device from what picking has there anyway, and are grey values to be stored as they
are. No files, no formats: whoever shows them encodes them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from drpwatch.pick.device import quantiles, scalar
from drpwatch.pick.preprocess import Bounds, PreparedImage
from drpwatch.pick.windows import windows

PICTURE_PX = 1024
"""Longest side of a picture."""
SPECTRUM_PX = 256
"""Side of a power spectrum, from -Nyquist to Nyquist along both axes."""

_LOW_PASS_SIGMA = 1 / 16  # diameters: noise goes, the shape stays
_STRETCH = (0.003, 0.997)  # quantiles that become black and white
_SPECTRUM_STRETCH = (0.02, 0.998)
_SAMPLE = 16_384  # pixels that quantiles look at
_WINDOWS = 4  # of the spectrum, along each axis
_LEAST_WINDOW_PX = 16
_RADIAL_SIGMA = 0.15  # of the radius: rings of the contrast transfer are narrower, the fall-off is wider


def micrograph_picture(prepared: PreparedImage) -> torch.Tensor:
    """Return a micrograph as (h, w) uint8: low-passed, stretched, at most `PICTURE_PX` long.

    It covers the whole frame, as `prepared` does; particles are dark.
    """
    image = _low_passed(prepared.image, _LOW_PASS_SIGMA * prepared.diameter_px)
    inside = image[prepared.inside]
    low, high = _quantiles(inside, _STRETCH)
    shrink = PICTURE_PX / max(image.shape)
    if shrink < 1:
        shape = [max(1, round(length * shrink)) for length in image.shape]
        image = F.interpolate(image[None, None], size=shape, mode="area")[0, 0]
    return _grey(image, low, high)


def spectrum_picture(
    pixels: torch.Tensor, bounds: Bounds, device: torch.device | None = None
) -> torch.Tensor:
    """Return the power spectrum of (H, W) pixels of any real type as (s, s) uint8, zero frequency in the middle.

    Only what is picture is looked at, and only the windows that are looked at are brought to `device`.

    The logarithm of the mean power in windows spread over the frame (Welch 1967), less its smooth radial
    mean: the fall-off goes, while rings of the contrast transfer, ice rings, and the asymmetry of drift,
    astigmatism and crystals stay. No CTF is estimated.
    """
    pixels = pixels[bounds.top : bounds.bottom, bounds.left : bounds.right]
    size = min(SPECTRUM_PX, *(length // 2 * 2 for length in pixels.shape))
    if size < _LEAST_WINDOW_PX:
        return torch.zeros((size, size), dtype=torch.uint8, device=device)
    rows, columns = (min(_WINDOWS, max(1, 2 * length // size - 1)) for length in pixels.shape)
    views = windows(pixels, size, (rows, columns)).to(device)  # (n, s, s)
    views = views.float().nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
    views -= views.mean(dim=(1, 2), keepdim=True)
    taper = torch.hann_window(size, device=views.device)
    power = torch.fft.rfft2(views * (taper[:, None] * taper)).abs().square().mean(dim=0)  # (s, s / 2 + 1)
    log_power = (power + 1e-12 * power.mean() + 1e-30).log()
    whole = torch.cat([log_power, _mirrored(log_power)], dim=1)  # (s, s)
    flat = _less_radial_mean(torch.fft.fftshift(whole))
    return _grey(flat, *_quantiles(flat, _SPECTRUM_STRETCH))


def _mirrored(half: torch.Tensor) -> torch.Tensor:
    """Return the columns of negative frequency that rfft2 leaves out."""
    return half[:, 1:-1].flip(1).roll(-1, 0).flip(0)


def _less_radial_mean(centred: torch.Tensor) -> torch.Tensor:
    """Subtract the smooth mean over rings from (s, s), zero frequency in the middle."""
    size = len(centred)
    offsets = torch.arange(size, device=centred.device) - size // 2
    ring = torch.hypot(offsets[:, None].float(), offsets[None, :].float()).round().long()  # (s, s)
    rings = round(math.hypot(size // 2, size // 2)) + 1
    mean, count = torch.zeros(2, rings, device=centred.device)
    mean.index_add_(0, ring.flatten(), centred.flatten())
    count.index_add_(0, ring.flatten(), torch.ones_like(centred).flatten())
    mean /= count.clamp(min=1)
    radius = torch.arange(rings, device=centred.device, dtype=torch.float32)
    apart = (radius[:, None] - radius) / (_RADIAL_SIGMA * radius[:, None] + 0.5)
    weight = torch.exp(-0.5 * apart.square())
    smooth: torch.Tensor = weight @ mean / weight.sum(dim=1)
    return centred - smooth[ring]


def _low_passed(image: torch.Tensor, sigma_px: float) -> torch.Tensor:
    """Blur (h, w) by a binomial kernel, which is nearly a Gaussian and quicker; edges replicated."""
    steps = max(1, round(2 * sigma_px**2))  # pairs of averages over two neighbours, of variance 1/4 each
    image = F.pad(image[None, None], (steps, steps, steps, steps), mode="replicate")[0, 0]
    for _ in range(2 * steps):
        image = image[1:] + image[:-1]
        image = (image[:, 1:] + image[:, :-1]).mul_(0.25)
    return image


def _grey(image: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Return uint8, black at `low` and white at `high`."""
    gain = scalar(255 / (high - low).clamp_min(1e-20))
    grey: torch.Tensor = ((image - scalar(low)) * gain).round_().clamp_(0, 255).to(torch.uint8)
    return grey


def _quantiles(image: torch.Tensor, at: tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = quantiles(image.flatten()[:: max(1, image.numel() // _SAMPLE)], at).double()
    return low, high
