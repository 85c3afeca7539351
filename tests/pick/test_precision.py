"""Half precision, and the gate before it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from drpwatch.micrograph import Picks
from drpwatch.pick import precision, scene
from drpwatch.pick.picker import Picker

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def grid(seed: int, shift_px: float = 0.0, without: int = 0) -> Picks:
    """A hundred picks that belong to a scene."""
    yx = np.stack(np.divmod(np.arange(100), 10), axis=1).astype(np.float32) * 90 + seed
    return Picks((yx + shift_px)[without:], np.full(100 - without, 0.9, np.float32), 0.5, "")


class Scripted:
    """Picks each scene as it is told to, in turn."""

    def __init__(self, picks: list[Picks]) -> None:
        self.picks = picks
        self.asked = iter(picks)

    def __call__(self, pixels: np.ndarray) -> Picks:
        assert pixels.shape == scene.SHAPE_YX
        return next(self.asked)


def compare(*changed: Picks) -> str | None:
    """Compare the same picks, but for those of the first scenes."""
    scenes = len(precision._SCENES)
    same = [grid(n) for n in range(scenes)]
    return precision.disagreement(Scripted(same), Scripted([*changed, *same[len(changed) :]]))


def test_the_same_picks_agree() -> None:
    assert compare() is None
    assert compare(grid(0, shift_px=0.6)) is None  # a pixel is near
    assert compare(grid(0, without=5)) is None


@pytest.mark.parametrize("other", [grid(0, shift_px=0.8), grid(0, without=7), grid(0, shift_px=np.nan)])
def test_other_picks_do_not(other: Picks) -> None:
    told = compare(other)
    assert told is not None
    assert "% of the picks in simulated micrographs are the same" in told


def test_picks_that_only_the_quick_way_has_count_too() -> None:
    scenes = len(precision._SCENES)
    fewer = [grid(n, without=7 if n == 0 else 0) for n in range(scenes)]
    assert precision.disagreement(Scripted(fewer), Scripted([grid(n) for n in range(scenes)])) is not None


def test_of_too_few_picks_nothing_follows() -> None:
    few = [grid(n, without=90) for n in range(len(precision._SCENES))]
    told = precision.disagreement(Scripted(few), Scripted(few))
    assert told == "too few picks to compare: 60 in 6 simulated micrographs"


def test_what_is_tried() -> None:
    assert precision.candidates("auto", CPU) == ()
    assert precision.candidates("auto", GPU) == ("float16", "bfloat16")
    assert precision.candidates("float32", GPU) == ()
    assert precision.candidates("bfloat16", CPU) == ("bfloat16",)


def test_half_precision_is_used_where_picks_agree() -> None:
    picker = Picker.load("general", "cpu", precision="float16")
    assert (picker.precision, picker.imprecise) == ("float16", None)
    assert {value.dtype for value in picker._detector.parameters()} == {torch.float16}
    exact = Picker.load("general", "cpu")
    assert (exact.precision, exact.imprecise) == ("float32", None)
    pixels = scene.picture(11, 0.3)
    one, other = exact.pick_scene(pixels), picker.pick_scene(pixels)
    assert one.count == other.count > 50
    assert not np.array_equal(one.score, other.score)
    np.testing.assert_allclose(one.score, other.score, atol=0.02)


def test_float32_is_what_is_left_where_they_do_not(
    monkeypatch: pytest.MonkeyPatch, model_with_classifier: Path
) -> None:
    monkeypatch.setattr(precision, "_LEAST_PICKS", 10**6)
    picker = Picker.load(str(model_with_classifier), "cpu", precision="bfloat16")
    assert picker.precision == "float32"
    assert picker.imprecise is not None
    assert "too few picks" in picker.imprecise


def test_the_scenes_are_as_hard_as_they_should_be() -> None:
    """Neither all clear nor all lost: then any way to compute would agree."""
    picker = Picker.load("general", "cpu")
    score = np.concatenate([picker.pick_scene(scene.picture(*one)).score for one in precision._SCENES])
    near = np.abs(score - picker.default_threshold) < 0.2
    assert (score >= picker.default_threshold).sum() >= 2 * precision._LEAST_PICKS
    assert near.sum() >= 30
