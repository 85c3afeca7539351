"""Training of the field judge: what the candidates of one field of view have in common tells what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from drpwatch.errors import UsageError
from drpwatch.pick import scoring
from drpwatch.pick.field import Background, FieldJudge
from drpwatch.pick.networks import Detector
from drpwatch.pick.peaks import PeakRule
from drpwatch.pick.scoring import Array
from drpwatch.train.fit import Fit, LossOfABatch
from drpwatch.train.judge import Judged, background, features, judge
from drpwatch.train.scenes import Studio
from drpwatch.train.shapes import Species

_NOISE = 0.3  # of the usual deviation: a real field never looks quite like a simulated one
_LEAST_DEVIATION = 0.1  # where all fields look alike, as those of one session do
_FEW = 2


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """The candidates of one field, without its pixels.

    `x` (n, 5) are their features, of which the last is 0; `label` (n,) is 0 or 1; `truths` counts the particles
    that could be found.
    """

    x: Array
    background: Background
    label: npt.NDArray[np.float32]
    truths: int

    @property
    def told(self) -> torch.Tensor:
        """Candidates as the judge wants them, (n, 3)."""
        return scoring.told(self.x)

    def features(self, field_judge: nn.Module) -> Array:
        """Return what scores are made of, (n, 5)."""
        x = self.x.copy()
        x[:, 4] = scoring.field_log_odds(field_judge, x, self.background)
        return x


@dataclass(frozen=True, slots=True, eq=False)
class FieldStudio:
    """A studio whose scenes the cascade looks at as they are made."""

    studio: Studio
    detector: Detector
    classifier: nn.Module
    peaks: PeakRule

    def make(self, species: Sequence[Species], number: int) -> Field:
        """Simulate one scene, and look at it."""
        (one,) = judge(self.detector, [self.studio.make(species, number)], self.peaks, twins=True)
        return as_field(self.classifier, one)

    def species(self) -> list[Species]:
        """Return the studio's."""
        return self.studio.species()


def as_field(classifier: nn.Module | None, one: Judged) -> Field:
    """Let the classifier look at the candidates of one example."""
    return Field(features(classifier, one), background(classifier, one), one.label, one.truths)


def untrained(fields: Sequence[Field]) -> FieldJudge:
    """Return a judge that knows what fields usually look like as a whole, and nothing else yet.

    Raises
    ------
    UsageError
        There are too few fields.
    """
    if len(fields) < _FEW:
        raise UsageError("too few scenes with candidates to train the field judge on: give more --scenes")
    judge = FieldJudge()
    views = torch.stack([judge.view(len(field.told), field.background) for field in fields])
    judge.usual_mean.copy_(views.mean(0))
    judge.usual_deviation.copy_(views.std(0).clamp_min(_LEAST_DEVIATION))
    return judge


def field_loss(fields: Sequence[Field], judge: FieldJudge) -> LossOfABatch:
    """Return the loss of some random fields, which look somewhat off as a whole.

    The mean over fields, not over candidates: a crowded field counts no more than an empty one.

    Parameters
    ----------
    judge
        Any that knows what fields usually look like.
    """
    usable = [field for field in fields if len(field.label)]
    device, known = judge.usual_mean.device, len(judge.usual_mean)
    with torch.no_grad():
        compared = [judge.compare(one.told.to(device), one.background.to(device)) for one in usable]
    labels = [torch.from_numpy(one.label).to(device) for one in usable]

    def loss(fit: Fit[Any]) -> torch.Tensor:
        drawn = fit.rng.integers(len(usable), size=fit.schedule.batch)
        noise = torch.from_numpy(fit.rng.normal(0, _NOISE, (len(drawn), known)).astype(np.float32)).to(device)
        off = F.pad(noise, (len(compared[0].whole) - known, 0))  # the view comes last
        odds = fit.network.log_odds_of(
            [compared[i]._replace(whole=compared[i].whole + off[n]) for n, i in enumerate(drawn)]
        )
        label = torch.cat([labels[i] for i in drawn])
        losses = F.binary_cross_entropy_with_logits(odds, label, reduction="none")
        of_each = torch.split(losses, [len(labels[i]) for i in drawn])
        return torch.stack([part.mean() for part in of_each]).mean()

    return loss
