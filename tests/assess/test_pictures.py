"""Pictures of micrographs with marks, and the sheet of errors."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from drpwatch.assess.coordinates import Coordinates
from drpwatch.assess.pictures import FALSE, MISSED, RIGHT, SHEET, UNJUDGED, marks, write_pictures
from drpwatch.errors import UnusableMicrograph, UsageError

DIAMETER_PX = 20.0
PICKS = Coordinates(np.array([[30.0, 40.0], [80.0, 40.0]]), np.array([0.9, 0.7]))
TRUTH = Coordinates(np.array([[32.0, 40.0], [30.0, 100.0]]))
NOISE = np.random.default_rng(1).standard_normal((120, 160)).astype(np.float32)


def read(path: Path) -> np.ndarray:
    if path.name == "bad.mrc":
        raise UnusableMicrograph("blank")
    return NOISE


def circled(picture: Image.Image, colour: str, y: float, x: float) -> bool:
    """Say whether there is a circle of a particle's diameter around a place."""
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ys, xs = (y + DIAMETER_PX / 2 * np.sin(angle)), (x + DIAMETER_PX / 2 * np.cos(angle))
    same = (np.asarray(picture) == ImageColor.getrgb(colour)).all(axis=2)
    return all(
        same[round(at_y) - 1 : round(at_y) + 2, round(at_x) - 1 : round(at_x) + 2].any()
        for at_y, at_x in zip(ys, xs, strict=True)
    )


def test_marks():
    found = marks(PICKS, TRUTH, DIAMETER_PX / 2)
    assert found.right_yx.tolist() == [[30, 40]]
    assert found.false_yx.tolist() == [[80, 40]]
    assert found.false_score.tolist() == [0.7]
    assert found.missed_yx.tolist() == [[30, 100]]
    assert marks(PICKS, None, 10).unjudged_yx.tolist() == PICKS.yx_px.tolist()


def test_right_false_and_missed_have_their_colours(tmp_path):
    judged = {"sub/a": marks(PICKS, TRUTH, 10)}
    assert write_pictures(tmp_path, {"sub/a": Path("a.mrc")}, judged, DIAMETER_PX, read) == {}
    with Image.open(tmp_path / "sub" / "a.png") as picture:
        assert picture.size == (160, 120)
        assert circled(picture, RIGHT, 30, 40)
        assert circled(picture, FALSE, 80, 40)
        assert circled(picture, MISSED, 30, 100)
        assert not circled(picture, MISSED, 80, 100)


def test_a_large_micrograph_is_drawn_small(tmp_path):
    pixels = np.zeros((1000, 3200), np.int8)
    pixels[600:, :] = 100  # row 0 is at the top
    judged = {"a": marks(Coordinates(np.array([[200.0, 1600.0]])), None, 10)}
    write_pictures(tmp_path, {"a": Path("a.mrc")}, judged, 40.0, lambda _: pixels)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (1600, 500)
        assert circled(picture, UNJUDGED, 100, 800)
        assert picture.getpixel((5, 5)) == (0, 0, 0)
        assert picture.getpixel((5, 490)) == (255, 255, 255)


def test_the_sheet_shows_what_went_wrong(tmp_path):
    judged = {"a": marks(PICKS, TRUTH, 10)}
    write_pictures(tmp_path, {"a": Path("a.mrc")}, judged, DIAMETER_PX, read)
    with Image.open(tmp_path / SHEET) as sheet:
        assert sheet.size == (200, 112)
        assert sheet.getpixel((3, 3)) == ImageColor.getrgb(FALSE)
        assert sheet.getpixel((103, 3)) == ImageColor.getrgb(MISSED)
    right = {"a": marks(PICKS, PICKS, 10)}
    write_pictures(tmp_path, {"a": Path("a.mrc")}, right, DIAMETER_PX, read)
    assert not (tmp_path / SHEET).exists()  # nothing went wrong any more


def test_pixels_that_are_no_numbers(tmp_path):
    pixels = NOISE.copy()
    pixels[50, 50:60], pixels[60, 60] = np.nan, np.inf
    write_pictures(tmp_path, {"a": Path("a.mrc")}, {"a": marks(PICKS, None, 10)}, 20.0, lambda _: pixels)
    with Image.open(tmp_path / "a.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 20


def test_a_micrograph_that_cannot_be_read_leaves_the_others(tmp_path):
    one = marks(PICKS, None, 10)
    files = {"bad": Path("bad.mrc"), "a": Path("a.mrc")}
    drawn: list[str] = []
    assert write_pictures(tmp_path, files, {"bad": one, "a": one}, 20.0, read, drawn.append) == {
        "bad": "blank"
    }
    assert drawn == ["a.png"]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        write_pictures(tmp_path / "file", {"a": Path("a.mrc")}, {"a": marks(PICKS, None, 10)}, 20.0, read)
