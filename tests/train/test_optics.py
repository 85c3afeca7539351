import numpy as np
import pytest

from drpwatch.train.optics import Optics, expose, transfer, wavelength_angstrom

SHAPE = (512, 512)
PIXEL = 1.0


def radial(optics: Optics) -> tuple[np.ndarray, np.ndarray]:
    """Return spatial frequency in 1/angstrom, and the transfer along it."""
    line = transfer(optics, SHAPE, PIXEL)[0]
    return np.fft.rfftfreq(SHAPE[1], PIXEL), line


@pytest.mark.parametrize(("kv", "angstrom"), [(100, 0.037014), (200, 0.025079), (300, 0.019687)])
def test_the_wavelength_is_that_of_the_textbook(kv, angstrom):
    assert wavelength_angstrom(kv) == pytest.approx(angstrom, rel=1e-3)


@pytest.mark.parametrize("defocus_um", [0.8, 1.5, 3.0])
def test_the_first_zero_is_where_the_formula_has_it(defocus_um):
    optics = Optics(defocus_um=defocus_um, amplitude_contrast=0.1, b_factor_angstrom_squared=0)
    k, line = radial(optics)
    zero = np.flatnonzero(np.diff(np.sign(line)) != 0)[0]
    wavelength = wavelength_angstrom(300)
    k2 = np.linspace(0, 0.01, 200_001)
    chi = np.pi * wavelength * defocus_um * 1e4 * k2 - 0.5 * np.pi * 2.7e7 * wavelength**3 * k2**2
    exact = np.sqrt(k2[np.flatnonzero(chi + np.arcsin(0.1) >= np.pi)[0]])
    assert k[zero] <= exact <= k[zero + 1]


def test_the_first_lobe_is_dark():
    _, line = radial(Optics())
    assert (line[1:10] < 0).all()
    assert line[0] == pytest.approx(-0.08, abs=1e-3)  # amplitude contrast


def test_a_phase_plate_is_dark_from_the_start():
    _, line = radial(Optics(phase_shift_rad=np.pi / 2))
    assert line[0] < -0.95


def test_the_envelope_falls_with_the_b_factor():
    sharp, soft = (transfer(Optics(b_factor_angstrom_squared=b), SHAPE, PIXEL) for b in (0, 200))
    k2 = np.fft.rfftfreq(512, PIXEL) ** 2
    np.testing.assert_allclose(soft[0], sharp[0] * np.exp(-50 * k2), atol=1e-5)


def test_the_transfer_is_that_of_torch_ctf():
    torch_ctf = pytest.importorskip("torch_ctf")
    theirs = torch_ctf.calculate_ctf_2d(
        defocus=1.5,
        astigmatism=0,
        astigmatism_angle=0,
        voltage=300,
        spherical_aberration=2.7,
        amplitude_contrast=0.08,
        phase_shift=0,
        pixel_size=PIXEL,
        image_shape=SHAPE,
        rfft=True,
        fftshift=False,
    )
    ours = transfer(Optics(b_factor_angstrom_squared=0), SHAPE, PIXEL)
    assert abs(abs(np.asarray(theirs)) - abs(ours)).max() < 0.02


def test_thickness_is_dark_and_noise_is_that_of_the_dose():
    thickness = np.zeros((256, 256), np.float32)
    y, x = np.mgrid[:256, :256]
    thickness[np.hypot(y - 128, x - 128) < 20] = 100
    image = expose(thickness, np.ones_like(thickness), Optics(), 3.0, 40.0, np.random.default_rng(0))
    ring = (np.hypot(y - 128, x - 128) > 60) & (np.hypot(y - 128, x - 128) < 100)
    assert image[np.hypot(y - 128, x - 128) < 15].mean() < image[ring].mean() - 0.01
    assert image[:50, :50].std() == pytest.approx(1 / np.sqrt(40 * 9), rel=0.1)


def test_absorption_takes_intensity_and_its_noise():
    shape = (128, 128)
    image = expose(
        np.zeros(shape, np.float32),
        np.full(shape, 0.25, np.float32),
        Optics(),
        2.0,
        25.0,
        np.random.default_rng(0),
    )
    assert image.mean() == pytest.approx(0.25, abs=0.01)
    assert image.std() == pytest.approx(np.sqrt(0.25 / 100), rel=0.05)
