import numpy as np
import pytest
import torch

from drpwatch.pick.rings import typical_rings
from drpwatch.pick.signature import (
    SIGNATURE,
    SPECTRUM_BINS,
    power_spectrum,
    roundness,
    signature,
    spot_moments,
)
from tests.pick.making import discs


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def roundness_of(field: torch.Tensor) -> torch.Tensor:
    return roundness(typical_rings(field), field.numel())


def shells(
    shape: tuple[int, int],
    spacing_px: int,
    contrast: float,
    jitter_px: float = 8.0,
    diameter_px: float = 18.0,
) -> torch.Tensor:
    """Return noise with dark rings in it: the rim of a shell, without any mean, as at low defocus."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.zeros(shape)
    for centre in np.mgrid[20 : shape[0] - 20 : spacing_px, 20 : shape[1] - 20 : spacing_px].reshape(2, -1).T:
        cy, cx = centre + rng.uniform(-jitter_px, jitter_px, 2)
        r = np.hypot(y - cy, x - cx) / (diameter_px / 2)
        image -= np.where(r < 1, np.sqrt(np.clip(1 - r**2, 0, 1)) - np.sqrt(np.clip(0.56 - r**2, 0, 1)), 0)
    return noise(*shape) + contrast * torch.from_numpy(image / image.std()).float()


def test_white_noise_has_a_flat_spectrum_and_waves_a_ring():
    flat = power_spectrum(noise(400, 300))
    assert flat.shape == (SPECTRUM_BINS,)
    assert float(flat.abs().max()) < 0.3
    wave = torch.sin(2 * np.pi * 0.25 * torch.arange(300))[None, :]
    assert int((power_spectrum(noise(400, 300) + 3 * wave) - flat).argmax()) == SPECTRUM_BINS // 2


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (20, 90), (64, 64), (65, 129), (127, 300), (701, 129)])
def test_a_signature_of_any_size(shape):
    found = signature(noise(*shape))
    assert found.shape == (SIGNATURE,)
    assert torch.isfinite(found).all()
    assert torch.equal(found, signature(noise(*shape)))  # the same field, the same picks


def test_a_blank_field_has_a_signature():
    assert torch.isfinite(signature(torch.zeros(200, 200))).all()


def test_shells_too_weak_to_be_seen_leave_rings_in_the_spectrum():
    weak = roundness_of(shells((320, 320), 32, contrast=0.4))
    nothing = [roundness_of(noise(320, 320, seed=seed)) for seed in range(5)]
    assert weak[0] > 1.3 * max(one[0] for one in nothing)  # they stand out,
    assert weak[1] > 1.5  # explain more than half of all ripples,
    assert max(one[1] for one in nothing) < 1.2  # and noise has none


def test_what_is_in_one_corner_alone_counts_for_little():
    field = noise(320, 320)
    corner = field.clone()
    corner[:64, :64] += 8 * shells((64, 64), 24, contrast=1.0)
    assert float((roundness_of(corner) - roundness_of(field))[0].abs()) < 1.0


def test_moments_tell_dark_spots_from_grain():
    dark = torch.from_numpy(
        discs((320, 320), [(y, x) for y in range(30, 300, 45) for x in range(30, 300, 45)], (12, 12))
    )
    spots = noise(320, 320) + 3 * (dark - dark.mean()) / dark.std()
    grain, seen = spot_moments(noise(320, 320)), spot_moments(spots)
    assert float(grain.abs().max()) < 0.35
    assert float(seen[::2].abs().max()) > 2 * float(grain[::2].abs().max())
    assert float((spot_moments(-spots) + seen)[::2].abs().max()) < 1e-3  # the other contrast, the other sign
    assert float((spot_moments(-spots) - seen)[1::2].abs().max()) < 1e-3
