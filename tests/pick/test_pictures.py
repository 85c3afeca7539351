"""What people see of a micrograph: particles in it, rings and streaks in its spectrum."""

import numpy as np
import pytest
import torch

from drpwatch.micrograph import PickParams
from drpwatch.pick.pictures import PICTURE_PX, SPECTRUM_PX, micrograph_picture, spectrum_picture
from drpwatch.pick.preprocess import Bounds, PreparedImage, Preprocessing, prepare
from tests.pick.making import discs

SPOTS = [(150.0, 200.0), (300.0, 420.0), (420.0, 120.0)]


def prepared(image: np.ndarray, diameter_px: float = 40.0) -> PreparedImage:
    return prepare(torch.from_numpy(image), (1.0, 1.0), PickParams(diameter_px), Preprocessing())


def spectrum(image: np.ndarray, bounds: Bounds | None = None) -> np.ndarray:
    h, w = image.shape
    return spectrum_picture(torch.from_numpy(image), bounds or Bounds(0, h, 0, w)).numpy()


def test_particles_are_dark_where_they_are() -> None:
    one = prepared(discs((512, 600), SPOTS, (40.0, 40.0)))
    picture = micrograph_picture(one).numpy()
    assert picture.shape == tuple(one.image.shape)
    assert picture.dtype == np.uint8
    for y, x in SPOTS:
        at = round(y / one.scale_yx[0]), round(x / one.scale_yx[1])
        assert picture[at] < np.quantile(picture, 0.05)


@pytest.mark.parametrize("contrast", [1e-6, 1.0, 1e6])
def test_the_stretch_does_not_depend_on_the_unit(contrast: float) -> None:
    picture = micrograph_picture(prepared(contrast * discs((512, 512), [], (40.0, 40.0)))).numpy()
    assert 40 < np.median(picture) < 215
    assert 0.001 < (picture == 0).mean() < 0.01
    assert 0.001 < (picture == 255).mean() < 0.01


def test_a_large_one_is_shrunk_to_the_whole_frame() -> None:
    image = discs((700, 1400), [(350.0, 1050.0)], (12.0, 12.0))
    one = prepared(image, diameter_px=10.0)
    assert max(one.image.shape) > PICTURE_PX
    picture = micrograph_picture(one).numpy()
    assert max(picture.shape) == PICTURE_PX
    assert picture.shape[1] == pytest.approx(2 * picture.shape[0], abs=1)
    assert picture[picture.shape[0] // 2, picture.shape[1] * 3 // 4] < np.quantile(picture, 0.05)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int16, np.uint16, np.int8])
def test_a_lattice_is_two_spots_at_its_frequency(dtype: type) -> None:
    y, x = np.mgrid[:600, :600]
    wave = np.cos(2 * np.pi * (0.25 * x + 0.125 * y))
    noise = np.random.default_rng(1).standard_normal((600, 600))
    found = spectrum((60 + 10 * (noise + wave)).astype(dtype))
    assert found.shape == (SPECTRUM_PX, SPECTRUM_PX)
    middle, spot = SPECTRUM_PX // 2, found.max()
    assert found[middle + 32, middle + 64] == found[middle - 32, middle - 64] == spot == 255
    assert found[middle + 32, middle - 64] < spot / 1.5


def test_rings_stay_and_the_fall_off_goes() -> None:
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(1024), np.fft.fftfreq(1024), indexing="ij"))
    rings = np.abs(np.sin(400 * frequency**2)) * np.exp(-8 * frequency) + 0.02
    white = np.fft.fft2(np.random.default_rng(1).standard_normal((1024, 1024)))
    found = spectrum(np.fft.ifft2(white * rings).real.astype(np.float32)).astype(float)
    offsets = np.arange(SPECTRUM_PX) - SPECTRUM_PX // 2
    radius = np.hypot(offsets[:, None], offsets[None, :]).round().astype(int)
    profile = np.array([found[radius == r].mean() for r in range(10, 120)])
    at = np.arange(10, 120) / SPECTRUM_PX
    assert np.corrcoef(profile, np.abs(np.sin(400 * at**2)))[0, 1] > 0.7
    assert abs(profile[:40].mean() - profile[-40:].mean()) < 40


def test_padding_is_not_looked_at() -> None:
    image = np.random.default_rng(1).standard_normal((640, 512)).astype(np.float32)
    padded = image.copy()
    padded[512:] = padded[511]
    whole = Bounds(0, 512, 0, 512)
    assert np.array_equal(spectrum(padded, whole), spectrum(image[:512].copy()))
    assert not np.array_equal(spectrum(padded), spectrum(image))


@pytest.mark.parametrize(("shape", "size"), [((40, 300), 40), ((9, 9), 8)])
def test_small_frames(shape: tuple[int, int], size: int) -> None:
    image = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    image[0, 0] = np.nan
    assert spectrum(image).shape == (size, size)
