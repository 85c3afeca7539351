"""How much larger than they are said to be particles are, as far as they are round enough for their rings to show it.

A diameter that is too small costs more than one that is too large: networks learned from particles of which the
diameter given is rather that of the box, and the smaller a particle is, the more of noise looks like it.
"""

from __future__ import annotations

import torch

from drpwatch.pick.rings import DIAMETER_PX, evidence

_STEP, _SMALLEST, _LARGEST = 0.05, 12, 32
_OUTER = tuple(_STEP * steps for steps in range(_SMALLEST, _LARGEST + 1))  # diameters, in `DIAMETER_PX`
_DOUBT = 0.25  # that particles are smaller than what is returned


def enlargement(rings: torch.Tensor, pixels: int, diameter_px: float) -> torch.Tensor:
    """Return how many times the diameter given particles are across, at least; 1 if not more; a number on the device.

    The lower quartile of the diameter's distribution, in steps of 0.05 of `DIAMETER_PX`: balls and shells of each
    diameter are as probable as they explain the ripples of the spectrum. Where there are no rings, and mostly where
    particles are not round, that is less than 1. No diameter given is made smaller: it would be, of all that is not
    round.

    Parameters
    ----------
    rings
        What `typical_rings` returned for a picture.
    pixels
        Of the picture.
    diameter_px
        The diameter given, in the picture.
    """
    probability = evidence(rings, pixels, outer=_OUTER).probabilities.view(len(_OUTER), -1).sum(dim=1)
    steps = _SMALLEST + (probability.cumsum(0) < _DOUBT).sum()
    return (steps.clamp_max(_LARGEST) * _STEP * (DIAMETER_PX / diameter_px)).clamp_min(1.0)
