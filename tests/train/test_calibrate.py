import numpy as np
import pytest

from drpwatch.errors import UsageError
from drpwatch.pick.scoring import as_weights
from drpwatch.train.calibrate import (
    Calibrated,
    Reliability,
    as_calibration,
    best_threshold,
    calibrate,
    quiet_above,
)
from drpwatch.train.judge import Judged, features
from tests.train.making import blank_example, candidates, judged_at_random


def calibrated(judged: list[Judged]) -> Calibrated:
    return calibrate([features(None, one) for one in judged], judged)


def test_calibration_gives_probabilities_and_a_threshold():
    judged = [judged_at_random(400, seed) for seed in range(4)]
    found = calibrated(judged)
    assert 0.2 < found.threshold < 0.7
    assert 0.75 < found.f < 1
    x = np.concatenate([features(None, one) for one in judged])
    label = np.concatenate([one.label for one in judged])
    score = 1 / (1 + np.exp(-(x @ as_weights(found.calibration))))
    for low in (0.0, 0.25, 0.5, 0.75):
        part = (score >= low) & (score < low + 0.25)
        assert label[part].mean() == pytest.approx(score[part].mean(), abs=0.08)
    assert found.calibration.classifier == 0
    assert as_calibration(as_weights(found.calibration)) == found.calibration


def test_the_reliability_is_that_of_examples_not_fitted_to():
    found = calibrated([judged_at_random(400, seed) for seed in range(4)]).reliability
    assert sum(found.count) == 1600
    assert found.error < 0.06
    # Examples that contradict each other cannot vouch for each other.
    one = judged_at_random(400, 0)
    other = Judged(one.example, one.found, 1 - one.label)
    assert calibrated([one, other]).reliability.error > 0.3


def test_reliability_counts_in_bins():
    found = Reliability.of(np.array([0.02, 0.04, 0.55, 1.0]), np.array([0, 1, 1, 1]))
    assert found.predicted == (0.03, 0.55, 1.0)
    assert found.observed == (0.5, 1.0, 1.0)
    assert found.count == (2, 1, 1)
    assert found.error == pytest.approx((2 * 0.47 + 0.45) / 4)
    assert Reliability.from_dict(found.as_dict()) == found


def test_calibration_of_one_kind_is_refused():
    one = judged_at_random(20, 0)
    with pytest.raises(UsageError, match="all candidates are of one kind"):
        calibrated([Judged(one.example, one.found, np.ones(20, np.float32))])
    with pytest.raises(UsageError, match="there is no example"):
        calibrated([])


def test_the_threshold_is_best_for_the_mean_example():
    yx = [(10 * i, 10 * i) for i in range(1, 9)]
    judged = [
        Judged(blank_example(yx[:6]), candidates(yx), np.array([1] * 6 + [0] * 2, np.float32), truths=6)
    ]
    score = np.array([0.9, 0.8, 0.8, 0.7, 0.7, 0.6, 0.4, 0.3])
    threshold, f = best_threshold([score], judged)
    assert 0.4 < threshold <= 0.6
    assert f == 1


def test_empty_examples_speak_for_a_threshold_that_leaves_them_empty():
    yx = [(10 * i, 10 * i) for i in range(1, 9)]
    none = Judged(blank_example([]), candidates(yx), np.zeros(8, np.float32))
    score = np.array([0.95, 0.8, 0.8, 0.7, 0.7, 0.6, 0.4, 0.3])
    threshold, f = best_threshold([score], [none])
    assert threshold > 0.8
    assert 0.9 < f < 1  # one pick is left at any threshold
    assert best_threshold([score - 0.2], [none])[1] == 1


def test_five_in_six_empty_examples_keep_two_picks_at_most():
    yx = [(10 * i, 10 * i) for i in range(1, 9)]
    empty = Judged(blank_example([]), candidates(yx), np.zeros(8, np.float32))
    few = Judged(blank_example([]), candidates(yx[:2]), np.zeros(2, np.float32))
    full = Judged(blank_example(yx), candidates(yx), np.ones(8, np.float32), truths=8)
    score = np.array([0.95, 0.8, 0.79, 0.7, 0.7, 0.6, 0.4, 0.3])
    noisy = [score - less for less in (0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.0)]
    above = quiet_above([*noisy, np.ones(8)], [empty] * 7 + [full])
    assert [int((one > above).sum()) for one in noisy] == [0, 0, 0, 1, 1, 2, 6]
    assert quiet_above([np.ones(2)], [few]) == 0  # two are no trouble
    assert quiet_above([np.ones(8)], [full]) == 0


def test_a_threshold_is_looked_for_above_a_score():
    yx = [(10 * i, 10 * i) for i in range(1, 9)]
    judged = [Judged(blank_example(yx), candidates(yx), np.ones(8, np.float32), truths=8)]
    score = np.array([0.9, 0.8, 0.8, 0.7, 0.7, 0.6, 0.4, 0.3])
    assert best_threshold([score], judged)[0] < 0.3
    assert 0.5 < best_threshold([score], judged, above=0.5)[0] < 0.6
    assert best_threshold([score], judged, above=0.99)[0] == pytest.approx(0.9)
