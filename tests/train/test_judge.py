from dataclasses import replace

import numpy as np
import pytest
import torch

from drpwatch.errors import UsageError
from drpwatch.pick.networks import Detector
from drpwatch.pick.peaks import PeakRule
from drpwatch.train.judge import (
    Judged,
    background,
    clear_patches,
    judge,
    label_by_confidence,
    label_by_truth,
    picture,
)
from tests.train.making import blank_example, candidates, easy_example


class Dark(Detector):
    """Answers with the darkness of the image, which in easy examples is six times the label."""

    halo_px = 16
    stride_px = 1

    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(-1 / 6))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * self.factor


def test_truth_labels_are_what_an_evaluation_would_say():
    example = blank_example([(20, 20), (60, 60), (60, 72)])
    found = candidates([(22, 20), (18, 20), (60, 67), (60, 68.5), (90, 90)])
    label = label_by_truth(found, example)
    assert label.tolist() == [
        1,  # the highest takes the centre,
        0,  # a second one on the same particle is false,
        1,  # the nearest of two centres is taken,
        1,  # and the other is left for the next
        0,
    ]
    assert label_by_truth(candidates([]), example).shape == (0,)
    assert (label_by_truth(found, blank_example([])) == 0).all()


def test_there_is_no_candidate_in_padding():
    example, rule = easy_example(0), PeakRule(smooth_sigma=0.15, least_height=0.3)
    weight = torch.ones_like(example.weight)
    weight[:, :100] = 0
    (whole,) = judge(Dark(), [example], rule)
    (half,) = judge(Dark(), [replace(example, weight=weight)], rule)
    beyond = whole.found.yx[whole.found.yx[:, 1].round() >= 100]
    assert 0 < len(beyond) < len(whole.found.yx)
    assert np.array_equal(half.found.yx, beyond)


def test_confidence_labels_leave_the_middle_open():
    label = label_by_confidence(
        candidates([(i, i) for i in range(5)], [0.9, 0.7, 0.3, 0.2, 0.05]), PeakRule()
    )
    assert label[0] == 1
    assert np.isnan(label[2])
    assert label[4] == 0


def test_judging_finds_what_the_label_says():
    example = easy_example(0)
    rule = PeakRule(smooth_sigma=0.15, least_height=0.3)
    (judged,) = judge(Dark(), [example], rule)
    assert (judged.label == 1).sum() == judged.truths > 25
    assert (judged.label == 0).sum() <= 2
    (sure,) = judge(Dark(), [example], rule, "confidence")
    assert 0 < (sure.label == 1).sum() < len(example.yx_px)


def test_patches_of_clear_candidates_only():
    found = candidates([(20, 20), (50, 50), (80, 80)])
    patches = clear_patches([Judged(blank_example([]), found, np.array([1, np.nan, 0], np.float32))])
    assert patches.pixels.shape == (2, 1, 64, 64)
    assert list(patches.label) == [1, 0]
    assert (patches.count(1), patches.count(0)) == (1, 1)
    with pytest.raises(UsageError, match="found no candidates"):
        clear_patches([Judged(blank_example([]), found, np.full(3, np.nan, np.float32))])


def test_a_twin_is_judged_where_it_is_wanted_and_holds_nothing():
    rule = PeakRule(smooth_sigma=0.15, least_height=0.05, least_prominence=0.01)
    one = next(judge(Dark(), [easy_example(0)], rule, twins=True))
    assert one.twin is not None
    assert one.twin.truths == 0
    assert not one.twin.label.any()
    told = background(None, one)
    assert told.share == 1
    assert len(told.twin) == len(one.twin.label)
    assert told.twin[:, 0].max() < one.found.height.min()
    assert next(judge(Dark(), [easy_example(0)], rule)).twin is None


def test_padding_is_no_part_of_the_picture():
    weight = torch.ones(100, 100)
    weight[:, :30] = 0
    weight[80:] = 0
    assert picture(blank_example([], weight=weight)).shape == (80, 70)
