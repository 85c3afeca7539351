import numpy as np
import pytest
import torch

from drpwatch.pick.matched import matched, matched_transfer
from drpwatch.pick.rings import RINGS, typical_rings
from tests.pick.test_signature import noise, shells

SHAPE = (384, 384)
SPACING_PX = 32


def response(field: torch.Tensor, spacing_px: int = SPACING_PX) -> float:
    """Return how far the filtered field stands out, in deviations, where `shells` without jitter put particles."""
    seen = matched(field).numpy()
    places = np.mgrid[20 : SHAPE[0] - 20 : spacing_px, 20 : SHAPE[1] - 20 : spacing_px].reshape(2, -1)
    return float(seen[tuple(places)].mean())


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (20, 90), (64, 65), (127, 300), (701, 129)])
def test_a_field_of_any_size(shape):
    seen = matched(noise(*shape))
    assert seen.shape == shape
    assert torch.isfinite(seen).all()
    assert torch.equal(seen, matched(noise(*shape)))


def test_a_blank_field():
    assert torch.isfinite(matched(torch.zeros(200, 200))).all()


def test_weak_shells_are_seen_for_what_they_are():
    field = shells(SHAPE, SPACING_PX, contrast=0.5, jitter_px=0)
    # A blob of the particle's size, the whole field's deviation being 1: what a picker without the rings would take.
    y, x = (torch.fft.fftfreq(n)[:, None] if i == 0 else torch.fft.rfftfreq(n) for i, n in enumerate(SHAPE))
    square = (y**2 + x**2) * (2 * np.pi**2)
    blob = torch.fft.irfft2(
        torch.fft.rfft2(-field) * (torch.exp(-square * 4.5**2) - torch.exp(-square * 9**2)), s=SHAPE
    )
    places = np.mgrid[20 : SHAPE[0] - 20 : SPACING_PX, 20 : SHAPE[1] - 20 : SPACING_PX].reshape(2, -1)
    by_blob = float((blob / blob.std()).numpy()[tuple(places)].mean())
    assert response(field) > 1.5 * max(by_blob, 0.5)


def test_noise_stays_noise_whatever_its_colour():
    frequency = torch.hypot(torch.fft.fftfreq(SHAPE[0])[:, None], torch.fft.rfftfreq(SHAPE[1])[None])
    for gain in (torch.ones_like(frequency), torch.exp(-4 * frequency), 1 / (1 + 20 * frequency)):
        coloured = torch.fft.irfft2(torch.fft.rfft2(noise(*SHAPE)) * gain, s=SHAPE)
        seen = matched(coloured)
        assert float(seen.median()) == pytest.approx(0, abs=0.05)
        assert float(seen.std()) == pytest.approx(1, abs=0.1)
        assert float((seen**4).mean() / seen.std() ** 4) == pytest.approx(3, abs=0.4)


def test_neither_unit_nor_offset_matters():
    field = shells(SHAPE, SPACING_PX, contrast=0.5)
    assert float((matched(7 * field + 3) - matched(field)).abs().max()) < 1e-3


def test_of_a_smooth_spectrum_everything_is_as_probable():
    flat = matched_transfer(torch.zeros(RINGS), 100_000)
    again = matched_transfer(torch.full((RINGS,), -2.0), 100_000)
    assert torch.allclose(flat, again, atol=1e-5)
    assert float(flat[0]) == 0  # a brighter field is no particle
    assert int(flat.abs().argmax()) in range(4, 12)  # about one in a diameter


def test_rings_decide_the_more_the_larger_the_field():
    rings = typical_rings(shells(SHAPE, SPACING_PX, contrast=0.5)).double()
    smooth = matched_transfer(torch.zeros(RINGS), 100_000)
    changes = [float((matched_transfer(rings, n) - smooth).norm()) for n in (1_000, 30_000, 1_000_000)]
    assert changes[0] < changes[1]
