"""The canary: the same picks, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from drpwatch.errors import CanaryMoved, UnusableMicrograph
from drpwatch.micrograph import PickParams, Picks
from drpwatch.pick import scene
from drpwatch.pick.picker import Picker as TorchPicker
from drpwatch.service import canary as module
from drpwatch.service.canary import Canary
from drpwatch.service.clock import Clock

YX = np.array([[10, 20], [300, 40], [500, 900]], np.float32)
SCORE = np.array([0.9, 0.5, 0.025], np.float32)


class Scripted:
    """A picker that picks what it is told to."""

    weights_sha256 = "a" * 64
    device_name = "canary device"
    tile_sizes_px = (256,)

    def __init__(self) -> None:
        self.yx, self.score, self.blank = YX, SCORE, False

    def upload(self, pixels: np.ndarray) -> None:
        pass

    def prepare(self, uploaded: None, pixel_size_yx: tuple[float, float], params: PickParams) -> None:
        if self.blank:
            raise UnusableMicrograph("blank")

    def detect(self, prepared: None, params: PickParams, tile_px: int) -> None:
        pass

    def choose(self, candidate_map: None) -> Picks:
        return Picks(self.yx, self.score, 0.5, self.weights_sha256)

    def memory_bytes(self) -> dict[str, int]:
        return {}


def test_the_picture_is_always_the_same() -> None:
    one = module.picture()
    assert one.shape == scene.SHAPE_YX
    assert one.dtype == np.float32
    assert np.array_equal(one, module.picture())


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_what_stays_is_well(shift: float) -> None:
    canary, picker = Canary(1.0, Clock()), Scripted()
    canary.check(picker)
    picker.yx, picker.score = YX + shift, SCORE + 0.004
    canary.check(picker)
    picker.yx, picker.score = YX[:2], SCORE[:2]  # one at the floor may be under it
    canary.check(picker)


@pytest.mark.parametrize(
    ("yx", "score"),
    [
        (YX + 3, SCORE),
        (YX, SCORE * 0.8),
        (YX[:1], SCORE[:1]),
        (YX[:0], SCORE[:0]),
        (np.concatenate([YX, YX + 50]), np.concatenate([SCORE, SCORE])),
        (YX * np.nan, SCORE),
    ],
)
def test_what_moves_is_told(yx: np.ndarray, score: np.ndarray) -> None:
    canary, picker = Canary(1.0, Clock(wall=lambda: 1_800_000_000.0)), Scripted()
    canary.check(picker)
    picker.yx, picker.score = yx, score
    with pytest.raises(CanaryMoved, match="what was picked after 2027-01-15 08:00:00 UTC may be wrong"):
        canary.check(picker)


def test_each_model_has_its_own_picks() -> None:
    canary, picker, other = Canary(1.0, Clock()), Scripted(), Scripted()
    canary.check(picker)
    other.weights_sha256, other.yx = "b" * 64, YX + 9
    canary.check(other)
    other.blank = True
    with pytest.raises(CanaryMoved):
        canary.check(other)
    canary.check(picker)


def test_it_is_due_after_its_time_or_never() -> None:
    now_s = 100.0
    canary, never = (Canary(every_s, Clock(monotonic=lambda: now_s)) for every_s in (10.0, 0.0))
    for one in (canary, never):
        one.check(Scripted())
    assert not canary.is_due
    now_s = 110.0
    assert (canary.is_due, never.is_due) == (True, False)


def test_the_shipped_weights_find_something_on_it() -> None:
    picker = TorchPicker.load("general", "cpu", 1)
    picks = picker.pick(module.picture(), (module.PIXEL_SIZE_ANGSTROM,) * 2, module.PARAMS)
    assert (picks.score > 0.03).sum() > 10
    canary = Canary(1.0, Clock())
    canary.check(picker)
    canary.check(picker)
