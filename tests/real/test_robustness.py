"""What should not matter for the picks, on a real micrograph: pixel type, binning, a diameter that is rough.

`tests/bench/bench_quality.py` has the same figures for all labelled data sets.
"""

from pathlib import Path

import pytest

from drpwatch.assess.datasets import read_data_set
from drpwatch.assess.suite import measure, read_pixels
from drpwatch.pick.picker import Picker
from tests.real.making import available
from tests.real.robustness import shares

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not available(), reason="the real micrographs are absent"),
]


@pytest.fixture(scope="module")
def picker() -> Picker:
    return Picker.load("general", "cpu")


def test_pixel_type_and_binning_hardly_change_the_picks(suite: Path, picker: Picker) -> None:
    data_set = read_data_set(suite / "empiar-10017", limit=1)
    (path,) = data_set.micrographs.values()
    assert path is not None
    found = dict(shares(picker, read_pixels(path), data_set.params))
    assert found["float16"] >= 0.99
    assert found["int8"] >= 0.98
    assert found["half-sized, within 1 px of its own"] >= 0.95, found


@pytest.mark.parametrize("factor", [0.8, 1.2])
@pytest.mark.parametrize(("name", "limit"), [("empiar-10059", 2), ("empiar-10146", None)])
def test_a_diameter_that_is_wrong_by_a_fifth_costs_less_than_ten_points(
    suite: Path, picker: Picker, name: str, limit: int | None, factor: float
) -> None:
    data_set = read_data_set(suite / name, limit)
    exact, wrong = measure(picker, data_set).result, measure(picker, data_set, diameter_factor=factor).result
    assert exact is not None
    assert wrong is not None
    assert wrong.pooled.f > exact.pooled.f - 0.10
