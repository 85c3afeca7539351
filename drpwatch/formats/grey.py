"""A micrograph as a grey picture in which people see particles. Row 0 of the file is at the top."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter

_LOW_PASS_SIGMA = 1 / 16  # diameters: noise goes, the shape stays
_STRETCH_PERCENTILES = (0.5, 99.5)


def grey(pixels: npt.NDArray[Any], diameter_px: float, scale: float) -> Image.Image:
    """Return (h, w) pixels made smaller by `scale`, low-passed and stretched to 8 bits.

    `diameter_px` is the particle's, in pixels of the file.
    """
    image = np.nan_to_num(pixels.astype(np.float32), posinf=0.0, neginf=0.0)
    h, w = image.shape
    size = max(1, round(w * scale)), max(1, round(h * scale))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    smooth = gaussian_filter(small, _LOW_PASS_SIGMA * diameter_px * scale)
    low, high = np.percentile(smooth, _STRETCH_PERCENTILES)
    stretched = np.clip((smooth - low) / max(high - low, 1e-20), 0, 1)
    return Image.fromarray((255 * stretched).astype(np.uint8))
