"""How well picks agree with the truth: one-to-one matching, recall, precision, F.

Owns: the matching rule, the figures, and which micrograph of one list is which of the other. Does not
own: printing (`cli.evaluate`), nor how picks came about.

A pick is right when it is matched to a particle of the truth not farther than a radius away (half a
particle diameter). Each pick and each particle is matched once at most; of all such matchings one with
the most pairs is taken, and of those one with the least sum of distances. All micrographs that the
truth names count, also those without any pick.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from drpwatch.assess.coordinates import Coordinates, pair_names
from drpwatch.errors import UsageError
from drpwatch.pick.trees import tree_of

SWEEP_POINTS = 20

_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Matching:
    """Pairs of picks and particles: three (k,) arrays."""

    pick: _Integers
    truth: _Integers
    distance_px: _Floats


@dataclass(frozen=True, slots=True)
class Agreement:
    """The figures of one micrograph, or of several pooled; what has no value is NaN."""

    micrograph: str
    n_truth: int
    n_picks: int
    distance_px: _Floats  # (n_matched,) from each right pick to its particle

    @property
    def n_matched(self) -> int:
        """Number of right picks."""
        return len(self.distance_px)

    @property
    def recall(self) -> float:
        """Share of the particles that were found."""
        return self.n_matched / self.n_truth if self.n_truth else float("nan")

    @property
    def precision(self) -> float:
        """Share of the picks that are right."""
        return self.n_matched / self.n_picks if self.n_picks else float("nan")

    @property
    def f(self) -> float:
        """Harmonic mean of recall and precision."""
        total = self.n_truth + self.n_picks
        return 2 * self.n_matched / total if total else float("nan")

    @property
    def median_error_px(self) -> float:
        """Median distance of the right picks from their particles."""
        return float(np.median(self.distance_px)) if self.n_matched else float("nan")


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """What would have been, had only picks of at least this score been made."""

    threshold: float
    pooled: Agreement


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Picks held against the truth."""

    radius_px: float
    micrographs: tuple[Agreement, ...]  # in the order of the truth
    pooled: Agreement
    n_unscored_micrographs: int  # with picks, but not in the truth
    n_unscored_picks: int
    sweep: tuple[SweepPoint, ...] = ()

    @property
    def best(self) -> SweepPoint | None:
        """The point of the sweep with the highest F."""
        return max(self.sweep, key=lambda point: np.nan_to_num(point.pooled.f), default=None)


def match(picks_yx: npt.ArrayLike, truth_yx: npt.ArrayLike, radius_px: float) -> Matching:
    """Match picks to particles one to one.

    Parameters
    ----------
    picks_yx, truth_yx
        (n, 2) and (m, 2) pixels.
    radius_px
        The farthest that a right pick may be, this distance included.

    Returns
    -------
    matching
        The most pairs possible, and among these the least sum of distances.
    """
    picks = np.reshape(np.asarray(picks_yx, dtype=np.float64), (-1, 2))
    truth = np.reshape(np.asarray(truth_yx, dtype=np.float64), (-1, 2))
    if not (len(picks) and len(truth)):
        return _no_pairs()
    pairs = tree_of(picks).sparse_distance_matrix(tree_of(truth), radius_px, output_type="ndarray")
    if not len(pairs):
        return _no_pairs()
    pick_of_row, row = np.unique(pairs["i"], return_inverse=True)
    truth_of_column, column = np.unique(pairs["j"], return_inverse=True)
    n, m = len(pick_of_row), len(truth_of_column)
    # A column of its own for each pick stands for "unmatched", and costs more than any distances can
    # save. One pixel is added throughout, as zero would mean that there is no pair.
    unmatched = (min(n, m) + 1) * (radius_px + 1.0)
    cost = coo_matrix(
        (
            np.concatenate([pairs["v"] + 1.0, np.full(n, unmatched)]),
            (np.concatenate([row, np.arange(n)]), np.concatenate([column, m + np.arange(n)])),
        ),
        shape=(n, m + n),
    ).tocsr()
    rows, columns = min_weight_full_bipartite_matching(cost)
    real = columns < m
    pick, found = pick_of_row[rows[real]], truth_of_column[columns[real]]
    return Matching(pick, found, np.hypot(*(picks[pick] - truth[found]).T))


def evaluate(
    picks: Mapping[str, Coordinates],
    truth: Mapping[str, Coordinates],
    radius_px: float,
    thresholds: Iterable[float] = (),
) -> Evaluation:
    """Hold picks against the truth, per micrograph and pooled.

    Parameters
    ----------
    picks, truth
        Coordinates by name of the micrograph, as `read_coordinates` gives them.
    radius_px
        The farthest that a right pick may be: half a particle diameter.
    thresholds
        Scores for the sweep; see `sweep_thresholds`.

    Raises
    ------
    UsageError
        They have no micrograph in common, the radius is not positive, or picks have no scores to sweep.
    """
    if not 0 < radius_px < float("inf"):
        raise UsageError(f"a particle diameter of {2 * radius_px} px is not positive")
    names = pair_names(truth, picks)
    if not names and (picks or not truth):  # no pick at all is a result
        raise UsageError(
            f"picks and truth have no micrograph in common: picks name {_example(picks)}, "
            f"the truth names {_example(truth)}"
        )
    chosen = {name: picks.get(names.get(name, ""), Coordinates.none()) for name in truth}
    micrographs = _agreements(chosen, truth, radius_px)
    scored = set(names.values())
    unscored = [found for name, found in picks.items() if name not in scored and len(found.yx_px)]
    return Evaluation(
        radius_px=radius_px,
        micrographs=micrographs,
        pooled=pool(micrographs),
        n_unscored_micrographs=len(unscored),
        n_unscored_picks=sum(len(found.yx_px) for found in unscored),
        sweep=tuple(
            SweepPoint(threshold, pool(_agreements(_at_least(chosen, threshold), truth, radius_px)))
            for threshold in thresholds
        ),
    )


def pool(agreements: Sequence[Agreement]) -> Agreement:
    """Return the figures of several micrographs taken as one."""
    return Agreement(
        micrograph="pooled",
        n_truth=sum(one.n_truth for one in agreements),
        n_picks=sum(one.n_picks for one in agreements),
        distance_px=np.concatenate([np.empty(0), *(one.distance_px for one in agreements)]),
    )


def sweep_thresholds(picks: Mapping[str, Coordinates], count: int = SWEEP_POINTS) -> list[float]:
    """Return up to `count` scores, rising, that divide all picks into equal parts.

    Raises
    ------
    UsageError
        Picks have no scores.
    """
    scores = np.concatenate([np.empty(0), *(_scores(found) for found in picks.values())])
    if not len(scores):
        return []
    shares = np.linspace(0, 1, count, endpoint=False)
    return [float(score) for score in np.unique(np.quantile(scores, shares, method="higher"))]


def _agreements(
    picks: Mapping[str, Coordinates], truth: Mapping[str, Coordinates], radius_px: float
) -> tuple[Agreement, ...]:
    """Return the figures of each micrograph of the truth; both have the same names."""
    return tuple(
        Agreement(
            micrograph=name,
            n_truth=len(particles.yx_px),
            n_picks=len(picks[name].yx_px),
            distance_px=match(picks[name].yx_px, particles.yx_px, radius_px).distance_px,
        )
        for name, particles in truth.items()
    )


def _at_least(picks: Mapping[str, Coordinates], threshold: float) -> dict[str, Coordinates]:
    """Return the picks that reach a score."""
    kept = {}
    for name, found in picks.items():
        enough = _scores(found) >= threshold
        kept[name] = Coordinates(found.yx_px[enough], _scores(found)[enough])
    return kept


def _scores(found: Coordinates) -> _Floats:
    """Return (n,) the scores of picks, which must have them."""
    if found.score is None:
        raise UsageError("the picks have no rlnAutopickFigureOfMerit: no threshold can be swept")
    return found.score


def _no_pairs() -> Matching:
    """Return an empty matching."""
    nothing = np.empty(0, dtype=np.intp)
    return Matching(nothing, nothing, np.empty(0))


def _example(coordinates: Mapping[str, Coordinates]) -> str:
    """Return one of the names, for a message."""
    return repr(next(iter(coordinates))) if coordinates else "none"
