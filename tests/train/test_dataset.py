import numpy as np
import pytest
import torch

from drpwatch.pick.field import _KNOWN_PIXELS
from drpwatch.pick.preprocess import Preprocessing
from drpwatch.pick.rings import OUTER
from drpwatch.train.dataset import _TRUE_DIAMETERS, SCENE_PX, crops, distance_map, make_example
from drpwatch.train.shapes import load_species

CONSTANTS = Preprocessing()


@pytest.fixture(scope="module")
def species():
    return load_species([], 2, seed=0)


@pytest.fixture(scope="module")
def examples(species):
    return [make_example(species, CONSTANTS, seed=3, number=n) for n in range(3)]


def test_an_example_is_what_the_networks_see(examples):
    for one in examples:
        assert one.image.shape == one.label.shape == one.weight.shape == (SCENE_PX, SCENE_PX)
        assert one.image.dtype == one.label.dtype == torch.float32
        assert bool(torch.isfinite(one.image).all())
        assert float(one.image.abs().max()) <= CONSTANTS.clip_sigmas
        assert one.diameter_px == CONSTANTS.working_diameter_px
        assert 0 <= float(one.label.min()) <= float(one.label.max()) <= 1


def test_seed_and_number_decide(species, examples):
    again = make_example(species, CONSTANTS, seed=3, number=1)
    assert torch.equal(again.image, examples[1].image)
    assert torch.equal(again.label, examples[1].label)
    assert not torch.equal(again.image, examples[2].image)


def test_scores_are_learned_in_fields_of_many_sizes(species):
    sides = {make_example(species, CONSTANTS, seed=3, number=n, true_ice=True).image.shape for n in range(4)}
    assert len(sides) == 4
    assert all(SCENE_PX <= h == w <= 2 * SCENE_PX for h, w in sides)
    assert (SCENE_PX**2, (2 * SCENE_PX) ** 2) == _KNOWN_PIXELS  # beyond which judges make no difference


def test_scores_are_learned_at_the_scale_that_rings_show(species, monkeypatch):
    plain = make_example(species, CONSTANTS, seed=3, number=2, true_ice=True)
    monkeypatch.setattr("drpwatch.train.dataset.enlargement", lambda *_: torch.tensor(1.25))
    smaller = make_example(species, CONSTANTS, seed=3, number=2, true_ice=True)
    assert smaller.image.shape == smaller.weight.shape == smaller.label.shape
    assert smaller.image.shape[0] == pytest.approx(plain.image.shape[0] / 1.25, abs=1)
    np.testing.assert_allclose(smaller.yx_px, plain.yx_px / 1.25, rtol=0.01)
    assert smaller.diameter_px == plain.diameter_px
    # What is at a place is still there.
    scale = plain.image.shape[0] / smaller.image.shape[0]
    places = (np.arange(20, smaller.image.shape[0] - 20) * scale).round().astype(int)

    def likeness(off_px: int) -> float:
        other = plain.image[np.ix_(places + off_px, places + off_px)]
        return float(np.corrcoef(smaller.image[20:-20, 20:-20].flatten(), other.flatten())[0, 1])

    assert likeness(0) > 0.5 > max(likeness(-2), likeness(2))
    networks = make_example(species, CONSTANTS, seed=3, number=2)
    assert networks.image.shape == (SCENE_PX, SCENE_PX)


def test_particles_of_every_size_have_balls_and_shells_to_be_held_against():
    assert min(OUTER) <= min(_TRUE_DIAMETERS) < max(_TRUE_DIAMETERS) <= max(OUTER)


def test_the_label_is_one_at_a_centre_and_falls_to_its_border():
    label = distance_map(np.array([[20.0, 30.0]], np.float32), (50, 60), radius_px=8.0)
    assert label[20, 30] == 1
    assert label[24, 30] == pytest.approx(0.5)
    assert label[20, 37] == pytest.approx(1 / 8)
    assert label[28, 30] == label[11, 30] == label[45, 5] == 0


def test_labels_of_neighbours_do_not_add_up():
    label = distance_map(np.array([[20, 20], [20, 24]], np.float32), (40, 40), radius_px=8.0)
    assert label.max() == 1
    assert label[20, 22] == pytest.approx(0.75)


@pytest.mark.parametrize("place", [(0, 0), (39.6, 49.7), (-3, 20)])
def test_labels_at_the_edge(place):
    label = distance_map(np.array([place], np.float32), (40, 50), radius_px=6.0)
    assert label.shape == (40, 50)
    assert 0 < label.max() <= 1


def test_crops_turn_image_label_and_weight_together(examples):
    rng = np.random.default_rng(0)
    layers, label, weight = crops(examples, 64, 12, rng)
    assert layers.shape == (12, 2, 64, 64)
    assert label.shape == weight.shape == (12, 1, 64, 64)
    same = np.random.default_rng(0)
    assert torch.equal(crops(examples, 64, 12, same)[0], layers)
    marked = [
        type(one)(one.label, one.label, one.label, one.label, one.yx_px, one.diameter_px) for one in examples
    ]
    layers, label, weight = crops(marked, 64, 12, rng)
    assert torch.equal(layers, torch.cat([label, label], dim=1))
    assert torch.equal(label, weight)
