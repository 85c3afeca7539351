"""Fitting of the two networks: the detector to distance maps, the classifier to labelled patches.

A `Fit` can be saved after any step, and goes on from there as if nothing had been.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from drpwatch.errors import UsageError
from drpwatch.pick.networks import Network, channels_last
from drpwatch.train.dataset import Example, crops
from drpwatch.train.judge import Patches

_LEAST_PATCHES = 32  # of either kind


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and on how much a network is trained.

    `averaging` is the share of the running mean of the weights that each step keeps; 0 for no mean.
    """

    steps: int
    batch: int
    learning_rate: float
    crop_px: int = 96
    weight_decay: float = 0.0
    averaging: float = 0.0


LossOfABatch = Callable[["Fit[Any]"], torch.Tensor]
"""Draws a batch with the fit's random numbers, and returns the loss of its network."""


@dataclass(frozen=True, slots=True, eq=False)
class FitState:
    """All that a fit needs to go on: tensors by name, and plain JSON values."""

    tensors: dict[str, torch.Tensor]
    values: dict[str, Any]


class Fit(Generic[Network]):
    """One network on its way through a schedule: Adam, a warm-up, then a cosine down to nothing.

    On a GPU the network runs in bfloat16, and its weights stay float32; on a CPU all is float32.
    """

    def __init__(self, network: Network, schedule: Schedule, seed: int) -> None:
        self.network = channels_last(network.train().requires_grad_(True))
        self.schedule = schedule
        self.step = 0
        self.rng = np.random.default_rng(seed)
        self.device = next(network.parameters()).device
        self._optimiser = torch.optim.AdamW(
            network.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
        )
        self._mean = _running_mean(network, schedule.averaging)
        torch.manual_seed(seed)  # dropout

    @property
    def done(self) -> bool:
        """Whether all steps are made."""
        return self.step >= self.schedule.steps

    def run(self, x: torch.Tensor) -> torch.Tensor:
        """Return the network's float32 answer to a batch that lies on any device in any precision."""
        x = x.to(self.device, torch.float32).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            out: torch.Tensor = self.network(x)
        return out.float()

    def descend(self, loss_of_a_batch: LossOfABatch) -> float:
        """Make one step, and return its loss."""
        rate = self.schedule.learning_rate * _share_of_rate(self.step, self.schedule.steps)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self.network.train()
        loss = loss_of_a_batch(self)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        if self._mean is not None:
            self._mean.update_parameters(self.network)
        self.step += 1
        return loss.item()

    def trained(self) -> Network:
        """Return the network as it would be used now: the running mean where there is one."""
        if self._mean is None:
            return self.network.eval()
        mean: Network = self._mean.module  # type: ignore[assignment]
        return mean.eval()

    def finish(self) -> Network:
        """Return the trained network, ready to infer."""
        return channels_last(self.trained().requires_grad_(False))

    def state(self) -> FitState:
        """Return all that the steps have changed."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        if self._mean is not None:
            tensors |= {f"mean.{k}": v for k, v in self._mean.state_dict().items()}
        for number, moments in self._optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{k}": v for k, v in moments.items()}
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        return FitState(tensors, {"step": self.step, "random": self.rng.bit_generator.state})

    def restore(self, state: FitState) -> None:
        """Go on from a state."""
        self.network.load_state_dict(_under("network.", state.tensors))
        if self._mean is not None:
            self._mean.load_state_dict(_under("mean.", state.tensors))
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in _under("optimiser.", state.tensors).items():
            number, key = name.split(".")
            moments.setdefault(int(number), {})[key] = tensor
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": moments, "param_groups": groups})
        torch.set_rng_state(state.tensors["random.cpu"])
        if self.device.type == "cuda" and "random.cuda" in state.tensors:
            torch.cuda.set_rng_state(state.tensors["random.cuda"], self.device)
        self.rng.bit_generator.state = state.values["random"]
        self.step = int(state.values["step"])


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """Examples of two origins: of each batch, `share` in the mean is the user's `own`."""

    simulated: Sequence[Example]
    own: Sequence[Example] = ()
    share: float = 0.0

    def batch(
        self, size_px: int, count: int, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return layers, labels and weights: see `crops`."""
        n_own = int(rng.binomial(count, self.share)) if self.own else 0
        parts = [
            crops(examples, size_px, n, rng)
            for examples, n in ((self.simulated, count - n_own), (self.own, n_own))
            if n
        ]
        layers, labels, weights = (torch.cat(kind) for kind in zip(*parts, strict=True))
        return layers, labels, weights


def detector_loss(examples: Mixture) -> LossOfABatch:
    """Return the loss of a random batch: the weighted squared error of the distance map."""

    def loss(fit: Fit[Any]) -> torch.Tensor:
        batch = examples.batch(fit.schedule.crop_px, fit.schedule.batch, fit.rng)
        layers, label, weight = (t.to(fit.device, torch.float32) for t in batch)
        return (weight * (fit.run(layers[:, : fit.network.sees]) - label) ** 2).mean()

    return loss


def classifier_loss(simulated: Patches | None, own: Patches | None, share: float) -> LossOfABatch:
    """Return the loss of a random batch: the cross-entropy of as many particles as others.

    Parameters
    ----------
    simulated, own, share
        Patches of two origins; `share` of each batch is `own`, where there are both.

    Raises
    ------
    UsageError
        There are too few of one kind.
    """
    origins = [(p, s) for p, s in ((simulated, 1 - share), (own, share)) if p is not None and s > 0]
    for patches, _ in origins:
        if min(patches.count(0), patches.count(1)) < _LEAST_PATCHES:
            raise UsageError(
                f"too little to train the classifier on: {patches.count(1)} particles and {patches.count(0)} "
                "others; give it more micrographs"
            )
    kinds = [[np.flatnonzero(p.label == label) for label in (1, 0)] for p, _ in origins]

    def loss(fit: Fit[Any]) -> torch.Tensor:
        half, rng = fit.schedule.batch // 2, fit.rng
        counts = [half] if len(origins) == 1 else [half - round(share * half), round(share * half)]
        pixels, labels = [], []
        for (patches, _), by_label, n in zip(origins, kinds, counts, strict=True):
            chosen = np.concatenate([rng.choice(rows, n) for rows in by_label])
            pixels.append(patches.pixels[torch.from_numpy(chosen)])
            labels.append(patches.label[chosen])
        batch = torch.rot90(torch.cat(pixels), int(rng.integers(4)), (2, 3))
        batch = batch.flip(3) if rng.random() < 0.5 else batch
        truth = torch.from_numpy(np.concatenate(labels)).to(fit.device)
        return F.binary_cross_entropy_with_logits(fit.run(batch), truth)

    return loss


def _running_mean(network: nn.Module, keep: float) -> AveragedModel | None:
    """Return a copy of the network that follows it slowly; None for none."""
    if not keep:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(keep), use_buffers=True)  # type: ignore[no-untyped-call]


def _share_of_rate(step: int, steps: int) -> float:
    """Warm up over a twentieth of the steps, then fall along a cosine."""
    warm = min(1.0, (step + 1) / (0.05 * steps + 1))
    return float(max(warm * 0.5 * (1 + np.cos(np.pi * step / steps)), 1e-3))


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
