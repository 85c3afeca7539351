import numpy as np
import pytest

from drpwatch.train import blemishes
from drpwatch.train.blemishes import Grid

SHAPE = (150, 180)
DIAMETER_PX = 18.0
ON_THE_GRID = [
    blemishes.gradient,
    blemishes.ice_balls,
    blemishes.crystalline_ice,
    blemishes.mottle,
    blemishes.heaps,
    blemishes.film_edge,
    blemishes.beads,
    blemishes.crack,
    blemishes.ethane,
]


def laid_out(blemish, seed):
    grid = Grid.empty(SHAPE, DIAMETER_PX)
    blemish(grid, np.random.default_rng(seed))
    return grid


@pytest.mark.parametrize("blemish", ON_THE_GRID)
def test_a_blemish_is_seen_and_physical(blemish):
    seen = 0
    for seed in range(6):
        grid = laid_out(blemish, seed)
        for field in (grid.thickness_angstrom, grid.transmission, grid.ice_gain):
            assert field.shape == SHAPE
            assert field.dtype == np.float32
            assert np.isfinite(field).all()
        assert (grid.transmission >= 0).all()
        assert (grid.ice_gain >= 0).all()
        seen += any(field.std() > 0 for field in (grid.thickness_angstrom, grid.transmission, grid.ice_gain))
    assert seen >= 5  # a heap may lie outside of the view


@pytest.mark.parametrize("blemish", ON_THE_GRID)
def test_the_seed_decides(blemish):
    one, same, other = laid_out(blemish, 1), laid_out(blemish, 1), laid_out(blemish, 2)
    np.testing.assert_array_equal(one.thickness_angstrom, same.thickness_angstrom)
    np.testing.assert_array_equal(one.transmission, same.transmission)
    assert not (
        np.array_equal(one.thickness_angstrom, other.thickness_angstrom)
        and np.array_equal(one.transmission, other.transmission)
    )


def test_recolouring_keeps_the_mean_and_the_shape_but_not_the_spectrum():
    image = np.random.default_rng(0).normal(5, 1, SHAPE).astype(np.float32)
    other = blemishes.recoloured(image, np.random.default_rng(1), DIAMETER_PX)
    assert other.shape == SHAPE
    assert other.dtype == np.float32
    assert abs(other.mean() - image.mean()) < 1e-3
    spectra = [abs(np.fft.rfft2(one - one.mean())) ** 2 for one in (image, other)]
    gain = np.sqrt(spectra[1][1:, 1:] / spectra[0][1:, 1:])
    assert gain.max() > 1.3 * gain.min()


def test_dead_pixels_are_few_and_all_alike():
    image = np.random.default_rng(0).normal(5, 1, (600, 600)).astype(np.float32)
    for seed in range(5):
        seen = blemishes.dead_pixels(image, np.random.default_rng(seed))
        changed = seen != image
        assert changed.mean() < 2e-3
        assert len(np.unique(seen[changed])) <= 1
