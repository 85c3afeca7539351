"""Scores: what the cascade says of each candidate, and the probability that follows from it."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit
from torch import nn

from drpwatch.pick.field import Background
from drpwatch.pick.peaks import Candidates
from drpwatch.pick.weights import Calibration

Array = npt.NDArray[np.float64]


def features(found: Candidates, log_odds: npt.NDArray[Any]) -> Array:
    """Return what the score is made of, (n, 5), in the order of `Calibration`'s fields.

    The last, what the field judge says, is 0; see `field_log_odds`.
    """
    n = len(found.yx)
    return np.column_stack([np.ones(n), found.height, found.log_prominence, log_odds, np.zeros(n)])


def told(x: Array) -> torch.Tensor:
    """Return what a field judge is told of candidates, (n, 3), from their features x (n, 5)."""
    return torch.from_numpy(x[:, 1:4].astype(np.float32))


def field_log_odds(field_judge: nn.Module, x: Array, background: Background) -> Array:
    """Return what the field judge says of the candidates of one field, (n,), from their features x (n, 5)."""
    if len(x) == 0:
        return np.zeros(0)
    device = next(field_judge.parameters()).device
    with torch.inference_mode():
        judged: torch.Tensor = field_judge(told(x).to(device), background.to(device))
    return judged.numpy(force=True).astype(np.float64)


def probability(x: Array, calibration: Calibration) -> Array:
    """Return the probability of each candidate to be a particle, (n,), from features x (n, 5)."""
    return np.asarray(expit(x @ as_weights(calibration)), dtype=np.float64)


def as_weights(calibration: Calibration) -> Array:
    """Return a calibration as (5,) weights of `features`."""
    return np.array(astuple(calibration))
