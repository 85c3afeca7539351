"""Pictures on disk: whole or not there, as many as may be, and never in anybody's way."""

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from drpwatch.micrograph import Pictures
from drpwatch.session.thumbnails import FOLDER, SMALL_PX, Thumbnails, View
from tests.support import grey_values

PLENTY = 10**9


def pictures(value: int = 100, shape: tuple[int, int] = (600, 900)) -> Pictures:
    grey = np.full(shape, value, np.uint8)
    grey[:, : shape[1] // 2] = 30
    return Pictures(grey, np.full((64, 64), value, np.uint8))


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root / FOLDER)) for path in root.rglob("*") if path.is_file()}


def test_all_views_come_back(tmp_path: Path) -> None:
    album = Thumbnails(tmp_path, 10, PLENTY)
    album.write("GridSquare_1/a b.mrc", pictures())
    assert files(tmp_path) == {f"{view}/GridSquare_1/a b.mrc.jpg" for view in View}
    shapes = {view: grey_values(album.read("GridSquare_1/a b.mrc", view) or b"").shape for view in View}
    assert shapes == {
        View.SMALL: (round(SMALL_PX * 2 / 3), SMALL_PX),
        View.LARGE: (600, 900),
        View.SPECTRUM: (64, 64),
    }
    large = grey_values(album.read("GridSquare_1/a b.mrc", View.LARGE) or b"")
    assert abs(int(large[300, 100]) - 30) < 3
    assert abs(int(large[300, 800]) - 100) < 3


def test_there_is_none_of_what_was_not_written(tmp_path: Path) -> None:
    album = Thumbnails(tmp_path)
    assert not album.has("a.mrc")
    assert album.read("a.mrc", View.SMALL) is None


def test_the_oldest_make_room(tmp_path: Path) -> None:
    album = Thumbnails(tmp_path, 3, PLENTY)
    for name in ("a", "b", "c", "d"):
        album.write(name, pictures())
    assert [album.has(name) for name in "abcd"] == [False, True, True, True]
    assert len(files(tmp_path)) == 3 * len(View)


def test_a_micrograph_that_is_picked_again_is_new_again(tmp_path: Path) -> None:
    album = Thumbnails(tmp_path, 2, PLENTY)
    for name, value in (("a", 100), ("b", 100), ("a", 200), ("c", 100)):
        album.write(name, pictures(value))
    assert [album.has(name) for name in "abc"] == [True, False, True]
    assert grey_values(album.read("a", View.LARGE) or b"")[300, 800] > 190


def test_bytes_are_limited_too(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    noisy = Pictures(random.integers(0, 255, (400, 400), np.uint8), np.zeros((8, 8), np.uint8))
    Thumbnails(tmp_path, 100, PLENTY).write("a", noisy)
    size_bytes = sum(path.stat().st_size for path in tmp_path.rglob("*.jpg"))
    album = Thumbnails(tmp_path, 100, 3 * size_bytes)
    for number in range(8):
        album.write(f"m{number}", noisy)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.jpg")) <= 3 * size_bytes
    assert [album.has(f"m{number}") for number in (4, 5, 6, 7)] == [False, True, True, True]


def test_what_an_earlier_process_left_counts(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Thumbnails(tmp_path, 10, PLENTY).write(name, pictures())
    Thumbnails(tmp_path, 2, PLENTY).write("c", pictures())
    assert [Thumbnails(tmp_path).has(name) for name in "abc"] == [False, True, True]


def test_a_picture_is_there_when_all_its_views_are(tmp_path: Path) -> None:
    album = Thumbnails(tmp_path, 10, PLENTY)
    (tmp_path / FOLDER / View.LARGE / "a").mkdir(parents=True)
    (tmp_path / FOLDER / View.LARGE / "a" / "b.jpg").mkdir()  # nothing can be put there
    with pytest.raises(OSError, match=r"b\.jpg"):
        album.write("a/b", pictures())
    assert not album.has("a/b")


def test_an_output_directory_that_is_gone_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Thumbnails(tmp_path / "mount" / "out", 10, PLENTY).write("a", pictures())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["", "large", "large/GridSquare_1", "large/GridSquare_1/a.mrc.jpg"])
def test_a_link_is_neither_served_nor_written_nor_deleted_through(tmp_path: Path, place: str) -> None:
    secret = tmp_path / "secret"
    album = Thumbnails(tmp_path / "out", 1, PLENTY)
    (tmp_path / "out").mkdir()
    album.write("GridSquare_1/a.mrc", pictures())
    path = tmp_path / "out" / FOLDER / place
    path.rename(secret)  # what lies where the link leads has the names that are looked for
    before = {one: one.read_bytes() for one in [secret, *secret.rglob("*")] if one.is_file()}
    path.symlink_to(secret)
    with pytest.raises(OSError, match="symbolic link"):
        album.read("GridSquare_1/a.mrc", View.LARGE)
    for name in ("GridSquare_1/a.mrc", "b.mrc"):  # the second has the first deleted
        with suppress(OSError):
            album.write(name, pictures(200))
    assert {one: one.read_bytes() for one in [secret, *secret.rglob("*")] if one.is_file()} == before


def test_a_link_in_place_of_the_next_picture_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    album = Thumbnails(tmp_path, 10, PLENTY)
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / ".new").symlink_to(victim)
    album.write("a.mrc", pictures())
    assert victim.read_text() == "precious"
    assert album.read("a.mrc", View.LARGE)


def test_a_fifo_in_place_of_a_picture_keeps_nobody_waiting(tmp_path: Path) -> None:
    album = Thumbnails(tmp_path, 10, PLENTY)
    album.write("a.mrc", pictures())
    path = tmp_path / FOLDER / "large/a.mrc.jpg"
    path.unlink()
    os.mkfifo(path)
    assert album.read("a.mrc", View.LARGE) is None
