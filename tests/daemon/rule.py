"""What the fake picker finds: it follows from the pixels alone, so that a checker knows what must come out.

Only numpy: whoever checks the daemon must be able to use it without a line of the daemon.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

SHAPE = (48, 64)
DEFAULT_THRESHOLD = 0.5
POISONED_PIXEL = 12345.0
"""Where the first pixel is this, a picker of the campaign crashes."""


def image(seed: int, shape: tuple[int, int] = SHAPE) -> npt.NDArray[np.float32]:
    """Return the (h, w) pixels of the micrograph that a seed stands for."""
    return np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32)


def sha256_of(model: str) -> str:
    """Return what stands for the weights of a shipped model."""
    return hashlib.sha256(model.encode()).hexdigest()


def candidates(
    pixels: npt.NDArray[Any], diameter_angstrom: float, weights_sha256: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return (n, 2) yx and (n,) scores, best first, that any change of an argument changes."""
    told = f"{diameter_angstrom} {weights_sha256}".encode()
    values = np.ascontiguousarray(pixels, dtype=np.float32)
    random = np.random.default_rng(zlib.crc32(values.tobytes() + told))
    n = int(random.integers(1, 20))
    yx = (random.random((n, 2)) * np.array(pixels.shape)).astype(np.float32)
    score = np.sort(random.random(n).astype(np.float32))[::-1].copy()
    return yx, score
