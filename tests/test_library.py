"""`from drpwatch import Picker`: arrays and files, and the same picks as `drpwatch pick`."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import drpwatch
from drpwatch import errors
from drpwatch.cli import main
from drpwatch.formats import star
from drpwatch.formats.mrc import write_mrc
from tests.pick.making import disc_model, discs, scattered

SHAPE, DIAMETER_PX, PIXEL_ANGSTROM = (400, 440), 40.0, 3.0
README = (Path(__file__).parents[1] / "README.md").read_text()
PLACES = scattered(SHAPE, DIAMETER_PX)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return disc_model(tmp_path_factory.mktemp("weights") / "discs.safetensors")


@pytest.fixture(scope="module")
def picker(model):
    return drpwatch.Picker(model, device="cpu", threads=1)


@pytest.fixture(scope="module")
def image():
    return discs(SHAPE, PLACES, (DIAMETER_PX, DIAMETER_PX))


@pytest.fixture
def path(image, tmp_path):
    write_mrc(tmp_path / "a.mrc", image, PIXEL_ANGSTROM)
    return tmp_path / "a.mrc"


def of_array(picker, image, **more):
    return picker.pick(image, DIAMETER_PX * PIXEL_ANGSTROM, pixel_size_angstrom=PIXEL_ANGSTROM, **more)


def test_an_array_and_its_file_give_the_same_picks(picker, image, path):
    picks = of_array(picker, image)
    assert len(picks.yx_px) == len(PLACES)
    for y, x in PLACES:
        assert np.hypot(*(picks.yx_px - (y, x)).T).min() < 0.2 * DIAMETER_PX
    for file in (path, str(path)):
        again = picker.pick(file, DIAMETER_PX * PIXEL_ANGSTROM)
        np.testing.assert_array_equal(again.yx_px, picks.yx_px)
        np.testing.assert_array_equal(again.score, picks.score)


def test_the_command_line_gives_the_same_picks(picker, model, path, tmp_path):
    options = ["--model", str(model), "--device", "cpu", "--threads", "1"]
    diameter = str(DIAMETER_PX * PIXEL_ANGSTROM)
    assert (
        main(["pick", str(path), "--diameter-angstrom", diameter, "-o", str(tmp_path / "o"), *options]) == 0
    )
    picks = picker.pick(path, float(diameter))
    rows = [row[:3] for row in star.read(tmp_path / "o" / "particles.star")["particles"].rows]
    assert rows == [
        (f"{x:.3f}", f"{y:.3f}", f"{score:.6f}")
        for (y, x), score in zip(picks.yx_px.tolist(), picks.score.tolist(), strict=True)
    ]


def test_only_picks_are_returned_and_a_threshold_moves_them(picker, image):
    picks = of_array(picker, image)
    assert picks.threshold == picker.default_threshold
    strict = float(np.median(picks.score))
    fewer = of_array(picker, image, threshold=strict)
    assert fewer.threshold == strict
    assert fewer.score.tolist() == [score for score in picks.score.tolist() if score >= np.float32(strict)]
    assert 0 < fewer.count == len(fewer.yx_px) < picks.count == len(picks.yx_px)


@pytest.mark.parametrize(
    "other",
    [
        lambda image: image.astype(np.float64),
        lambda image: image.astype(">f4"),
        lambda image: np.asfortranarray(image),
        lambda image: image[::-1][::-1],
        lambda image: image.tolist(),
    ],
    ids=["float64", "big-endian", "fortran", "strides", "list"],
)
def test_all_kinds_of_arrays_give_the_same_picks(picker, image, other):
    np.testing.assert_array_equal(of_array(picker, other(image)).yx_px, of_array(picker, image).yx_px)


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int64, np.float16])
def test_all_real_types_are_picked(picker, image, kind):
    typed = (20 * image + (100 if kind is np.uint16 else 0)).clip(-120, 4000).astype(kind)
    assert abs(len(of_array(picker, typed).yx_px) - len(PLACES)) <= 1


def test_an_array_is_left_as_it_is_and_may_be_read_only(picker, image):
    before = image.copy()
    frozen = image.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(of_array(picker, frozen).yx_px, of_array(picker, image).yx_px)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("given", "kind", "sentence"),
    [
        (np.zeros((3, 4, 5), "f4"), errors.UsageError, "an array of shape (3, 4, 5): give one micrograph"),
        (np.zeros((400, 400), "c8"), errors.UsageError, "an array of complex64: give real numbers"),
        ([[1.0], [1.0, 2.0]], errors.UsageError, "not an array of numbers"),
        (np.zeros((400, 400), "f4"), errors.UnusableMicrograph, "blank"),
        ("nowhere.mrc", errors.UsageError, "nowhere.mrc: no such file"),
        ("junk.mrc", errors.UnusableMicrograph, "junk.mrc: not an MRC file"),
        ("short.mrc", errors.IncompleteMicrograph, "short.mrc: have "),
    ],
)
def test_what_cannot_be_picked_is_one_sentence(
    picker, given, kind, sentence, image, path, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "junk.mrc").write_bytes(b"\x07" * 5000)
    (tmp_path / "short.mrc").write_bytes(path.read_bytes()[:-100])
    with pytest.raises(kind, match=re.escape(sentence)) as caught:
        of_array(picker, given)
    assert "\n" not in str(caught.value)


def test_a_pixel_size_is_never_guessed(picker, image, tmp_path):
    with pytest.raises(errors.UsageError, match="an array does not tell its pixel size: give"):
        picker.pick(image, 120.0)
    write_mrc(tmp_path / "b.mrc", image, 0.0)
    with pytest.raises(errors.UsageError, match=r"b\.mrc: the header gives no pixel size: give"):
        picker.pick(tmp_path / "b.mrc", 120.0)
    with pytest.raises(errors.UsageError, match="diameter 1 Å is not between"):
        picker.pick(image, 1, pixel_size_angstrom=3.0)


def test_a_missing_model_is_told():
    with pytest.raises(errors.WeightsError, match="no such file, and not one of the shipped models"):
        drpwatch.Picker("no/such.safetensors")


def test_the_lines_of_the_readme_run(image, tmp_path, monkeypatch, capsys):
    (lines,) = re.findall(r"^```python\n(.*?)^```", README, re.S | re.M)
    write_mrc(tmp_path / "micrograph.mrc", image, PIXEL_ANGSTROM)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(lines, names)
    assert names["picks"].yx_px.shape == (names["picks"].count, 2)
    assert capsys.readouterr().out != ""


def test_the_package_is_light_until_a_picker_is_used():
    script = (
        "import sys, drpwatch; assert 'Picker' in dir(drpwatch);"
        "print({'torch', 'numpy', 'scipy'} & set(sys.modules));"
        "from drpwatch import Picker; print('torch' in sys.modules, Picker.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\nTrue Picker\n"


def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Peeker'"):
        drpwatch.Peeker  # noqa: B018
