"""Scores that are probabilities, the threshold that is best for all data sets, and how far both hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from drpwatch.errors import UsageError
from drpwatch.pick.weights import Calibration

Array = npt.NDArray[np.float64]

_GRANTED = 5  # right picks of every example: with few particles, F is mostly luck
_QUIET, _STRAY = 5 / 6, 2  # so large a share of the empty examples keep no more picks
_BINS = 10


class Labelled(Protocol):
    """The candidates of one example, of which it is known what they are."""

    @property
    def label(self) -> npt.NDArray[np.float32]:
        """Of each candidate, 1 for a particle and 0 for none, (n,)."""

    @property
    def truths(self) -> int:
        """How many particles could be found."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """How scores agree with the truth, for candidates in bins of equal width from 0 to 1.

    Each tuple has one value for each bin that holds candidates: the mean score, the share that are
    particles, and how many candidates there are.
    """

    predicted: tuple[float, ...]
    observed: tuple[float, ...]
    count: tuple[int, ...]

    @classmethod
    def of(cls, score: Array, label: npt.NDArray[Any]) -> Self:
        """Compare scores (n,) with labels (n,) of 0 and 1."""
        bins = np.minimum((score * _BINS).astype(int), _BINS - 1)
        used = [b for b in range(_BINS) if (bins == b).any()]
        return cls(
            predicted=tuple(round(float(score[bins == b].mean()), 4) for b in used),
            observed=tuple(round(float(label[bins == b].mean()), 4) for b in used),
            count=tuple(int((bins == b).sum()) for b in used),
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Rebuild from `as_dict`, or from what JSON made of it."""
        return cls(tuple(values["predicted"]), tuple(values["observed"]), tuple(values["count"]))

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {name: list(values) for name, values in asdict(self).items()}

    @property
    def error(self) -> float:
        """The expected calibration error: the mean of |predicted - observed|, weighted by count."""
        gaps = np.abs(np.subtract(self.predicted, self.observed))
        return float(np.average(gaps, weights=self.count))


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The result of a calibration; `f` is the mean F of an example at the threshold."""

    calibration: Calibration
    threshold: float
    f: float
    reliability: Reliability


def calibrate(rows: Sequence[Array], labelled: Sequence[Labelled]) -> Calibrated:
    """Fit the scores to be probabilities, and choose the threshold, on examples that trained nothing.

    The threshold is the one with the best mean F of an example, among those at which five in six of the empty
    ones keep two picks at most: a grid with nothing on it has to look like one. The reliability is that of a
    calibration on every other example, looked at on the rest, and the other way round.

    Parameters
    ----------
    rows, labelled
        Of each example, the features (n, 5) of its candidates, and their labels.

    Raises
    ------
    UsageError
        All candidates are particles, or none is.
    """
    labels = [one.label for one in labelled]
    weights = _fit(rows, labels)
    scores = [expit(row @ weights) for row in rows]
    threshold, f = best_threshold(scores, labelled, above=quiet_above(scores, labelled))
    return Calibrated(as_calibration(weights), threshold, f, _reliability(rows, labels))


def as_calibration(weights: Array) -> Calibration:
    """Return (5,) weights of `features` with their names."""
    return Calibration(*(float(w) for w in weights))


def quiet_above(scores: Sequence[npt.NDArray[Any]], labelled: Sequence[Labelled]) -> float:
    """Return the score beyond which five in six of the empty examples keep two picks at most; 0 if none is empty."""
    empty = [score for score, one in zip(scores, labelled, strict=True) if not one.truths]
    first_too_many = [np.sort(score)[-_STRAY - 1] if len(score) > _STRAY else 0.0 for score in empty]
    return float(np.quantile(first_too_many, _QUIET)) if empty else 0.0


def best_threshold(
    scores: Sequence[npt.NDArray[Any]], labelled: Sequence[Labelled], above: float = 0.0
) -> tuple[float, float]:
    """Return the threshold with the best mean F of an example, of those above a score, and that F.

    The mean over examples, not the pooled F: a hard data set counts as much as an easy one. Five right picks
    are granted to each example, so that empty ones count too, by how few picks they keep.
    """
    thresholds = np.arange(0.05, 0.91, 0.01)
    thresholds = thresholds[min(np.searchsorted(thresholds, above, "right"), len(thresholds) - 1) :]
    fs = []
    for score, one in zip(scores, labelled, strict=True):
        chosen = score[None, :] >= thresholds[:, None]  # (thresholds, n)
        right = (chosen * one.label).sum(axis=1) + _GRANTED
        fs.append(2 * right / (chosen.sum(axis=1) + one.truths + 2 * _GRANTED))
    if not fs:
        return 0.5, 0.0
    mean = np.mean(fs, axis=0)
    best = int(np.argmax(mean))
    return float(thresholds[best]), float(mean[best])


def _reliability(rows: Sequence[Array], labels: Sequence[npt.NDArray[np.float32]]) -> Reliability:
    """Look at each half of the examples with the calibration of the other half."""
    scores: list[Array] = []
    seen: list[npt.NDArray[np.float32]] = []
    for half in (0, 1):
        try:
            weights = _fit(rows[1 - half :: 2], labels[1 - half :: 2])
        except UsageError:  # so few examples that one half has one kind only
            weights = _fit(rows, labels)
        scores += [expit(row @ weights) for row in rows[half::2]]
        seen += labels[half::2]
    return Reliability.of(np.concatenate(scores), np.concatenate(seen))


def _fit(rows: Sequence[Array], labels: Sequence[npt.NDArray[np.float32]]) -> Array:
    """Return the weights for candidates of several examples."""
    if not rows:
        raise UsageError("the scores cannot be calibrated: there is no example to calibrate on")
    return logistic_regression(np.concatenate(rows), np.concatenate(labels))


def logistic_regression(x: Array, label: npt.NDArray[Any]) -> Array:
    """Return the weights that make `expit(x @ weights)` the probability of label 1; the first of x is 1.

    Raises
    ------
    UsageError
        All labels are equal.
    """
    if len(label) == 0 or label.min() == label.max():
        raise UsageError("the scores cannot be calibrated: all candidates are of one kind")
    used = x.std(axis=0) > 0
    used[0] = True

    def loss(weights: Array) -> tuple[float, Array]:
        odds = x[:, used] @ weights
        error = expit(odds) - label
        value = np.logaddexp(0, odds).mean() - (label * odds).mean() + 1e-4 * (weights**2).sum()
        return float(value), x[:, used].T @ error / len(label) + 2e-4 * weights

    weights = np.zeros(x.shape[1])
    weights[used] = minimize(loss, np.zeros(int(used.sum())), jac=True, method="L-BFGS-B").x
    return weights
