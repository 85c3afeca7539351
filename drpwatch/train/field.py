"""Training of the field judge: what the candidates of one field of view have in common tells what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from drpwatch.errors import UsageError
from drpwatch.pick.networks import FieldJudge
from drpwatch.train.fit import Fit, LossOfABatch
from drpwatch.train.judge import FloatArray, Judged, features

_SPECTRUM_NOISE = 0.15  # of a spectrum's usual deviation: a real spectrum is never quite a simulated one
_FEW = 2


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """The candidates of one field: `told` (n, 3) as the judge wants it, `spectrum` (16,), `label` (n,) of 0 and 1."""

    told: torch.Tensor
    spectrum: torch.Tensor
    label: torch.Tensor


def as_field(classifier: nn.Module | None, one: Judged) -> Field:
    """Let the classifier look at the candidates of one example; unclear ones are left out."""
    clear = ~np.isnan(one.label)
    told = features(classifier, one)[clear, 1:4].astype(np.float32)
    label: FloatArray = one.label[clear]
    return Field(torch.from_numpy(told), one.spectrum, torch.from_numpy(label))


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
    spectra = torch.stack([field.spectrum for field in fields])
    judge.usual_mean.copy_(spectra.mean(0))
    judge.usual_deviation.copy_(spectra.std(0).clamp_min(1e-3))
    return judge


def field_loss(fields: Sequence[Field]) -> LossOfABatch:
    """Return the loss of some random fields, each seen through a random part of its candidates.

    The mean over fields, not over candidates: a crowded field counts no more than an empty one.
    """
    usable = [field for field in fields if len(field.label) >= _FEW]

    def loss(fit: Fit[Any]) -> torch.Tensor:
        rng, losses = fit.rng, []
        for i in rng.integers(len(usable), size=fit.schedule.batch):
            field = usable[i]
            n = len(field.label)
            part = torch.from_numpy(rng.permutation(n)[: max(_FEW, int(n * rng.uniform(0.5, 1)))])
            noise = torch.from_numpy(rng.normal(0, _SPECTRUM_NOISE, len(field.spectrum)).astype(np.float32))
            spectrum = field.spectrum.to(fit.device) + noise.to(fit.device) * fit.network.usual_deviation
            odds = fit.network(field.told[part].to(fit.device), spectrum)
            losses.append(F.binary_cross_entropy_with_logits(odds, field.label[part].to(fit.device)))
        return torch.stack(losses).mean()

    return loss
