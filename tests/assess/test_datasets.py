"""What a `dataset.toml` says, and what is said of one that is wrong."""

import re
from pathlib import Path

import pytest

from drpwatch.assess.datasets import find_data_sets, read_data_set
from drpwatch.errors import StarError, UsageError
from drpwatch.micrograph import PickParams
from tests.assess.making import make_set

LABELLED = 'diameter_angstrom = 40\ntruth = "truth.star"\n'


def test_a_labelled_set(tmp_path):
    found = read_data_set(make_set(tmp_path / "apo", LABELLED, {"a": [(20, 30)], "b": [(1, 2), (3, 4)]}))
    assert found.name == "apo"
    assert found.params == PickParams(40.0)
    assert {name: path.name for name, path in found.micrographs.items()} == {"a": "a.mrc", "b": "b.mrc"}
    assert {name: points.yx_px.tolist() for name, points in found.truth.items()} == {
        "a": [[20, 30]],
        "b": [[1, 2], [3, 4]],
    }


def test_an_empty_set(tmp_path):
    text = "diameter_angstrom = 200.0\npixel_size_angstrom = 8\nexpected_picks_at_most = 2\nnote = 'ice'\n"
    found = read_data_set(make_set(tmp_path / "ice", text))
    assert (found.truth, found.expected_picks_at_most, found.note) == (None, 2, "ice")
    assert found.params == PickParams(200.0, 8.0)
    assert list(read_data_set(tmp_path / "ice", limit=1).micrographs) == ["a"]


def test_the_one_in_the_readme(tmp_path):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (text,) = re.findall(r"^```toml\n(diameter_angstrom.*?)^```", readme, re.S | re.M)
    found = read_data_set(make_set(tmp_path / "apo", text, {"a": [(20, 30)]}))
    assert (found.params, found.note) == (PickParams(191.0, 1.77), "beta-galactosidase")


def test_micrographs_and_truth_that_lack_each_other(tmp_path):
    folder = make_set(tmp_path / "apo", LABELLED, {"a": [(20, 30)], "b": [(20, 30)]})
    (folder / "a.mrc").rename(folder / "c.mrc")
    found = read_data_set(folder)
    assert {name: path and path.name for name, path in found.micrographs.items()} == {"a": None, "b": "b.mrc"}
    assert found.not_in_truth == 1
    assert list(read_data_set(folder, limit=1).truth) == ["a"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("diameter = 4", "diameter_angstrom must be given; diameter: no such key; allowed are diameter_angs"),
        ("diameter_angstrom = '4'", "diameter_angstrom: input should be a valid number, not '4'"),
        ("diameter_angstrom = 4", "diameter 4.0 Å is not between 10 and 10000 Å"),
        ("diameter_angstrom = nan", "diameter nan Å is not between"),
        ("diameter_angstrom = ", "not valid TOML"),
        ("diameter_angstrom = 90\nexpected_picks_at_most = -1", "expected_picks_at_most: input should be gr"),
        (LABELLED + "expected_picks_at_most = 1", "give truth or expected_picks_at_most, not both"),
        ("diameter_angstrom = 90\nglob = '*.tif'", "no file in .* matches glob '\\*.tif'"),
    ],
)
def test_a_description_that_is_wrong(tmp_path, text, reason):
    folder = make_set(tmp_path / "apo", text)
    with pytest.raises(UsageError, match=f"^{re.escape(str(folder))}/dataset.toml: {reason}"):
        read_data_set(folder)


def test_a_truth_that_is_wrong(tmp_path):
    folder = make_set(tmp_path / "apo", LABELLED, {"a": [(20, 30)]})
    (folder / "a.mrc").rename(folder / "other.mrc")
    with pytest.raises(UsageError, match=r"apo: truth\.star names none of its 1 micrographs"):
        read_data_set(folder)
    (folder / "truth.star").write_text("data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n1\n")
    with pytest.raises(StarError):
        read_data_set(folder)
    (folder / "truth.star").unlink()
    with pytest.raises(UsageError, match=r"truth\.star: no such file"):
        read_data_set(folder)


def test_which_folders_are_data_sets(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        find_data_sets(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"no folder in it has a dataset.toml"):
        find_data_sets(tmp_path)
    sets = [make_set(tmp_path / name, LABELLED) for name in ("b", "a")]
    (tmp_path / "pictures").mkdir()
    assert find_data_sets(tmp_path) == sets[::-1]
    assert find_data_sets(sets[0]) == sets[:1]
