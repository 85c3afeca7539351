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
from drpwatch.train.scenes import Studio, Tensors
from drpwatch.train.shapes import Species

_NOISE = 0.3  # of the usual deviation: a real field never looks quite like a simulated one
_LEAST_DEVIATION = 0.1  # where all fields look alike, as those of one session do
_FEW = 2


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """The candidates of one field, without its pixels.

    `told` (n, 3) as the judge wants them, `label` (n,) of 0 and 1; `truths` counts the particles that could be found.
    """

    told: torch.Tensor
    background: Background
    label: npt.NDArray[np.float32]
    truths: int

    def features(self, field_judge: nn.Module) -> Array:
        """Return what scores are made of, (n, 5)."""
        n = len(self.told)
        x = np.column_stack([np.ones(n), self.told.double().numpy(), np.zeros(n)])
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

    def as_tensors(self, made: Field) -> Tensors:
        """Return what a field is made of."""
        return as_tensors([made])

    def from_tensors(self, tensors: Tensors) -> Field:
        """Return the field."""
        (one,) = from_tensors(tensors)
        return one


def as_field(classifier: nn.Module | None, one: Judged) -> Field:
    """Let the classifier look at the candidates of one example."""
    told = scoring.told(features(classifier, one))
    return Field(told, background(classifier, one), one.label, one.truths)


def as_tensors(fields: Sequence[Field]) -> Tensors:
    """Return what `from_tensors` makes the same fields of: one or more, one after the other."""
    grounds = [one.background for one in fields]
    sizes = [
        (len(one.told), len(ground.twin), one.truths, ground.pixels, ground.twin_pixels)
        for one, ground in zip(fields, grounds, strict=True)
    ]
    return {
        "told": torch.cat([one.told for one in fields]),
        "label": torch.cat([torch.from_numpy(one.label) for one in fields]),
        "signature": torch.stack([ground.signature for ground in grounds]),
        "twin": torch.cat([ground.twin for ground in grounds]),
        "sizes": torch.tensor(sizes),
    }


def from_tensors(tensors: Tensors) -> list[Field]:
    """Return the fields of `as_tensors`."""
    sizes = tensors["sizes"].tolist()
    candidates, noise = [size[0] for size in sizes], [size[1] for size in sizes]
    parts = zip(
        torch.split(tensors["told"], candidates),
        torch.split(tensors["label"], candidates),
        tensors["signature"],
        torch.split(tensors["twin"], noise),
        sizes,
        strict=True,
    )
    return [
        Field(told, Background(signature, twin, pixels, twin_pixels), label.numpy(), truths)
        for told, label, signature, twin, (_, _, truths, pixels, twin_pixels) in parts
    ]


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
