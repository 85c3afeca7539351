"""Training of the cascade: the detector on distance maps, the classifier on candidates, the scores' calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from scipy.spatial import cKDTree
from torch import nn

from drpwatch.errors import UsageError
from drpwatch.pick.networks import channels_last, detect_in_tiles, patch_centres, patches_at
from drpwatch.pick.peaks import Candidates, PeakRule, find_candidates
from drpwatch.pick.weights import Calibration
from drpwatch.train.dataset import Example, crops

FloatArray = npt.NDArray[np.float32]
Progress = Callable[[int, float], None]
"""Called with the number of steps done and the latest loss."""

_FEW_PARTICLES = 5  # with fewer, the F of a scene is mostly luck

LabelSource = Literal["truth", "confidence"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and on how much a network is trained."""

    steps: int
    batch: int
    learning_rate: float
    crop_px: int = 96


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Candidates of one example with their labels: 1 a particle, 0 not, nan unclear, (n,)."""

    example: Example
    found: Candidates
    label: FloatArray


def train_detector(
    detector: nn.Module,
    examples: Sequence[Example],
    schedule: Schedule,
    rng: np.random.Generator,
    progress: Progress,
) -> None:
    """Fit the detector to the distance maps (squared error, Adam, cosine schedule with a warm-up)."""
    channels_last(detector.train().requires_grad_(True))
    device = next(detector.parameters()).device
    optimiser = torch.optim.Adam(detector.parameters(), lr=schedule.learning_rate)
    for step in range(schedule.steps):
        _set_rate(optimiser, schedule, step)
        image, label, weight = (t.to(device) for t in crops(examples, schedule.crop_px, schedule.batch, rng))
        out = detector(image.contiguous(memory_format=torch.channels_last))
        loss = (weight * (out - label) ** 2).mean()
        _descend(optimiser, loss)
        progress(step + 1, loss.item())
    detector.eval().requires_grad_(False)


def judge(
    detector: nn.Module, examples: Sequence[Example], rule: PeakRule, source: LabelSource = "truth"
) -> Iterator[Judged]:
    """Run the detector over examples and label its candidates.

    `truth` takes the known centres. `confidence` is the paper's way and needs none: candidates in which the
    detector is very confident are particles; those with low confidence are not; the rest is unclear.
    """
    device = next(detector.parameters()).device
    for example in examples:
        with torch.inference_mode():
            distances = detect_in_tiles(detector, example.image.to(device))
        found = find_candidates(distances, example.diameter_px, rule)
        label = label_by_truth(found, example) if source == "truth" else label_by_confidence(found, rule)
        yield Judged(example, found, label)


def label_by_truth(found: Candidates, example: Example) -> FloatArray:
    """Label by the nearest true centre: within a quarter diameter 1, beyond half 0, each centre used once."""
    label = np.zeros(len(found.yx), dtype=np.float32)
    if len(found.yx) == 0:
        return label
    if len(example.yx_px):
        tree = cKDTree(example.yx_px)
        distance, nearest = (np.asarray(a) for a in tree.query(found.yx))
        label[distance <= 0.5 * example.diameter_px] = np.nan
        taken: set[int] = set()
        for i in np.flatnonzero(distance <= 0.25 * example.diameter_px):  # highest first
            if nearest[i] not in taken:
                taken.add(int(nearest[i]))
                label[i] = 1
    centres = np.clip(np.round(found.yx).astype(int), 0, np.array(example.weight.shape) - 1)
    label[example.weight.numpy()[tuple(centres.T)] == 0] = np.nan  # padding: nobody knows
    return label


def label_by_confidence(found: Candidates, rule: PeakRule) -> FloatArray:
    """Label by the detector's own confidence: the best third above 0.4 is 1, whatever is below 0.15 is 0."""
    label = np.full(len(found.yx), np.nan, dtype=np.float32)
    if len(found.yx):
        sure = max(0.4, float(np.quantile(found.height, 0.67)))
        label[found.height >= sure] = 1
        label[found.height < max(0.15, 1.5 * rule.least_height)] = 0
    return label


def train_classifier(
    classifier: nn.Module,
    judged: Sequence[Judged],
    schedule: Schedule,
    rng: np.random.Generator,
    progress: Progress,
) -> None:
    """Fit the classifier to labelled candidates, as many of one kind as of the other in each batch.

    Raises
    ------
    UsageError
        There are no candidates of one kind.
    """
    patches, labels = _patches(judged)
    positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    if len(positive) < 32 or len(negative) < 32:
        raise UsageError(
            f"too little to train the classifier on: {len(positive)} particles and {len(negative)} others; "
            "give it more micrographs"
        )
    channels_last(classifier.train().requires_grad_(True))
    device = next(classifier.parameters()).device
    optimiser = torch.optim.AdamW(classifier.parameters(), lr=schedule.learning_rate, weight_decay=1e-2)
    half = schedule.batch // 2
    for step in range(schedule.steps):
        _set_rate(optimiser, schedule, step)
        chosen = np.concatenate([rng.choice(positive, half), rng.choice(negative, half)])
        batch = patches[torch.from_numpy(chosen)].to(device, torch.float32)
        batch = torch.rot90(batch, int(rng.integers(4)), (2, 3))
        batch = batch.flip(3) if rng.random() < 0.5 else batch
        batch = batch.contiguous(memory_format=torch.channels_last)
        loss = F.binary_cross_entropy_with_logits(
            classifier(batch), torch.from_numpy(labels[chosen]).to(device)
        )
        _descend(optimiser, loss)
        progress(step + 1, loss.item())
    classifier.eval().requires_grad_(False)


def calibrate(classifier: nn.Module | None, judged: Sequence[Judged]) -> tuple[Calibration, float, float]:
    """Fit the scores to be probabilities, and choose the threshold, on examples that trained nothing.

    Returns
    -------
    calibration, threshold, f
        The threshold is the one with the best mean F of an example, and that F.
    """
    rows, labels = [], []
    for one in judged:
        rows.append(features(classifier, one))
        labels.append(one.label)
    x, label = np.concatenate(rows), np.concatenate(labels)
    known = ~np.isnan(label)
    weights = _logistic_regression(x[known], label[known])
    calibration = Calibration(*(float(w) for w in weights))
    threshold, f = _best_threshold([1 / (1 + np.exp(-(row @ weights))) for row in rows], judged)
    return calibration, threshold, f


def _best_threshold(
    scores: Sequence[npt.NDArray[np.float64]], judged: Sequence[Judged]
) -> tuple[float, float]:
    """Return the threshold with the best mean F of the scenes that hold particles, and that F.

    The mean over scenes, not the pooled F: a hard data set counts as much as an easy one.
    """
    thresholds = np.arange(0.05, 0.91, 0.01)
    fs = []
    for score, one in zip(scores, judged, strict=True):
        truths = len(one.example.yx_px)
        if truths >= _FEW_PARTICLES:
            true = np.nan_to_num(one.label, nan=0.0)  # an unclear candidate is a second pick of one particle
            chosen = score[None, :] >= thresholds[:, None]  # (thresholds, n)
            fs.append(2 * (chosen * true).sum(axis=1) / (chosen.sum(axis=1) + truths))
    mean = np.mean(fs, axis=0)
    best = int(np.argmax(mean))
    return float(thresholds[best]), float(mean[best])


def features(classifier: nn.Module | None, one: Judged) -> npt.NDArray[np.float64]:
    """Return what the score is made of, (n, 4), in the order of `Calibration`'s fields."""
    found = one.found
    odds = np.zeros(len(found.yx))
    if classifier is not None and len(found.yx):
        device = next(classifier.parameters()).device
        with torch.inference_mode():
            odds = classifier(_cut(one).to(device)).cpu().numpy()
    prominence = np.log(np.maximum(found.prominence, 1e-6))
    return np.stack([np.ones(len(odds)), found.height, prominence, odds], axis=1)


def _logistic_regression(x: npt.NDArray[np.float64], label: FloatArray) -> npt.NDArray[np.float64]:
    """Return the weights that make `sigmoid(x @ weights)` the probability of label 1."""
    if len(label) == 0 or label.min() == label.max():
        raise UsageError("the scores cannot be calibrated: all candidates are of one kind")
    used = x.std(axis=0) > 0
    used[0] = True

    def loss(weights: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        odds = x[:, used] @ weights
        error = 1 / (1 + np.exp(-np.clip(odds, -50, 50))) - label
        value = np.logaddexp(0, odds).mean() - (label * odds).mean() + 1e-4 * (weights**2).sum()
        return float(value), x[:, used].T @ error / len(label) + 2e-4 * weights

    weights = np.zeros(x.shape[1])
    weights[used] = minimize(loss, np.zeros(int(used.sum())), jac=True, method="L-BFGS-B").x
    return weights


def _patches(judged: Sequence[Judged]) -> tuple[torch.Tensor, FloatArray]:
    """Return the patches, (n, 1, 64, 64) half precision, and labels, (n,), of all clear candidates."""
    patches, labels = [], []
    for one in judged:
        clear = ~np.isnan(one.label)
        if clear.any():
            clear_only = Judged(one.example, one.found.keep(clear), one.label[clear])
            patches.append(_cut(clear_only).half())
            labels.append(clear_only.label)
    if not patches:
        raise UsageError("the detector found no candidates to train the classifier on")
    return torch.cat(patches), np.concatenate(labels)


def _cut(one: Judged) -> torch.Tensor:
    """Return the patches of all candidates of one example."""
    return patches_at(one.example.image, patch_centres(one.found.yx, one.example.image.shape))


def _set_rate(optimiser: torch.optim.Optimizer, schedule: Schedule, step: int) -> None:
    """Warm up over a twentieth of the steps, then fall along a cosine."""
    done = step / schedule.steps
    factor = min(1.0, (step + 1) / (0.05 * schedule.steps + 1)) * 0.5 * (1 + np.cos(np.pi * done))
    for group in optimiser.param_groups:
        group["lr"] = schedule.learning_rate * max(factor, 1e-3)


def _descend(optimiser: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
