"""What tells whether two files hold the same micrograph."""

from dataclasses import replace

import numpy as np
import pytest

from drpwatch.micrograph import ImageHeader
from drpwatch.service.repeats import checksum

PIXELS = np.random.default_rng(1).normal(100, 10, (47, 63)).astype(np.float32)
HEADER = ImageHeader((47, 63), np.dtype("<f4"), 1024, (1.5, 1.5))


def test_the_same_pixels_have_the_same_checksum() -> None:
    other_file = replace(HEADER, data_offset_bytes=2048, compressed=True, dtype=np.dtype(">f4"))
    assert checksum(HEADER, PIXELS) == checksum(other_file, PIXELS.copy())
    assert checksum(HEADER, PIXELS) == checksum(HEADER, np.repeat(PIXELS, 2, axis=1)[:, ::2])


@pytest.mark.parametrize(
    "other",
    [PIXELS[::-1], PIXELS[:, ::-1], PIXELS * -1, np.roll(PIXELS, 2, axis=1), np.nextafter(PIXELS, 0)],
)
def test_other_pixels_have_another(other: np.ndarray) -> None:
    assert checksum(HEADER, other) != checksum(HEADER, PIXELS)


def test_one_pixel_is_enough() -> None:
    for at in ((0, 0), (46, 62), (23, 31)):
        other = PIXELS.copy()
        other[at] += 1e-3
        assert checksum(HEADER, other) != checksum(HEADER, PIXELS)


def test_what_a_header_says_of_the_picking_counts() -> None:
    for other in (
        replace(HEADER, pixel_size_yx_angstrom=(3.0, 3.0)),
        replace(HEADER, pixel_size_yx_angstrom=None),
        replace(HEADER, shape_yx=(63, 47)),
    ):
        assert checksum(other, PIXELS) != checksum(HEADER, PIXELS)
