"""Training of the field judge: what the candidates of one field of view have in common tells what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from drpwatch.errors import UsageError
from drpwatch.pick import scoring
from drpwatch.pick.field import Background, FieldJudge
from drpwatch.train.fit import Fit, LossOfABatch
from drpwatch.train.judge import FloatArray, Judged, background, features

_SPECTRUM_NOISE = 0.15  # of a spectrum's usual deviation: a real spectrum is never quite a simulated one
_FEW = 2


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """The candidates of one field: `told` (n, 3) as the judge wants it, its background, `label` (n,) of 0 and 1."""

    told: torch.Tensor
    background: Background
    label: torch.Tensor


def as_field(classifier: nn.Module | None, one: Judged) -> Field:
    """Let the classifier look at the candidates of one example; unclear ones are left out."""
    clear = ~np.isnan(one.label)
    label: FloatArray = one.label[clear]
    told = scoring.told(features(classifier, one)[clear])
    return Field(told, background(classifier, one), torch.from_numpy(label))


def untrained(fields: Sequence[Field]) -> FieldJudge:
    """Return a judge that knows what spectra are usual, and nothing else yet.

    Raises
    ------
    UsageError
        There are too few fields.
    """
    if len(fields) < _FEW:
        raise UsageError("too few scenes with candidates to train the field judge on: give more --scenes")
    judge = FieldJudge()
    spectra = torch.stack([field.background.spectrum for field in fields])
    judge.usual_mean.copy_(spectra.mean(0))
    judge.usual_deviation.copy_(spectra.std(0).clamp_min(1e-3))
    return judge


def field_loss(fields: Sequence[Field]) -> LossOfABatch:
    """Return the loss of some random fields, with spectra that are somewhat off.

    The mean over fields, not over candidates: a crowded field counts no more than an empty one.
    """
    usable = [field for field in fields if len(field.label)]

    def loss(fit: Fit[Any]) -> torch.Tensor:
        losses = []
        for i in fit.rng.integers(len(usable), size=fit.schedule.batch):
            field = usable[i]
            noise = fit.rng.normal(0, _SPECTRUM_NOISE, len(field.background.spectrum)).astype(np.float32)
            usual = fit.network.usual_deviation.cpu()
            spectrum = field.background.spectrum + torch.from_numpy(noise) * usual
            background = replace(field.background, spectrum=spectrum).to(fit.device)
            odds = fit.network(field.told.to(fit.device), background)
            losses.append(F.binary_cross_entropy_with_logits(odds, field.label.to(fit.device)))
        return torch.stack(losses).mean()

    return loss
