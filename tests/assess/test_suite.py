"""The figures of a data set, with a picker whose picks are known."""

import numpy as np
import pytest

from drpwatch.assess.datasets import read_data_set
from drpwatch.assess.suite import measure
from drpwatch.errors import DeviceFault, UsageError
from drpwatch.formats.mrc import write_mrc
from drpwatch.micrograph import Picks
from tests.assess.making import make_set

LABELLED = 'diameter_angstrom = 40\ntruth = "truth.star"\n'  # 20 px
TRUTH = {"a": [(20.0, 20.0), (60.0, 60.0)], "b": [(40.0, 40.0)]}
FOUND = [(20.0, 24.0, 0.9), (60.0, 60.0, 0.32), (70.0, 20.0, 0.31), (30.0, 90.0, 0.1)]  # y, x, score


class FakePicker:
    """Finds always the same; remembers what it was asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked = []
        self.error = error

    def pick(self, pixels, pixel_size_yx, params):
        self.asked.append((pixels.shape, pixel_size_yx, params.diameter_angstrom))
        if self.error is not None:
            raise self.error
        found = np.array(FOUND, dtype=np.float32)
        return Picks(found[:, :2], found[:, 2], 0.31, "f" * 64)


@pytest.fixture
def labelled(tmp_path):
    return make_set(tmp_path / "apo", LABELLED, TRUTH)


def test_figures_of_a_labelled_set(labelled):
    picker, told = FakePicker(), []
    found = measure(picker, read_data_set(labelled), told.append)
    assert picker.asked == [((80, 100), (2.0, 2.0), 40.0)] * 2
    assert [(one.micrograph, len(one.picks.yx_px)) for one in told] == [("a", 3), ("b", 3)]
    pooled = found.result.pooled
    assert (pooled.n_truth, pooled.n_picks, pooled.n_matched) == (3, 6, 2)
    assert found.median_error_diameters == pytest.approx(2 / 20)  # of 4 px and 0 px
    assert (found.median_picks, found.failures) == (3, {})
    assert found.seconds > 0


def test_the_best_threshold_is_looked_for_among_candidates_too(labelled):
    best = measure(FakePicker(), read_data_set(labelled)).best
    assert best.threshold == 0.15  # the lowest that leaves out the candidate of 0.1
    assert best.pooled.f == pytest.approx(2 * 2 / (3 + 6))


def test_a_wrong_diameter_is_told_to_the_picker_alone(labelled):
    picker = FakePicker()
    found = measure(picker, read_data_set(labelled), diameter_factor=0.8)
    assert {diameter for *_, diameter in picker.asked} == {32.0}
    assert found.result.radius_px == 10.0


def test_a_set_without_truth(tmp_path):
    found = measure(FakePicker(), read_data_set(make_set(tmp_path / "ice", "diameter_angstrom = 40\n")))
    assert (found.result, found.best, found.median_picks) == (None, None, 3)
    assert np.isnan(found.median_error_diameters)


class TestAMicrographThatFails:
    def test_counts_as_without_picks(self, labelled):
        path = labelled / "a.mrc"
        path.write_bytes(path.read_bytes()[:-1000])
        found = measure(FakePicker(), read_data_set(labelled))
        assert list(found.failures) == ["a"]
        assert "have " in found.failures["a"]
        assert (found.result.pooled.n_truth, found.result.pooled.n_picks) == (3, 3)
        assert found.median_picks == 1.5

    def test_because_it_is_not_there(self, labelled):
        (labelled / "b.mrc").unlink()
        found = measure(FakePicker(), read_data_set(labelled))
        assert found.failures == {"b": "the truth names it, and there is no such file"}

    def test_because_it_has_another_pixel_size(self, labelled):
        write_mrc(labelled / "b.mrc", np.ones((80, 100), np.float32), 3.0)
        found = measure(FakePicker(), read_data_set(labelled))
        assert found.failures == {"b": "its pixel size is 3 Å, that of the set's first 2 Å"}

    def test_for_a_reason_that_nobody_foresaw(self, labelled):
        found = measure(FakePicker(ZeroDivisionError("oh")), read_data_set(labelled))
        assert found.failures["a"] == "unexpected ZeroDivisionError while picking: oh"
        assert found.result.pooled.n_picks == 0
        assert np.isnan(found.seconds)


def test_a_device_that_fails_ends_it(labelled):
    with pytest.raises(DeviceFault):
        measure(FakePicker(DeviceFault("gone")), read_data_set(labelled))


def test_nobody_tells_the_pixel_size(tmp_path):
    folder = make_set(tmp_path / "ice", "diameter_angstrom = 40\n")
    for path in folder.glob("*.mrc"):
        write_mrc(path, np.ones((80, 100), np.float32), 1.0)  # as programs write that do not know
    with pytest.raises(UsageError, match=r"give pixel_size_angstrom in its dataset\.toml"):
        measure(FakePicker(), read_data_set(folder))
    (folder / "dataset.toml").write_text("diameter_angstrom = 40\npixel_size_angstrom = 4\n")
    assert measure(FakePicker(), read_data_set(folder)).diameter_px == 10.0
