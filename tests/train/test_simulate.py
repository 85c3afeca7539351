from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from drpwatch.train.shapes import invented_species, load_species
from drpwatch.train.simulate import CLEAR, Scene, draw_conditions, simulate, thin

CLEAN = replace(CLEAR, blemished=0.0)
SHAPE = (300, 360)
PIXEL = 5.0


@pytest.fixture(scope="module")
def species():
    return load_species([], 3, seed=0)


def scene(species, conditions=CLEAN, seed=0):
    return simulate(species[0], species[1:], conditions, SHAPE, PIXEL, np.random.default_rng(seed))


def test_the_seed_decides_everything(species):
    conditions = replace(draw_conditions(np.random.default_rng(0)), blemished=2.0)
    one, same, other = (scene(species, conditions, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.pixels, same.pixels)
    np.testing.assert_array_equal(one.yx_px, same.yx_px)
    assert not np.array_equal(one.pixels, other.pixels)


@pytest.mark.parametrize("seed", range(8))
def test_every_kind_of_scene_is_finite_and_its_truth_in_bounds(species, seed):
    rng = np.random.default_rng(seed)
    one = simulate(species[seed % 3], species, draw_conditions(rng), SHAPE, PIXEL, rng)
    assert one.pixels.shape == one.inside.shape == SHAPE
    assert one.pixels.dtype == one.yx_px.dtype == np.float32
    assert np.isfinite(one.pixels).all()
    assert one.pixels.std() > 0
    assert one.yx_px.shape[1] == 2
    assert ((one.yx_px >= 0) & (one.yx_px < SHAPE)).all()
    places = np.floor(one.yx_px).astype(int).T
    assert (one.inside[tuple(places)] > 0).mean() > 0.95 if places.size else True


def contrast(one: Scene, radius_px: float) -> float:
    """How much darker than their surround particles are, in deviations of the image."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    distance = cKDTree(one.yx_px).query(np.stack([y, x], axis=-1))[0]
    middle, around = one.pixels[distance < 0.5 * radius_px], one.pixels[distance > 1.2 * radius_px]
    return float((around.mean() - middle.mean()) / one.pixels.std())


@pytest.mark.parametrize("seed", range(4))
def test_particles_are_darker_than_what_is_around_them(seed):
    species = invented_species(np.random.default_rng(seed))
    one = simulate(species, [], CLEAN, SHAPE, PIXEL, np.random.default_rng(seed))
    assert contrast(one, species.diameter_angstrom / PIXEL / 2) > 0.05  # rods are thin


def test_particles_keep_their_distance(species):
    one = scene(species)
    pairs = cKDTree(one.yx_px).query_pairs(0.99 * CLEAN.spacing * species[0].diameter_angstrom / PIXEL)
    assert len(one.yx_px) > 5
    assert not pairs


def test_an_empty_field_has_no_truth(species):
    assert scene(species, replace(CLEAN, coverage=0.0)).yx_px.shape == (0, 2)


def test_a_wanted_visibility_orders_the_noise(species):
    contrasts = []
    for visibility in (3.0, 30.0):
        one = scene(species, replace(CLEAN, visibility=visibility))
        contrasts.append(contrast(one, species[0].diameter_angstrom / PIXEL / 2))
    assert contrasts[1] > 2 * contrasts[0]


def test_true_ice_stays_as_it_is_whatever_is_wanted(species):
    for visibility in (2.0, 12.0):
        drawn = replace(CLEAN, true_ice=True, ice_noise_angstrom=4.0, visibility=visibility)
        made = scene(species, drawn).conditions
        assert made.ice_noise_angstrom == 4.0
        weaker = scene(species, replace(drawn, visibility=visibility / 2)).conditions
        assert weaker.dose_per_angstrom_squared < made.dose_per_angstrom_squared < 500


def test_what_the_ice_hides_no_dose_shows(species):
    drawn = replace(CLEAN, true_ice=True, ice_noise_angstrom=40.0, visibility=1000.0)
    assert scene(species, drawn).conditions.dose_per_angstrom_squared == pytest.approx(500, rel=1e-3)


def test_true_ice_has_less_noise_than_networks_are_shown():
    noise = {
        true_ice: [
            draw_conditions(np.random.default_rng(seed), true_ice=true_ice).ice_noise_angstrom
            for seed in range(200)
        ]
        for true_ice in (False, True)
    }
    assert np.median(noise[True]) < 0.6 * np.median(noise[False])
    assert max(noise[True]) > 10  # some buffers are dirty


def test_thinning_keeps_the_first_of_each_crowd():
    yx = np.array([[0.0, 0.0], [0.0, 5.0], [0.0, 12.0], [30.0, 30.0]])
    np.testing.assert_array_equal(thin(yx, 10.0), yx[[0, 2, 3]])
    assert thin(np.empty((0, 2)), 10.0).shape == (0, 2)


def test_conditions_cover_empty_and_crowded_and_both_voltages():
    drawn = [draw_conditions(np.random.default_rng(seed)) for seed in range(200)]
    assert {one.optics.voltage_kv for one in drawn} == {200.0, 300.0}
    assert any(one.coverage == 0 for one in drawn)
    assert any(one.coverage > 0.4 for one in drawn)
    assert all(0 < one.optics.defocus_um < 4.01 for one in drawn)
