"""The matching rule against brute force, and the figures that follow from it."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drpwatch.assess.coordinates import Coordinates
from drpwatch.assess.detection import evaluate, match, sweep_thresholds
from drpwatch.errors import UsageError


def points(*yx: tuple[float, float], score: list[float] | None = None) -> Coordinates:
    return Coordinates(np.array(yx, float).reshape(-1, 2), None if score is None else np.array(score))


def best_by_trying(picks: np.ndarray, truth: np.ndarray, radius_px: float) -> tuple[int, float]:
    """Return the most pairs, and the least sum of distances among those, of all matchings."""
    few, many = sorted((picks, truth), key=len)
    best = (0, 0.0)
    for order in permutations(range(len(many)), len(few)):
        distances = np.hypot(*(few - many[list(order)]).T) if len(few) else np.empty(0)
        close = distances[distances <= radius_px]
        best = max(best, (len(close), -close.sum()))
    return best[0], -best[1]


grid = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=5)


@settings(max_examples=150, deadline=None)
@given(grid, grid, st.integers(1, 8))
def test_no_matching_is_better(picks, truth, radius_px):
    picks_yx, truth_yx = points(*picks).yx_px, points(*truth).yx_px
    found = match(picks_yx, truth_yx, radius_px)
    assert len(set(found.pick)) == len(set(found.truth)) == len(found.distance_px)
    assert (found.distance_px <= radius_px).all()
    np.testing.assert_allclose(
        found.distance_px, np.hypot(*(picks_yx[found.pick] - truth_yx[found.truth]).T.reshape(2, -1))
    )
    n_pairs, total_px = best_by_trying(picks_yx, truth_yx, radius_px)
    assert len(found.distance_px) == n_pairs
    assert found.distance_px.sum() == pytest.approx(total_px)


class TestMatch:
    def test_a_pick_in_the_middle_serves_one_particle(self):
        assert len(match([[0, 0]], [[0, 3], [0, -3]], 5).pick) == 1

    def test_two_picks_on_one_particle_are_one_right_pick(self):
        found = match([[0, 1], [0, 0]], [[0, 0]], 5)
        assert found.pick.tolist() == [1]

    def test_more_pairs_are_better_than_near_ones(self):
        found = match([[0, 4], [0, 0]], [[0, 5], [0, 9]], 5)
        assert sorted(zip(found.pick, found.truth, strict=True)) == [(0, 1), (1, 0)]

    def test_the_radius_itself_counts(self):
        assert len(match([[0, 5]], [[0, 0]], 5).pick) == 1
        assert len(match([[0, 5.001]], [[0, 0]], 5).pick) == 0

    def test_thousands_in_a_crowd(self):
        truth = np.random.default_rng(0).uniform(0, 4000, (3000, 2))
        found = match(truth[::-1] + 1.0, truth, 60)
        assert len(found.pick) == 3000


TRUTH = {"a": points((10, 10), (50, 50), (90, 90)), "b": points((10, 10)), "c": points()}
PICKS = {
    "a": points((11, 10), (53, 54), (200, 200), score=[0.9, 0.5, 0.3]),
    "other": points((1, 1), (2, 2), score=[0.9, 0.9]),
    "empty": points(score=[]),
}


class TestEvaluate:
    def test_figures(self):
        result = evaluate(PICKS, TRUTH, 10)
        a, b, c = result.micrographs
        assert (a.n_truth, a.n_picks, a.n_matched) == (3, 3, 2)
        assert (a.recall, a.precision, a.f) == (pytest.approx(2 / 3),) * 3
        assert a.median_error_px == pytest.approx(3.0)
        assert (b.recall, b.n_picks, b.f) == (0.0, 0, 0.0)
        assert np.isnan([b.precision, b.median_error_px, c.recall, c.f]).all()
        assert (result.pooled.n_truth, result.pooled.n_picks, result.pooled.n_matched) == (4, 3, 2)
        assert result.pooled.f == pytest.approx(4 / 7)

    def test_picks_beside_the_truth_are_told(self):
        result = evaluate(PICKS, TRUTH, 10)
        assert (result.n_unscored_micrographs, result.n_unscored_picks) == (1, 2)

    def test_sweep(self):
        thresholds = sweep_thresholds({"a": PICKS["a"]})
        assert thresholds == [0.3, 0.5, 0.9]
        result = evaluate(PICKS, TRUTH, 10, thresholds)
        assert [point.pooled.n_picks for point in result.sweep] == [3, 2, 1]
        assert [point.pooled.n_matched for point in result.sweep] == [2, 2, 1]
        assert result.best is not None
        assert result.best.threshold == 0.5

    def test_a_sweep_needs_scores(self):
        with pytest.raises(UsageError, match="no rlnAutopickFigureOfMerit"):
            sweep_thresholds(TRUTH)

    def test_nothing_in_common(self):
        with pytest.raises(UsageError, match="no micrograph in common: picks name 'x', the truth names 'a'"):
            evaluate({"x": points((1, 1))}, TRUTH, 10)
        with pytest.raises(UsageError, match="picks name 'x', the truth names none"):
            evaluate({"x": points((1, 1))}, {}, 10)

    def test_no_pick_at_all_is_a_result(self):
        result = evaluate({}, TRUTH, 10, sweep_thresholds({}))
        assert [one.micrograph for one in result.micrographs] == list(TRUTH)
        assert (result.pooled.n_picks, result.pooled.n_truth) == (
            0,
            sum(len(one.yx_px) for one in TRUTH.values()),
        )
        assert result.pooled.recall == 0

    @pytest.mark.parametrize("radius_px", [0, -1, float("nan"), float("inf")])
    def test_a_diameter_that_is_none(self, radius_px):
        with pytest.raises(UsageError, match="is not positive"):
            evaluate(PICKS, TRUTH, radius_px)
