"""Image formation: the contrast transfer function, and the noise that goes through it and that does not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

PHASE_PER_ANGSTROM = 1.3e-3
"""Phase shift in radian of 1 angstrom of protein in ice at 300 kV: 6.5e-4 rad/(V A) times about 2 V of
difference in mean inner potential."""


@dataclass(frozen=True, slots=True)
class Optics:
    """How the microscope was set; underfocus is positive."""

    voltage_kv: float = 300.0
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.08
    defocus_um: float = 1.5
    phase_shift_rad: float = 0.0
    b_factor_angstrom_squared: float = 150.0


def wavelength_angstrom(voltage_kv: float) -> float:
    """Return the relativistic electron wavelength (de Broglie)."""
    volts = voltage_kv * 1e3
    return float(12.2643 / np.sqrt(volts * (1 + 0.978466e-6 * volts)))


def transfer(optics: Optics, shape_yx: tuple[int, int], pixel_size_angstrom: float) -> FloatArray:
    """Return the CTF with its envelope on the grid of `rfft2`, (h, w//2+1).

    Negative at low frequency, so that protein is dark: -sin(chi + asin(A)) exp(-B k^2 / 4), with
    chi = pi lambda dz k^2 - pi/2 Cs lambda^3 k^4 + phase shift (Erickson & Klug 1971; Rohou & Grigorieff 2015).
    """
    ky = np.fft.fftfreq(shape_yx[0], pixel_size_angstrom)[:, None]
    kx = np.fft.rfftfreq(shape_yx[1], pixel_size_angstrom)[None, :]
    k2 = ky**2 + kx**2
    wavelength = wavelength_angstrom(optics.voltage_kv)
    chi = np.pi * wavelength * optics.defocus_um * 1e4 * k2
    chi -= 0.5 * np.pi * optics.spherical_aberration_mm * 1e7 * wavelength**3 * k2**2
    chi += optics.phase_shift_rad + np.arcsin(optics.amplitude_contrast)
    return np.asarray(-np.sin(chi) * np.exp(-optics.b_factor_angstrom_squared * k2 / 4), dtype=np.float32)


def expose(
    thickness_angstrom: FloatArray,
    transmission: FloatArray,
    optics: Optics,
    pixel_size_angstrom: float,
    dose_per_angstrom_squared: float,
    rng: np.random.Generator,
) -> FloatArray:
    """Return the recorded image, (h, w), in units of the mean unscattered intensity.

    Thickness (protein, and the ice's own structure) is phase contrast and passes the CTF; transmission
    (absorption by thick ice, carbon, gold) multiplies the intensity; shot noise passes nothing.
    """
    phase = 2 * PHASE_PER_ANGSTROM * thickness_angstrom * np.sqrt(300 / optics.voltage_kv)
    spectrum = np.fft.rfft2(phase) * transfer(optics, phase.shape, pixel_size_angstrom)
    contrast = np.fft.irfft2(spectrum, phase.shape)
    intensity = transmission * np.clip(1 + contrast, 0.02, None)
    electrons = dose_per_angstrom_squared * pixel_size_angstrom**2
    noise = rng.standard_normal(phase.shape) * np.sqrt(intensity / electrons)
    return np.asarray(intensity + noise, dtype=np.float32)
