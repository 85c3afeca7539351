from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from drpwatch.errors import UnusableMicrograph
from drpwatch.micrograph import SCORE_FLOOR, PickParams
from drpwatch.pick.picker import Picker
from drpwatch.train.shapes import invented_species
from drpwatch.train.simulate import CLEAR, simulate
from tests.pick.making import discs, scattered

PARAMS = PickParams(diameter_angstrom=100.0)
SHAPE = (420, 510)
PIXEL = (2.5, 2.5)  # a particle is 40 px across
PLACES = scattered(SHAPE, 40)


def scene(seed: int = 0) -> np.ndarray:
    return discs(SHAPE, PLACES, (40, 40), seed)


def chosen(picks) -> np.ndarray:
    return picks.yx_px[picks.chosen]


def assert_at(found, places, within):
    distance, nearest = cKDTree(places).query(found)
    assert len(found) == len(places)
    assert sorted(nearest) == list(range(len(places)))
    assert distance.max() <= within


@pytest.mark.parametrize(
    ("shape", "pixel_yx", "angstrom"),
    [
        ((420, 510), (2.5, 2.5), 100.0),  # scaled down
        ((421, 333), (2.5, 2.5), 100.0),  # odd
        ((300, 700), (4.0, 4.0), 100.0),  # about as it is: 25 px
        ((201, 240), (8.0, 8.0), 100.0),  # scaled up: 12.5 px
        ((500, 430), (2.0, 3.0), 100.0),  # pixels that are not square
        ((901, 1000), (1.0, 1.0), 100.0),
    ],
)
def test_discs_are_found_where_they_are(picker, shape, pixel_yx, angstrom):
    size_yx = angstrom / pixel_yx[0], angstrom / pixel_yx[1]
    places = scattered(shape, max(size_yx))
    image = discs(shape, places, size_yx)
    picks = picker.pick(image, pixel_yx, PickParams(angstrom))
    assert_at(chosen(picks), places, within=0.06 * max(size_yx) + 1)


def test_places_have_no_systematic_shift(picker):
    """A shift of a pixel of the working image would be 1.7 pixels here."""
    errors = []
    for seed in range(3):
        found = chosen(picker.pick(scene(seed), PIXEL, PARAMS))
        _, nearest = cKDTree(PLACES).query(found)
        errors.append(found - np.array(PLACES)[nearest])
    assert np.abs(np.concatenate(errors).mean(axis=0)).max() < 0.4


def test_the_same_micrograph_gives_the_same_picks_whatever_came_before(
    picker_with_classifier, model_with_classifier
):
    picker = picker_with_classifier
    first = picker.pick(scene(), PIXEL, PARAMS)
    for seed in (1, 2):
        picker.pick(scene(seed)[:300], PIXEL, PickParams(60.0, threshold=0.1))
    for other in (picker, Picker.load(str(model_with_classifier), "cpu")):
        again = other.pick(scene(), PIXEL, PARAMS)
        np.testing.assert_array_equal(first.yx_px, again.yx_px)
        np.testing.assert_array_equal(first.score, again.score)


def test_the_steps_are_the_whole(picker):
    whole = picker.pick(scene(), PIXEL, PARAMS)
    steps = picker.choose(picker.detect(picker.prepare(picker.upload(scene()), PIXEL, PARAMS), PARAMS))
    np.testing.assert_array_equal(whole.yx_px, steps.yx_px)


def test_the_layout_in_memory_does_not_matter(picker):
    picks = picker.pick(scene(), PIXEL, PARAMS)
    wide = np.zeros((SHAPE[0], 2 * SHAPE[1]), np.float32)
    wide[:, ::2] = scene()
    for view in (np.asfortranarray(scene()), wide[:, ::2]):
        np.testing.assert_array_equal(picker.pick(view, PIXEL, PARAMS).yx_px, picks.yx_px)


def test_pixels_are_not_changed(picker):
    pixels = scene()
    pixels[5, 5] = np.nan
    before = pixels.copy()
    picker.pick(pixels, PIXEL, PARAMS)
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("dtype", ["float16", "int8", "int16", "uint16", "uint8"])
def test_the_type_of_the_pixels_does_not_matter(picker, dtype):
    kind = np.dtype(dtype)
    pixels = scene() if kind.kind == "f" else np.round(scene() * 15) + (128 if kind.kind == "u" else 0)
    typed = pixels.clip(0 if kind.kind == "u" else -128, 255 if kind.kind == "u" else 127).astype(kind)
    picks, exact = picker.pick(typed, PIXEL, PARAMS), picker.pick(scene(), PIXEL, PARAMS)
    assert_at(chosen(picks), chosen(exact), within=1.0)


def test_scores_are_probabilities_best_first(picker_with_classifier):
    picks = picker_with_classifier.pick(scene(), PIXEL, PARAMS)
    assert picks.score.dtype == picks.yx_px.dtype == np.float32
    assert picks.score.min() >= SCORE_FLOOR
    assert picks.score.max() <= 1
    assert (np.diff(picks.score) <= 0).all()
    assert picks.weights_sha256 == picker_with_classifier.weights_sha256


def test_a_threshold_chooses_among_the_same_candidates(picker):
    default = picker.pick(scene(), PIXEL, PARAMS)
    assert default.threshold == picker.default_threshold
    strict = picker.pick(scene(), PIXEL, PickParams(100.0, threshold=float(np.median(default.score))))
    np.testing.assert_array_equal(strict.yx_px, default.yx_px)
    assert strict.count == (default.score >= np.float32(strict.threshold)).sum() < len(default.score)
    assert picker.pick(scene(), PIXEL, PickParams(100.0, threshold=0.0)).chosen.all()


def test_negative_stain_finds_bright_discs(picker):
    found = chosen(picker.pick(-scene(), PIXEL, PickParams(100.0, negative_stain=True)))
    assert_at(found, PLACES, within=3)
    bright = chosen(picker.pick(-scene(), PIXEL, PARAMS))
    assert len(bright) == 0 or cKDTree(PLACES).query(bright)[0].min() > 10


def test_noise_gives_no_picks_and_that_is_a_result(picker):
    noise = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    picks = picker.pick(noise, PIXEL, PARAMS)
    assert picks.count == 0
    assert picks.yx_px.shape[1] == 2


def test_nothing_is_picked_near_the_border_or_in_padding(picker):
    places = [(20, 200), (200, 20), (400, 300), (210, 490), (210, 250)]
    found = chosen(picker.pick(discs(SHAPE, places, (40, 40)), PIXEL, PARAMS))
    assert_at(found, [(210, 250)], within=3)
    padded = np.pad(scene(), ((60, 0), (0, 45)), mode="edge")
    found = chosen(picker.pick(padded, PIXEL, PARAMS))
    assert found[:, 0].min() >= 60
    assert found[:, 1].max() <= SHAPE[1]


def test_blank_is_refused(picker):
    with pytest.raises(UnusableMicrograph, match="blank"):
        picker.pick(np.zeros(SHAPE, np.float32), PIXEL, PARAMS)


def test_a_classifier_judges_many_candidates_in_batches(picker_with_classifier, monkeypatch):
    whole = picker_with_classifier.pick(scene(), PIXEL, PARAMS)
    monkeypatch.setattr("drpwatch.pick.picker._CLASSIFIER_BATCH", 5)
    parts = picker_with_classifier.pick(scene(), PIXEL, PARAMS)
    np.testing.assert_allclose(parts.score, whole.score, atol=1e-5)


def crowd(times: int) -> np.ndarray:
    """Discs of 24 px on a lattice, in noise."""
    y, x = np.mgrid[:48, :48] - 23.5
    image = np.tile(-2.0 * (np.hypot(y, x) < 12), (times, times + 1)).astype(np.float32)
    return image + np.random.default_rng(0).standard_normal(image.shape, dtype=np.float32)


def in_tiles(picker, pixels, params, tile_px):
    return picker.choose(picker.detect(picker.prepare(picker.upload(pixels), PIXEL, params), params, tile_px))


def assert_same(picks, other):
    """The same candidates but for the order of sums, which may move one over the floor."""
    for some, all_ in ((picks, other), (other, picks)):
        clear = some.score > 2 * SCORE_FLOOR
        assert clear.sum() > 100
        distance, nearest = cKDTree(all_.yx_px).query(some.yx_px[clear])
        assert distance.max() < 0.05
        np.testing.assert_allclose(all_.score[nearest], some.score[clear], atol=1e-3)


def test_every_tile_size_gives_the_same_picks():
    picker = Picker.load("general", "cpu")
    assert picker.tile_sizes_px[-1] == 128
    pixels, params = crowd(15), PickParams(diameter_angstrom=24 * PIXEL[0])
    usual = picker.pick(pixels, PIXEL, params)
    for tile_px in picker.tile_sizes_px:
        assert_same(in_tiles(picker, pixels, params, tile_px), usual)


def test_the_shipped_weights_pick_simulated_particles():
    species = invented_species(np.random.default_rng(5))
    clean = replace(CLEAR, blemished=0.0)
    scene_ = simulate(species, [], clean, (700, 800), 3.0, np.random.default_rng(3))
    picker = Picker.load("general", "cpu")
    picks = picker.pick(scene_.pixels, (3.0, 3.0), PickParams(scene_.diameter_angstrom))
    found, radius = chosen(picks), scene_.diameter_angstrom / 3.0 / 2
    inside = ((scene_.yx_px > radius) & (scene_.yx_px < np.array([700, 800]) - radius)).all(axis=1)
    truth = scene_.yx_px[inside]
    distance, nearest = cKDTree(truth).query(found)
    right = len(set(nearest[distance <= radius]))
    assert 2 * right / (len(found) + len(truth)) > 0.7
