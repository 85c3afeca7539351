"""The curve of a training: how the detector does, every so often, on examples that it is not trained on."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from drpwatch.pick.networks import Detector
from drpwatch.pick.peaks import PeakRule
from drpwatch.train.calibrate import best_threshold
from drpwatch.train.dataset import Example
from drpwatch.train.judge import judge_map, map_of


@dataclass(frozen=True, slots=True)
class Quality:
    """Of a detector on some examples: the mean loss, and F at the height of peaks that is best for all."""

    loss: float
    f: float


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One row of the curve; the user's own held-back micrographs have columns where there are any."""

    step: int
    training_loss: float  # mean since the row before
    simulated_loss: float | None = None
    simulated_f: float | None = None
    own_loss: float | None = None
    own_f: float | None = None


def quality(detector: Detector, examples: Sequence[Example], rule: PeakRule) -> Quality:
    """Look at a detector: no classifier, no calibration."""
    losses, judged = [], []
    for example in examples:
        found = map_of(detector, example)
        error = found.cpu() - example.label.float()
        losses.append(float((example.weight.float() * error**2).mean()))
        judged.append(judge_map(found, example, rule))
    _, f = best_threshold([one.found.height for one in judged], judged)
    return Quality(float(np.mean(losses)), f)


def as_csv(points: Sequence[CurvePoint]) -> bytes:
    """Return the curve as a table; what was not measured is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(CurvePoint))
    for point in points:
        writer.writerow("" if value is None else f"{value:.6g}" for value in asdict(point).values())
    return text.getvalue().encode()
