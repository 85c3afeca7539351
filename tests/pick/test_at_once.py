"""Picking as a GPU does it, on the CPU: fixed numbers and shapes, three waits for the device, and the same picks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from drpwatch.micrograph import SCORE_FLOOR, Picks
from drpwatch.pick import device, peaks, pictures, preprocess
from drpwatch.pick.picker import Picker
from drpwatch.service import canary
from tests.pick import frozen
from tests.pick.frozen import PARAMS, PIXEL
from tests.pick.making import cascade_model

KEPT = json.loads(frozen.FILE.read_text())
SCENES = frozen.scenes()


@pytest.fixture(scope="session")
def cascade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cascade_model(tmp_path_factory.mktemp("weights") / "cascade.safetensors")


@pytest.fixture(scope="session")
def in_turn(cascade: Path) -> Picker:
    return Picker.load(str(cascade), "cpu")


@pytest.fixture
def at_once(cascade: Path, monkeypatch: pytest.MonkeyPatch) -> Picker:
    return like_a_gpu(Picker.load(str(cascade), "cpu"), monkeypatch)


def like_a_gpu(picker: Picker, monkeypatch: pytest.MonkeyPatch) -> Picker:
    """Have a picker on the CPU do as it would on a GPU."""
    picker._at_once = True
    for module in (preprocess, pictures):  # numbers stay on the device
        monkeypatch.setattr(module, "scalar", lambda value: value)
    return picker


def assert_picked(picks: Picks, rows: list[list[float]]) -> None:
    """The same candidates, within a pixel and 0.01 of score; one at the floor may be under it."""
    kept = np.array(rows)
    for yx, score, others, their_score in (
        (picks.yx_px, picks.score, kept[:, :2], kept[:, 2]),
        (kept[:, :2], kept[:, 2], picks.yx_px, picks.score),
    ):
        clear = score > SCORE_FLOOR + 0.01
        distance, nearest = cKDTree(others).query(yx[clear])
        assert clear.sum() > 50
        assert distance.max() <= 1
        assert np.abs(their_score[nearest] - score[clear]).max() <= 0.01


@pytest.mark.parametrize("scene", SCENES)
def test_the_picks_are_those_of_the_code_before(in_turn: Picker, scene: str) -> None:
    assert_picked(in_turn.pick(SCENES[scene], PIXEL, PARAMS), KEPT[scene])


@pytest.mark.parametrize("scene", SCENES)
def test_the_picks_at_once_are_those_of_the_code_before(at_once: Picker, scene: str) -> None:
    assert_picked(at_once.pick(SCENES[scene], PIXEL, PARAMS), KEPT[scene])


def test_the_shipped_weights_pick_the_same_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    picker = Picker.load("general", "cpu")
    rows = frozen.as_rows(picker.pick(SCENES["spoilt"], PIXEL, PARAMS))
    assert_picked(like_a_gpu(picker, monkeypatch).pick(SCENES["spoilt"], PIXEL, PARAMS), rows)


def test_a_noise_of_few_peaks_and_a_picture_of_none(at_once: Picker, in_turn: Picker) -> None:
    slope = np.linspace(0, 1, 300 * 320, dtype=np.float32).reshape(300, 320)
    assert len(at_once.pick(slope, PIXEL, PARAMS).score) == len(in_turn.pick(slope, PIXEL, PARAMS).score)


def test_the_device_is_waited_for_three_times(at_once: Picker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever brings something to the host on a GPU is counted."""
    waits: Counter[str] = Counter()

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: torch.Tensor, *given: Any, **more: Any) -> Any:
            waits[name] += 1
            return real(self, *given, **more)

        return call

    at_once.pick(SCENES["sparse"], PIXEL, PARAMS)  # the noise of twins is made once
    for name in ("cpu", "item", "tolist", "nonzero", "__bool__", "__float__", "__int__", "__index__"):
        monkeypatch.setattr(torch.Tensor, name, counted(name, getattr(torch.Tensor, name)))
    picks = at_once.pick(SCENES["sparse"], PIXEL, PARAMS)
    assert picks.count > 0
    assert waits == {"cpu": 3}
    uploaded = at_once.upload(SCENES["sparse"])
    at_once.draw(uploaded, at_once.prepare(uploaded, PIXEL, PARAMS))
    assert waits == {"cpu": 6}  # one more where pictures are drawn


def test_nothing_is_run_in_a_shape_that_the_canary_did_not_have(at_once: Picker) -> None:
    shapes: set[tuple[int, ...]] = set()
    for network in (at_once._detector, at_once._classifier):
        assert network is not None
        network.register_forward_pre_hook(lambda _, given: shapes.add(tuple(given[0].shape)))
    at_once.pick(canary.picture(), (canary.PIXEL_SIZE_ANGSTROM,) * 2, canary.PARAMS)
    known = set(shapes)
    assert len(known) == 2
    for pixels in SCENES.values():
        at_once.pick(pixels, PIXEL, PARAMS)
    assert shapes == known


def test_where_there_is_room_for_very_many_peaks_they_are_looked_at_in_turn(
    at_once: Picker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drpwatch.pick.picker.MOST_PEAKS", 255)
    monkeypatch.setattr(at_once, "_see_at_once", pytest.fail)
    assert_picked(at_once.pick(SCENES["spoilt"], PIXEL, PARAMS), KEPT["spoilt"])


def test_of_more_peaks_than_there_are_places_the_highest_are_candidates() -> None:
    rng = np.random.default_rng(3)
    surface = torch.zeros(100, 100)
    surface[5::10, 5::10] = torch.from_numpy(rng.uniform(0.1, 1.0, (10, 10)).astype(np.float32))
    rule = peaks.PeakRule(smooth_sigma=0, least_height=0.05, least_prominence=0, spacing=0)
    found = peaks.find_peaks(surface, 8.0, rule, at_most=30)
    candidates, which = peaks.standing_out(device.on_host(*found.tensors), 8.0, rule)
    heights = np.sort(surface[surface > 0].numpy())[::-1]
    np.testing.assert_array_equal(candidates.height, heights[:30])
    assert sorted(which) == list(range(30))


@pytest.mark.parametrize("spacing", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("of_maximum", [False, True])
def test_a_fixed_number_of_peaks_gives_the_same_candidates(spacing: float, of_maximum: bool) -> None:
    rule = peaks.PeakRule(0.06, 0.02, 0.05, spacing, of_maximum=of_maximum)
    noise = np.random.default_rng(0).standard_normal((210, 330)).astype(np.float32)
    surface = preprocess.gaussian_blur(torch.from_numpy(noise), 3.0)
    found = peaks.find_peaks(surface, 18.0, rule, peaks.most_peaks(surface.shape, 18.0))
    assert 0 < torch.isfinite(found.height).sum() < len(found.height)
    assert 0 < torch.isfinite(found.saddle).sum() < len(found.saddle)
    fixed, _ = peaks.standing_out(device.on_host(*found.tensors), 18.0, rule)
    usual = peaks.find_candidates(surface, 18.0, rule)
    assert len(usual.yx) > 20
    np.testing.assert_array_equal(fixed.yx, usual.yx)
    np.testing.assert_array_equal(fixed.prominence, usual.prominence)


def test_tensors_of_any_kind_come_to_the_host_with_one_copy() -> None:
    given = [
        torch.arange(6).view(2, 3).T,
        torch.tensor(2.5),
        torch.zeros(0, 2),
        torch.ones(5, dtype=torch.uint8),
        torch.tensor([1.5, -torch.inf], dtype=torch.float64),
    ]
    for array, tensor in zip(device.on_host(*given), given, strict=True):
        np.testing.assert_array_equal(array, tensor.numpy())
        assert array.dtype == tensor.numpy().dtype
