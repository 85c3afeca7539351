"""In which numbers the networks compute: of half the bits, they are quicker on a GPU, if the picks stay the same.

They stay the same if, of scenes that are made up, nearly all picks of either way are also picked the other way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from drpwatch.micrograph import Picks
from drpwatch.pick import scene
from drpwatch.pick.trees import tree_of

Precision = Literal["float32", "bfloat16", "float16"]
Wanted = Literal["auto", "float32", "bfloat16", "float16"]

DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

_NEAR_PX = 1.0
_LEAST_SHARE = 0.995
_LEAST_PICKS = 100  # of fewer, nothing follows
_SCENES = (
    (1, 0.6),
    (2, 0.1),
    (3, 0.08),
    (4, 0.07),
    (5, 0.06),
    (6, 0.05),
)  # seed and depth: clear to hardly there

PickScene = Callable[[npt.NDArray[np.float32]], Picks]


def candidates(wanted: Wanted, device: torch.device) -> Sequence[Precision]:
    """Return the ways to try, the best first; float32 is what is left where none will do.

    Both kinds of half precision take the same time; float16 has three more bits of digits, and bfloat16 has room
    for larger numbers.
    """
    if wanted == "auto":
        return ("float16", "bfloat16") if device.type == "cuda" else ()
    return () if wanted == "float32" else (wanted,)


def disagreement(exact: PickScene, quick: PickScene) -> str | None:
    """Return in one sentence how picks differ between two ways to compute; None where they agree."""
    kept = total = 0
    for seed, depth in _SCENES:
        pixels = scene.picture(seed, depth)
        one, other = (picks.yx_px[picks.chosen] for picks in (exact(pixels), quick(pixels)))
        kept += _near(one, other) + _near(other, one)
        total += len(one) + len(other)
    if total < 2 * _LEAST_PICKS:
        return f"too few picks to compare: {total // 2} in {len(_SCENES)} simulated micrographs"
    if kept < _LEAST_SHARE * total:
        return f"only {100 * kept / total:.1f} % of the picks in simulated micrographs are the same"
    return None


def _near(yx: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> int:
    """Return how many places (n, 2) have another one, of (m, 2), where they are."""
    if len(others) == 0 or not np.isfinite([*yx, *others]).all():
        return 0
    distance = np.asarray(tree_of(others).query(yx)[0])
    return int((distance <= _NEAR_PX).sum())
