"""From the pixels of a file to the image that the networks see.

The particle gets the same size in every image (`working_diameter_px`), by cropping or padding in Fourier space;
the illumination is corrected by equation 1 of the DRPnet paper; intensities are scaled so that neither their
unit nor their bit depth matters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from drpwatch.errors import UnusableMicrograph
from drpwatch.micrograph import PickParams
from drpwatch.pick.device import middle_and_deviation, on_host, quantiles, scalar
from drpwatch.pick.rings import typical_rings
from drpwatch.pick.size import enlargement

Kind = Literal["robust", "reference"]
Region = tuple[slice, slice]

_OUTLIER_SIGMAS = 10.0  # hot pixels ring in Fourier space
_SAMPLE = 65_536  # pixels that robust statistics look at
_LEAST_DIAMETER_PX = 6.0
_MOST_WORKING_PIXELS = 256_000_000
_BAND_ROWS = 1024  # of an image that are transformed at once


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Constants that belong to a set of weights and travel with them."""

    kind: Kind = "robust"
    working_diameter_px: float = 18.0
    illumination_sigma_px: float = 36.0  # in the working image
    clip_sigmas: float = 6.0
    smooth_sigma_px: float = 0.0  # on the networks' input


@dataclass(frozen=True, slots=True)
class Bounds:
    """The part of the frame that holds picture, full-frame pixels, end exclusive; the rest is padding."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True, slots=True, eq=False)
class PreparedImage:
    """The networks' input.

    `image` is (h, w) float32, particles dark; `scale_yx` is full-frame pixels per working pixel, along each
    axis; `diameter_px` is the particle's diameter in the working image; `inside` is the part of the image, and
    `bounds` that of the full frame, that is picture; `rings` are the picture's (`drpwatch.pick.rings`);
    of a particle that is larger than it is said to be, `enlargement` tells how many times, and it is at its scale.
    """

    image: torch.Tensor
    scale_yx: tuple[float, float]
    diameter_px: float
    bounds: Bounds
    inside: Region
    rings: torch.Tensor
    enlargement: float = 1.0


def prepare(
    pixels: torch.Tensor, pixel_size_yx: tuple[float, float], params: PickParams, constants: Preprocessing
) -> PreparedImage:
    """Prepare one micrograph, (H, W) of any real type.

    Particles that leave rings by which they are larger than the diameter given are brought to their own scale.

    Raises
    ------
    UnusableMicrograph
        Blank, nothing finite, or the particle is too small in it to be seen.
    """
    full_h, full_w = pixels.shape
    diameter_yx = params.diameter_angstrom / pixel_size_yx[0], params.diameter_angstrom / pixel_size_yx[1]
    diameter_px = math.sqrt(diameter_yx[0] * diameter_yx[1])
    if min(diameter_yx) < _LEAST_DIAMETER_PX:
        raise UnusableMicrograph(
            f"a particle of {params.diameter_angstrom:g} Å is only {min(diameter_yx):.1f} px across "
            f"(pixel size {max(pixel_size_yx):.3g} Å): it needs {_LEAST_DIAMETER_PX:g} px or more"
        )
    if diameter_px > min(full_h, full_w):
        raise UnusableMicrograph(
            f"a particle of {params.diameter_angstrom:g} Å is {diameter_px:.0f} px across and does not fit "
            f"into an image of {full_w}x{full_h} px"
        )
    shape = _working_shape((full_h, full_w), diameter_yx, constants)
    if shape[0] * shape[1] > _MOST_WORKING_PIXELS:
        raise UnusableMicrograph(
            f"diameter {params.diameter_angstrom:g} Å would need a working image of {shape} px"
        )
    levels = _levels(pixels)
    image = _limited(pixels, levels)
    # The shapes of all that follows depend on where the picture ends, and then on how large particles are: the waits
    # for the device in here.
    strips, told = on_host(_strips(image, max(1, round(diameter_px / 8))), levels)
    _refuse_blank(told)
    bounds = Bounds(int(strips[0]), full_h - int(strips[1]), int(strips[2]), full_w - int(strips[3]))
    if constants.kind == "reference":
        return _at_scale(image, diameter_yx, bounds, params, constants)
    image = levelled(image)
    prepared = _at_scale(image, diameter_yx, bounds, params, constants)
    times = _enlargement(prepared, constants)
    if not 1 < times <= min(full_h, full_w) / diameter_px:
        return prepared
    larger = _at_scale(image, (times * diameter_yx[0], times * diameter_yx[1]), bounds, params, constants)
    return replace(larger, enlargement=times)


def _at_scale(
    image: torch.Tensor,
    diameter_yx: tuple[float, float],
    bounds: Bounds,
    params: PickParams,
    constants: Preprocessing,
) -> PreparedImage:
    """Bring a limited image to the scale at which so many of its pixels are the working diameter."""
    full_h, full_w = image.shape
    h, w = _working_shape((full_h, full_w), diameter_yx, constants)
    small = fourier_resize(image, (h, w))
    if params.negative_stain:
        small = -small
    scale_yx = full_h / h, full_w / w
    inside = _inside(bounds, scale_yx)
    normalise = normalise_robust if constants.kind == "robust" else normalise_reference
    normal = normalise(small, inside, constants)
    return PreparedImage(
        normal,
        scale_yx,
        math.sqrt(diameter_yx[0] * diameter_yx[1] / (scale_yx[0] * scale_yx[1])),
        bounds,
        inside,
        typical_rings(normal[inside]),
    )


def _enlargement(prepared: PreparedImage, constants: Preprocessing) -> float:
    """Return how many times the diameter given particles are across; 1 if not more."""
    pixels = prepared.image[prepared.inside].numel()
    return float(on_host(enlargement(prepared.rings, pixels, constants.working_diameter_px))[0])


def without_outliers(pixels: torch.Tensor) -> torch.Tensor:
    """Return float32 (H, W), finite, with hot and dead pixels limited to ten robust deviations.

    Raises
    ------
    UnusableMicrograph
        Every pixel has the same value, or none is finite.
    """
    levels = _levels(pixels)
    _refuse_blank(on_host(levels)[0])
    return _limited(pixels, levels)


def _levels(pixels: torch.Tensor) -> torch.Tensor:
    """Return (3,) float64 of some pixels of (H, W): the share of finite ones, their median, and their deviation."""
    step = max(1, pixels.numel() // _SAMPLE)
    sample = pixels.contiguous().flatten()[::step].to(torch.float32)
    finite = torch.isfinite(sample)
    middle, spread = middle_and_deviation(torch.where(finite, sample, torch.nan))
    mean = torch.where(finite, sample, 0).double().sum() / finite.sum()
    square = torch.where(finite, sample.double() - mean, 0).square().sum() / (finite.sum() - 1)
    spread = torch.where(spread == 0, square.sqrt(), spread)
    return torch.stack([finite.double().mean(), middle, spread])


def _refuse_blank(levels: npt.NDArray[np.float64]) -> None:
    """Raise UnusableMicrograph where there is no picture."""
    share, middle, spread = levels.tolist()
    if share < 0.5:
        raise UnusableMicrograph("most pixels are not finite numbers")
    if not spread > 1e-12 * max(1.0, abs(middle)):
        raise UnusableMicrograph(f"blank: every pixel is {middle:g}")


def _limited(pixels: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Return float32 (H, W) around 0, finite, within ten deviations."""
    middle, reach = scalar(levels[1]), scalar(_OUTLIER_SIGMAS * levels[2])
    centred: torch.Tensor = pixels.to(torch.float32).contiguous() - middle
    return centred.nan_to_num_(nan=0.0, posinf=torch.inf, neginf=-torch.inf).clamp_(-reach, reach)


def levelled(image: torch.Tensor) -> torch.Tensor:
    """Subtract the plane that fits (H, W) best, in place: a ramp does not wrap around, and would ring."""
    rows, columns = image.mean(dim=1), image.mean(dim=0)
    return image.sub_(_line(rows)[:, None]).sub_((_line(columns) - columns.mean())[None, :])


def _line(values: torch.Tensor) -> torch.Tensor:
    """Return the straight line that fits (n,) best."""
    place = torch.arange(len(values), dtype=values.dtype, device=values.device) - (len(values) - 1) / 2
    return values.mean() + place * ((place * values).sum() / (place * place).sum())


def picture_bounds(image: torch.Tensor, lag_px: int) -> Bounds:
    """Find strips along the borders that were filled by copying the edge or with a constant.

    There, rows (or columns) `lag_px` apart are nearly the same, which picture never is.
    """
    h, w = image.shape
    top, bottom, left, right = _strips(image, lag_px).tolist()
    return Bounds(top, h - bottom, left, w - right)


def _strips(image: torch.Tensor, lag_px: int) -> torch.Tensor:
    """Return the height or width of the padding, (4,): top, bottom, left, right."""
    return torch.cat([_padding(image, lag_px), _padding(image.T, lag_px)])


def _padding(image: torch.Tensor, lag: int) -> torch.Tensor:
    """Return the height of the padding at the top and at the bottom of an image, (2,), 0 where there is none."""
    h = image.shape[0]
    depth = min(h // 8, 1024)
    if depth <= 2 * lag:
        return torch.zeros(2, dtype=torch.int64, device=image.device)
    middle = image[h // 4 : 3 * h // 4]
    usual = (middle[lag::8] - middle[:-lag:8][: len(middle[lag::8])]).abs().mean()
    ends = image[: depth + lag], image[h - depth - lag :].flip(0)
    return torch.stack([_strip(end, lag, usual) for end in ends])


def _strip(end: torch.Tensor, lag: int, usual: torch.Tensor) -> torch.Tensor:
    """Return how many rows of an end, from the first on, are padding."""
    alike = (end[lag:] - end[:-lag]).abs().mean(dim=1) < 0.2 * usual
    run = alike.cumprod(0).sum()
    return torch.where(run > 0, run + lag, 0)


def _working_shape(
    full_yx: tuple[int, int], diameter_yx: tuple[float, float], constants: Preprocessing
) -> tuple[int, int]:
    """Return the even sides at which a particle has the working diameter."""
    h, w = (
        _working_length(length, across, constants, full_yx[0])
        for length, across in zip(full_yx, diameter_yx, strict=True)
    )
    return h, w


def _working_length(full: int, diameter_px: float, constants: Preprocessing, full_h: int) -> int:
    """Return the even side length at which a particle has the working diameter."""
    if constants.kind == "reference":
        return max(2, 2 * round(full / reference_scale(1.3 * diameter_px, full_h) / 2))
    return max(2, 2 * round(full * constants.working_diameter_px / diameter_px / 2))


def reference_scale(box_px: float, height_px: int) -> int:
    """Return the integer downscaling of the reference implementation (its rule for `f1*f2`)."""
    radius = box_px / 2
    unit = 48 if radius > 144 else 32
    ratio = radius / unit
    f1 = math.ceil(ratio) if ratio > 2 else 2 if ratio > 1 else 1
    f2 = math.ceil(height_px / 1800) if height_px / f1 > 1800 else 1
    return f1 * f2


def fourier_resize(image: torch.Tensor, shape_yx: tuple[int, int]) -> torch.Tensor:
    """Crop or zero-pad in Fourier space to (h, w), both even; pixel (0, 0) keeps its place."""
    full_h, full_w = image.shape
    h, w = shape_yx
    if (h, w) == (full_h, full_w):
        return image
    rows, columns = min(h, full_h) // 2, min(w, full_w) // 2
    # Only the columns that stay get the second of the two transforms, and no spectrum of all of them is made.
    kept = [torch.fft.rfft(band, dim=1)[:, :columns] for band in torch.split(image, _BAND_ROWS)]
    spectrum = torch.fft.fft(torch.cat(kept), dim=0)
    small = torch.zeros((h, w // 2 + 1), dtype=spectrum.dtype, device=image.device)
    # The Nyquist row and column are left out: they have no partner, and nothing at the working scale is there.
    small[:rows, :columns] = spectrum[:rows]
    small[h - rows + 1 :, :columns] = spectrum[full_h - rows + 1 :]
    resized: torch.Tensor = torch.fft.irfft2(small, s=(h, w)) * (h * w / (full_h * full_w))
    return resized


def normalise_robust(image: torch.Tensor, inside: Region, constants: Preprocessing) -> torch.Tensor:
    """Correct the illumination and scale by the robust deviation of the picture without its padding."""
    flat = image - blurred_background(image, constants.illumination_sigma_px)
    view = flat[inside]
    sample = view.flatten()[:: max(1, view.numel() // _SAMPLE)]
    middle, deviation = middle_and_deviation(sample)
    scaled = (flat - scalar(middle)) / scalar(deviation.clamp_min(1e-20))
    return gaussian_blur(
        scaled.clamp_(-constants.clip_sigmas, constants.clip_sigmas), constants.smooth_sigma_px
    )


def normalise_reference(image: torch.Tensor, inside: Region, constants: Preprocessing) -> torch.Tensor:
    """Do what the reference implementation does before its CNN-1: 8-bit steps, in 0..1."""
    smooth = gaussian_blur(image, 2.0)
    view = smooth[inside].flatten()
    low, high = quantiles(view[:: max(1, view.numel() // _SAMPLE)], (0.01, 0.99)).double()
    stretched = ((smooth - scalar(low)) / scalar((high - low).clamp_min(1e-20))).clamp_(0, 1)
    mean = stretched.mean().double()
    stretched += scalar(torch.where((mean >= 0.5) & (mean <= 0.6), 0.0, 0.55 - mean))
    background = blurred_background(stretched, constants.illumination_sigma_px)
    corrected = (stretched - background + background.mean()).clamp_(0, 1)
    return gaussian_blur((corrected * 255).round_() / 255, constants.smooth_sigma_px)


def blurred_background(image: torch.Tensor, sigma_px: float) -> torch.Tensor:
    """Return the image under a Gaussian of large sigma (`I_sigma` of equation 1)."""
    step = max(1, int(sigma_px / 6))
    coarse = F.avg_pool2d(image[None, None], step, ceil_mode=True, count_include_pad=False)[0, 0]
    coarse = gaussian_blur(coarse, sigma_px / step)
    return F.interpolate(coarse[None, None], size=image.shape, mode="bilinear", align_corners=False)[0, 0]


def gaussian_blur(image: torch.Tensor, sigma_px: float) -> torch.Tensor:
    """Blur (h, w) by a separable Gaussian of four sigmas' reach, edges replicated."""
    if sigma_px <= 0:
        return image
    reach = max(1, math.ceil(4 * sigma_px))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / sigma_px) ** 2)
    kernel /= kernel.sum()
    padded = F.pad(image[None, None], (0, 0, reach, reach), mode="replicate")
    padded = F.pad(F.conv2d(padded, kernel.view(1, 1, -1, 1)), (reach, reach, 0, 0), mode="replicate")
    return F.conv2d(padded, kernel.view(1, 1, 1, -1))[0, 0]


def _inside(bounds: Bounds, scale_yx: tuple[float, float]) -> Region:
    """Return the region of the working image that holds picture."""
    rows = slice(math.ceil(bounds.top / scale_yx[0]), max(1, int(bounds.bottom / scale_yx[0])))
    columns = slice(math.ceil(bounds.left / scale_yx[1]), max(1, int(bounds.right / scale_yx[1])))
    return rows, columns
