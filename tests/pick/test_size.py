"""How large particles are, by their rings: believed where it is more than what was said, and clear."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from drpwatch.micrograph import PickParams
from drpwatch.pick import preprocess
from drpwatch.pick.preprocess import PreparedImage, Preprocessing, prepare
from drpwatch.pick.rings import RINGS, typical_rings
from drpwatch.pick.size import enlargement
from tests.pick.test_signature import noise, shells

SHAPE = (384, 384)
PIXEL_YX = (2.0, 2.0)
CONSTANTS = Preprocessing()


def said_of(field: torch.Tensor) -> float:
    return float(enlargement(typical_rings(field), field.numel(), 18.0))


def prepared(field: torch.Tensor, diameter_px: float, constants: Preprocessing = CONSTANTS) -> PreparedImage:
    return prepare(field, PIXEL_YX, PickParams(diameter_angstrom=diameter_px * PIXEL_YX[0]), constants)


@pytest.mark.parametrize("times", [1.15, 1.25, 1.35, 1.5])
def test_shells_that_are_larger_than_said_are_seen_to_be(times: float) -> None:
    field = shells(SHAPE, 40, contrast=0.6, diameter_px=18 * times)
    assert said_of(field) == pytest.approx(times, abs=0.1)


@pytest.mark.parametrize("times", [0.65, 0.8, 0.95])
def test_shells_that_are_smaller_are_left_at_what_was_said(times: float) -> None:
    assert said_of(shells(SHAPE, 40, contrast=0.6, diameter_px=18 * times)) == 1


@pytest.mark.parametrize("seed", range(10))
def test_noise_has_no_size(seed: int) -> None:
    assert said_of(noise(*SHAPE, seed=seed)) == 1


@given(st.lists(st.floats(-14, 14, width=32), min_size=RINGS, max_size=RINGS), st.integers(1, 10**7))
def test_whatever_the_rings_it_is_from_one_to_what_is_looked_for(rings: list[float], pixels: int) -> None:
    assert 1 <= float(enlargement(torch.tensor(rings), pixels, 18.0)) <= 1.601


def test_a_diameter_that_is_too_small_is_corrected_before_the_networks_look() -> None:
    field = shells(SHAPE, 40, contrast=0.6, diameter_px=24)
    right, small = prepared(field, 24), prepared(field, 19)
    assert right.scale_yx[0] == pytest.approx(24 / 18, rel=0.02)  # as it was said
    assert small.scale_yx[0] == pytest.approx(right.scale_yx[0], rel=0.08)
    assert small.diameter_px == pytest.approx(18, rel=0.02)  # of the diameter that it found
    assert small.bounds == right.bounds


def test_weights_that_see_particles_in_another_size_are_told_in_that() -> None:
    field = shells(SHAPE, 40, contrast=0.6, diameter_px=24)
    larger = Preprocessing(working_diameter_px=20.0)
    assert prepared(field, 19, larger).scale_yx[0] == pytest.approx(24 / 20, rel=0.08)
    assert prepared(field, 24, larger).scale_yx[0] == pytest.approx(24 / 20, rel=0.02)


def test_a_particle_that_would_not_fit_the_image_is_left_as_small_as_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preprocess, "enlargement", lambda *_: torch.tensor(1.5))
    assert prepared(noise(28, 400), 19).scale_yx[1] == pytest.approx(19 / 18, rel=0.01)
    assert prepared(noise(30, 400), 19).scale_yx[1] == pytest.approx(1.5 * 19 / 18, rel=0.01)


def test_the_reference_takes_the_diameter_as_it_is() -> None:
    field = shells(SHAPE, 40, contrast=0.6, diameter_px=24)
    assert prepared(field, 19, Preprocessing(kind="reference")).scale_yx == (1.0, 1.0)


def test_rings_are_those_of_the_picture_that_the_networks_see() -> None:
    found = prepared(shells(SHAPE, 40, contrast=0.6, diameter_px=24), 19)
    assert np.array_equal(found.rings, typical_rings(found.image[found.inside]))
