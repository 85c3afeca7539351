import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from drpwatch.errors import UnusableMicrograph
from drpwatch.micrograph import PickParams
from drpwatch.pick.preprocess import (
    Bounds,
    Preprocessing,
    blurred_background,
    fourier_resize,
    gaussian_blur,
    picture_bounds,
    prepare,
    reference_scale,
    without_outliers,
)
from tests.pick.making import discs, scattered

CONSTANTS = Preprocessing(working_diameter_px=24.0, illumination_sigma_px=48.0)
PARAMS = PickParams(diameter_angstrom=120.0)
PIXEL_YX = (3.0, 3.0)  # a particle is 40 px across
SHAPE = (300, 333)


def scene(seed: int = 0) -> np.ndarray:
    return discs(SHAPE, scattered(SHAPE, 40, seed), (40, 40), seed)


def prepared(pixels: np.ndarray, params: PickParams = PARAMS, constants: Preprocessing = CONSTANTS):
    return prepare(torch.from_numpy(pixels), PIXEL_YX, params, constants)


# ---- intensities --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["robust", "reference"])
@pytest.mark.parametrize(("gain", "offset"), [(1000.0, 0.0), (1e-4, 0.0), (1.0, 50.0), (250.0, -3000.0)])
def test_unit_and_offset_do_not_matter(kind, gain, offset):
    constants = Preprocessing(kind=kind, working_diameter_px=24.0, illumination_sigma_px=48.0)
    one = prepared(scene(), constants=constants).image
    other = prepared(scene() * np.float32(gain) + np.float32(offset), constants=constants).image
    assert float((one - other).abs().max()) < (0.01 if kind == "robust" else 0.02)


@pytest.mark.parametrize("dtype", ["float16", "int8", "int16", "uint16", "float64"])
def test_the_type_of_the_pixels_hardly_matters(dtype):
    pixels = scene()
    scaled = pixels * 15
    if np.dtype(dtype).kind == "u":
        scaled = scaled + 200
    typed = (
        np.round(scaled).clip(-128, 400).astype(dtype)
        if np.dtype(dtype).kind != "f"
        else pixels.astype(dtype)
    )
    difference = prepared(typed).image - prepared(pixels).image
    assert float(difference.std()) < 0.03


def test_the_result_has_unit_spread_and_no_outliers():
    image = prepared(scene()).image
    assert image.dtype == torch.float32
    low, high = np.percentile(image, [25, 75])
    assert (high - low) / 1.349 == pytest.approx(1, abs=0.05)
    assert float(image.abs().max()) <= CONSTANTS.clip_sigmas


def test_negative_stain_turns_the_contrast():
    one = prepared(scene()).image
    other = prepared(-scene(), PickParams(120.0, negative_stain=True)).image
    assert float((one - other).abs().max()) < 1e-4


def test_uneven_illumination_is_taken_out():
    y = np.linspace(-2, 2, SHAPE[0], dtype=np.float32)[:, None]
    inner = (slice(20, -20), slice(20, -20))
    one, other = prepared(scene()).image[inner], prepared(scene() + y).image[inner]
    assert np.corrcoef(one.flatten(), other.flatten())[0, 1] > 0.97


# ---- geometry -----------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [(256, 384), (255, 311), (301, 128)])
@pytest.mark.parametrize("factor", [0.3, 0.61, 1.0, 1.7])
def test_resizing_keeps_places(full, factor):
    shape = (2 * round(full[0] * factor / 2), 2 * round(full[1] * factor / 2))
    centre = np.array([0.4 * full[0], 0.63 * full[1]])
    y, x = np.mgrid[: full[0], : full[1]]
    blob = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * 9.0**2)).astype(np.float32)
    small = fourier_resize(torch.from_numpy(blob), shape).numpy().clip(0.02) - 0.02
    y, x = np.mgrid[: shape[0], : shape[1]]
    found = np.array([(small * y).sum(), (small * x).sum()]) / small.sum()
    np.testing.assert_allclose(found * np.array(full) / np.array(shape), centre, atol=0.1)
    assert small.max() == pytest.approx(0.98, abs=0.02)  # intensities stay


def test_an_image_that_is_transformed_in_bands_is_the_same_as_in_one():
    image = torch.from_numpy(np.random.default_rng(3).normal(size=(2 * 1024 + 37, 300)).astype(np.float32))
    spectrum = np.fft.rfft2(image.numpy().astype(np.float64))
    kept = np.zeros((400, 101), dtype=np.complex128)
    kept[:200, :100], kept[201:, :100] = spectrum[:200, :100], spectrum[-199:, :100]
    expected = np.fft.irfft2(kept, s=(400, 200)) * (400 * 200 / image.numel())
    np.testing.assert_allclose(fourier_resize(image, (400, 200)), expected, atol=1e-5)


def test_resizing_to_the_same_size_changes_nothing():
    image = torch.from_numpy(scene()[:, :332])
    assert fourier_resize(image, (300, 332)) is image


def test_the_particle_has_the_working_diameter_along_both_axes():
    prepared_ = prepare(torch.from_numpy(scene()), (3.0, 6.0), PARAMS, CONSTANTS)
    assert prepared_.image.shape == (180, 400)  # 40 px and 20 px become 24
    assert prepared_.diameter_px == pytest.approx(24, rel=0.01)
    np.testing.assert_allclose(prepared_.scale_yx, (300 / 180, 333 / 400))


@pytest.mark.parametrize(
    ("diameter", "sentence"),
    [(15.0, "is only 5.0 px across .* it needs 6 px or more"), (1200.0, "does not fit")],
)
def test_a_diameter_that_makes_no_sense_is_refused(diameter, sentence):
    with pytest.raises(UnusableMicrograph, match=sentence):
        prepared(scene(), PickParams(diameter))


def test_a_reference_box_gives_the_scales_of_the_paper():
    assert reference_scale(140, 4096) == 3
    assert reference_scale(50, 1000) == 1


# ---- pixels that are no picture -----------------------------------------------------------------


def test_pixels_that_are_not_finite_are_filled():
    pixels = scene()
    clean = prepared(pixels).image
    pixels[10, 20:40] = np.nan
    pixels[50, 60] = np.inf
    pixels[70, 80] = -np.inf
    image = prepared(pixels).image
    assert bool(torch.isfinite(image).all())
    assert float((image - clean)[60:].abs().max()) < 0.3


def test_hot_pixels_do_not_ring():
    pixels = scene()
    clean = prepared(pixels).image
    pixels[150, 150] = 1e7
    assert float((prepared(pixels).image - clean)[:60].abs().max()) < 0.3


@pytest.mark.parametrize("value", [0.0, 7.0, -1e6])
def test_a_blank_image_is_refused(value):
    with pytest.raises(UnusableMicrograph, match="blank: every pixel is"):
        prepared(np.full(SHAPE, value, np.float32))


@pytest.mark.parametrize("share", [0.6, 1.0])
def test_an_image_that_is_mostly_not_finite_is_refused(share):
    pixels = scene()
    pixels[: int(share * SHAPE[0])] = np.nan
    with pytest.raises(UnusableMicrograph, match="not finite"):
        prepared(pixels)


def test_a_sparse_image_is_not_blank():
    pixels = np.zeros(SHAPE, np.float32)  # more than half of the pixels are the same
    pixels[::3] = scene()[::3]
    assert bool(torch.isfinite(without_outliers(torch.from_numpy(pixels))).all())


@pytest.mark.parametrize("mode", ["edge", "constant"])
@pytest.mark.parametrize("widths", [(40, 0, 0, 0), (0, 30, 50, 0), (25, 35, 45, 55)])
def test_padding_is_found(mode, widths):
    top, bottom, left, right = widths
    core = torch.from_numpy(np.random.default_rng(1).standard_normal((800, 900), dtype=np.float32))
    values = {"mode": "edge"} if mode == "edge" else {"constant_values": 0.5}
    image = torch.from_numpy(np.pad(core.numpy(), ((top, bottom), (left, right)), **values))
    h, w = image.shape
    found = picture_bounds(image, lag_px=6)
    for side, width in zip((found.top, h - found.bottom, found.left, w - found.right), widths, strict=True):
        assert (side == 0) if width == 0 else abs(side - width) <= 6


@pytest.mark.parametrize("sigma", [0, 1, 4, 12])
def test_no_padding_is_found_on_a_picture(sigma):
    noise = np.random.default_rng(2).standard_normal((600, 700)).astype(np.float32)
    image = torch.from_numpy(gaussian_filter(noise, sigma) if sigma else noise)
    assert picture_bounds(image, lag_px=12) == Bounds(0, 600, 0, 700)


# ---- filters ------------------------------------------------------------------------------------


def test_the_blur_is_a_gaussian():
    image = np.random.default_rng(3).standard_normal((60, 80)).astype(np.float32)
    ours = gaussian_blur(torch.from_numpy(image), 2.5).numpy()
    np.testing.assert_allclose(ours, gaussian_filter(image, 2.5, mode="nearest"), atol=1e-4)


def test_the_background_is_a_wide_gaussian():
    y, x = np.mgrid[:200, :240].astype(np.float32)
    image = np.sin(y / 60) + np.cos(x / 70)
    ours = blurred_background(torch.from_numpy(image), 30.0).numpy()
    theirs = gaussian_filter(image, 30.0, mode="nearest")
    assert np.abs(ours - theirs)[30:-30, 30:-30].max() < 0.05


def test_a_strong_ramp_changes_nothing_inside():
    rng = np.random.default_rng(3)
    flat = rng.standard_normal((400, 360)).astype(np.float32)
    ramp = (
        np.linspace(-6, 6, 400, dtype=np.float32)[:, None]
        + np.linspace(3, -3, 360, dtype=np.float32)[None, :]
    )
    params, constants = PickParams(100.0), Preprocessing()
    even = prepare(torch.from_numpy(flat), (4.0, 4.0), params, constants).image
    tilted = prepare(torch.from_numpy(flat + ramp), (4.0, 4.0), params, constants).image
    agreement = np.corrcoef(even[20:-20, 20:-20].flatten(), tilted[20:-20, 20:-20].flatten())[0, 1]
    assert agreement > 0.99
