"""Scenes in which particles are easy to see, and candidates made by hand."""

from __future__ import annotations

import numpy as np
import torch

from drpwatch.pick.peaks import Candidates
from drpwatch.train.dataset import Example, distance_map
from drpwatch.train.judge import Judged


def easy_example(seed: int) -> Example:
    """Dark bumps in white noise."""
    rng = np.random.default_rng(seed)
    yx = np.array([(y, x) for y in range(15, 150, 25) for x in range(15, 150, 25)], np.float32)
    yx += rng.uniform(-5, 5, yx.shape).astype(np.float32)
    label = torch.from_numpy(distance_map(yx, (150, 150), 6.0))
    noise = torch.from_numpy(rng.standard_normal((150, 150), dtype=np.float32))
    return Example(noise - 6 * label, noise + 6 * label, label, torch.ones(150, 150), yx, 18.0)


def blank_example(yx, shape=(100, 100), weight=None) -> Example:
    image = torch.zeros(shape)
    return Example(
        image,
        image,
        image,
        torch.ones(shape) if weight is None else weight,
        np.array(yx, np.float32).reshape(-1, 2),
        20.0,
    )


def candidates(yx, height=None) -> Candidates:
    yx = np.array(yx, np.float32).reshape(-1, 2)
    height = (
        np.linspace(1, 0.5, len(yx), dtype=np.float32) if height is None else np.array(height, np.float32)
    )
    return Candidates(yx, height, height / 2)


def judged_at_random(n: int, seed: int) -> Judged:
    """Candidates whose chance to be a particle grows with their height."""
    rng = np.random.default_rng(seed)
    height = np.sort(rng.uniform(0.05, 1, n).astype(np.float32))[::-1]
    label = (rng.random(n) < 1 / (1 + np.exp(-10 * (height - 0.5)))).astype(np.float32)
    yx = rng.uniform(5, 95, (n, 2)).astype(np.float32)
    true = yx[label == 1]
    return Judged(blank_example(true), Candidates(yx, height, height), label, len(true))
