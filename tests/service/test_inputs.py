from pathlib import Path

import pytest

from drpwatch.errors import UsageError
from drpwatch.service.inputs import find_inputs


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a.mrc", "g1/b.mrc", "g2/b.mrc", "g2/.hidden.mrc", "g2/b_PS.mrc", "g2/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_a_directory_is_the_root(tree):
    found = find_inputs([tree])
    assert (found.root, found.names) == (tree, ("a.mrc", "g1/b.mrc", "g2/b.mrc"))


def test_files_are_relative_to_what_they_have_in_common(tree):
    assert find_inputs([tree / "g2/b.mrc"]).names == ("b.mrc",)
    found = find_inputs([tree / "g2/b.mrc", tree / "g1/b.mrc", tree / "g1/b.mrc"])
    assert (found.root, found.names) == (tree, ("g1/b.mrc", "g2/b.mrc"))


def test_files_and_directories_together(tree):
    found = find_inputs([tree / "g2", tree / "g1/b.mrc", tree / "g2/b.mrc"])
    assert found.names == ("g1/b.mrc", "g2/b.mrc")


def test_a_relative_path_and_dots(tree, monkeypatch):
    monkeypatch.chdir(tree / "g1")
    assert find_inputs([Path("../g1/b.mrc")]).names == ("b.mrc",)


def test_a_file_is_taken_whatever_its_name(tree):
    assert find_inputs([tree / "g2/.hidden.mrc", tree / "g2/b_PS.mrc"]).names == (".hidden.mrc", "b_PS.mrc")


def test_a_glob_chooses_in_directories(tree):
    assert find_inputs([tree], "*.mrc").names == ("a.mrc",)


@pytest.mark.parametrize(
    ("given", "glob", "sentence"),
    [
        (["nowhere.mrc"], "**/*.mrc", "nowhere.mrc: no such file or directory"),
        (["a.mrc", "x", "y"], "**/*.mrc", r"x: no such file or directory \(nor 1 others\)"),
        (["g1"], "*.tif", r"nothing to pick: no file in .*g1 matches '\*\.tif'"),
        (["g1"], "/abs", "must be relative"),
    ],
)
def test_what_makes_no_sense_is_refused(tree, given, glob, sentence):
    with pytest.raises(UsageError, match=sentence):
        find_inputs([tree / one for one in given], glob)


def test_two_files_with_one_picks_file_are_refused(tree):
    (tree / "g1/b.map").touch()
    with pytest.raises(UsageError, match=r"b.map and b.mrc would both have their picks in b_autopick.star"):
        find_inputs([tree / "g1/b.map", tree / "g1/b.mrc"])


def test_an_unreadable_subdirectory_is_told(tree, monkeypatch):
    import os

    scandir = os.scandir

    def closed(path):
        if str(path).endswith("g2"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("drpwatch.watch.scan.os.scandir", closed)
    found = find_inputs([tree])
    assert found.names == ("a.mrc", "g1/b.mrc")
    assert found.problems == (("g2", "the directory cannot be read: permission denied"),)
