import numpy as np
import pytest

from drpwatch.assess.coordinates import read_coordinates, read_pixel_size_angstrom
from drpwatch.errors import UsageError
from drpwatch.formats import mrc
from drpwatch.train.micrographs import DTYPES, Simulation, as_dtype, choose_species, write_micrographs
from tests.train.test_shapes import ball, write_map

SMALL = {"count": 2, "shape_yx": (240, 200), "pixel_size_angstrom": 4.0}


def written(folder, **wishes):
    wanted = Simulation(**(SMALL | wishes))
    species, others = choose_species(wanted)
    return species, list(write_micrographs(folder, wanted, species, others))


def test_files_and_truth(tmp_path):
    species, done = written(tmp_path, diameter_angstrom=120.0)
    truth = read_coordinates(tmp_path / "truth.star")
    assert species.diameter_angstrom == 120
    assert [one.name for one in done] == ["simulated_0001.mrc", "simulated_0002.mrc"]
    assert read_pixel_size_angstrom(tmp_path / "truth.star") == pytest.approx(4.0)
    for one in done:
        header = mrc.read_header(tmp_path / one.name)
        assert header.shape_yx == (240, 200)
        assert header.pixel_size_yx_angstrom == pytest.approx((4.0, 4.0))
        yx = truth[one.name.removesuffix(".mrc")].yx_px if one.n_particles else np.empty((0, 2))
        assert len(yx) == one.n_particles
        assert ((yx >= 15) & (yx <= np.array([240, 200]) - 16)).all()


def test_the_seed_decides_the_bytes(tmp_path):
    for folder, seed in (("one", 1), ("same", 1), ("other", 2)):
        written(tmp_path / folder, seed=seed)

    def pixels(folder):
        path = tmp_path / folder / "simulated_0002.mrc"
        return mrc.read_pixels(path, mrc.read_header(path)).tobytes()

    assert pixels("one") == pixels("same") != pixels("other")
    truth = [(tmp_path / folder / "truth.star").read_bytes() for folder in ("one", "same", "other")]
    assert truth[0] == truth[1] != truth[2]


@pytest.mark.parametrize("dtype", DTYPES)
def test_types_keep_the_picture(dtype, tmp_path):
    pixels = np.random.default_rng(0).normal(1, 0.05, (64, 64)).astype(np.float32)
    typed = as_dtype(pixels, dtype)
    assert typed.dtype == dtype
    assert np.corrcoef(typed.astype(float).ravel(), pixels.ravel())[0, 1] > 0.998
    written(tmp_path, dtype=dtype, count=1, shape_yx=(150, 150))
    assert mrc.read_header(tmp_path / "simulated_0001.mrc").dtype == np.dtype(dtype)


def test_any_difficulty_has_still_one_species(tmp_path):
    written(tmp_path, difficulty="any", count=3)
    assert len(list(tmp_path.glob("*.mrc"))) == 3


def test_maps_are_chosen_by_size_or_by_the_seed(tmp_path):
    for name, radius in (("small", 6), ("large", 18)):
        write_map(tmp_path / f"{name}.mrc", ball(radius, 4.0), 4.0)
    wishes = SMALL | {"maps": (tmp_path,)}
    for diameter, name in ((50.0, "small"), (170.0, "large")):
        species, others = choose_species(Simulation(**wishes, diameter_angstrom=diameter))
        assert species.name == name
        assert len(others) == 1
    assert choose_species(Simulation(**wishes))[0].name in ("small", "large")


def test_a_directory_with_a_truth_is_left_alone(tmp_path):
    (tmp_path / "truth.star").write_text("mine")
    with pytest.raises(UsageError, match=r"has a truth.star already"):
        written(tmp_path)
    assert (tmp_path / "truth.star").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        written(tmp_path / "file" / "sub")
