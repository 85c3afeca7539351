"""Coordinates from every kind of file, and the names that two programs give one micrograph."""

import numpy as np
import pytest

from drpwatch.assess.coordinates import pair_names, read_coordinates, read_pixel_size_angstrom
from drpwatch.errors import StarError, UsageError
from drpwatch.formats import star

PICKS_YX = np.array([[2.0, 1.0], [4.0, 3.0]])
SCORE = np.array([0.5, 0.25])


def particles(*names: str) -> bytes:
    return star.particles_header(star.Optics(1.5)) + b"".join(
        star.particles_rows(name, PICKS_YX, SCORE) for name in names
    )


class TestRead:
    def test_particles(self, tmp_path):
        path = tmp_path / "particles.star"
        path.write_bytes(particles("mics/a.mrc", "./mics/b.mrc.gz") + particles_rows_again())
        found = read_coordinates(path)
        assert list(found) == ["mics/a", "mics/b"]
        np.testing.assert_array_equal(found["mics/a"].yx_px, np.concatenate([PICKS_YX, PICKS_YX]))
        np.testing.assert_array_equal(found["mics/b"].score, SCORE)

    def test_any_block_and_order_of_columns(self, tmp_path):
        path = tmp_path / "truth.star"
        path.write_text("data_x\n\nloop_\n_rlnCoordinateY\n_rlnMicrographName\n_rlnCoordinateX\n2 a.mrc 1\n")
        found = read_coordinates(path)
        assert found["a"].yx_px.tolist() == [[2, 1]]
        assert found["a"].score is None

    def test_a_folder(self, tmp_path):
        (tmp_path / "GridSquare_1").mkdir()
        (tmp_path / "GridSquare_1" / "a_autopick.star").write_bytes(star.micrograph_picks(PICKS_YX, SCORE))
        (tmp_path / "b.1_autopick.star").write_bytes(star.micrograph_picks(PICKS_YX[:0], SCORE[:0]))
        (tmp_path / "c_autopick.star").write_bytes(b"")
        (tmp_path / "coords_suffix_autopick.star").write_bytes(star.coords_suffix("micrographs_ctf.star"))
        (tmp_path / "autopick.star").write_bytes(star.autopick_header())
        (tmp_path / "particles.star").write_bytes(particles("z.mrc"))
        found = read_coordinates(tmp_path)
        assert {name: len(one.yx_px) for name, one in found.items()} == {
            "GridSquare_1/a": 2,
            "b.1": 0,
            "c": 0,
        }

    def test_one_micrograph(self, tmp_path):
        (tmp_path / "a_autopick.star").write_bytes(star.micrograph_picks(PICKS_YX, SCORE))
        assert read_coordinates(tmp_path / "a_autopick.star")["a"].yx_px.tolist() == PICKS_YX.tolist()

    def test_what_is_not_there(self, tmp_path):
        with pytest.raises(UsageError, match=r"no such file or folder"):
            read_coordinates(tmp_path / "gone.star")
        with pytest.raises(UsageError, match=r"no <micrograph>_autopick\.star in this folder"):
            read_coordinates(tmp_path)
        (tmp_path / "autopick.star").write_bytes(star.autopick_header())
        with pytest.raises(UsageError, match="no block has rlnCoordinateX and rlnCoordinateY"):
            read_coordinates(tmp_path / "autopick.star")
        (tmp_path / "a_autopick.star").write_bytes(star.autopick_header())
        with pytest.raises(StarError, match="no block has rlnCoordinateX"):
            read_coordinates(tmp_path)


class TestPixelSize:
    def test_of_particles_and_of_their_folder(self, tmp_path):
        (tmp_path / "particles.star").write_bytes(particles("a.mrc"))
        assert read_pixel_size_angstrom(tmp_path / "particles.star") == 1.5
        assert read_pixel_size_angstrom(tmp_path) == 1.5

    def test_files_that_do_not_say(self, tmp_path):
        (tmp_path / "a.star").write_bytes(star.micrograph_picks(PICKS_YX, SCORE))
        assert read_pixel_size_angstrom(tmp_path / "a.star") is None
        assert read_pixel_size_angstrom(tmp_path) is None

    def test_two_pixel_sizes(self, tmp_path):
        path = tmp_path / "a.star"
        path.write_text("data_optics\n\nloop_\n_rlnMicrographPixelSize\n1.0\n1.2\n")
        with pytest.raises(UsageError, match="different pixel sizes"):
            read_pixel_size_angstrom(path)


class TestPairNames:
    @pytest.mark.parametrize(
        ("ours", "theirs", "pairs"),
        [
            (["a", "b"], ["b", "c"], {"b": "b"}),
            (["mics/a"], ["a"], {"mics/a": "a"}),
            (["a"], ["MotionCorr/job002/Movies/a"], {"a": "MotionCorr/job002/Movies/a"}),
            # Two micrographs of one name are told apart by their folders, or not at all.
            (["g1/a", "g2/a"], ["x/g2/a", "x/g1/a"], {"g1/a": "x/g1/a", "g2/a": "x/g2/a"}),
            (["g1/a", "g2/a"], ["a"], {}),
            (["a"], ["g1/a", "g2/a"], {}),
            (["g1/a", "g2/a"], ["g1/a", "x/a"], {"g1/a": "g1/a"}),
            ([], ["a"], {}),
        ],
    )
    def test_pairs(self, ours, theirs, pairs):
        assert pair_names(ours, theirs) == pairs


def particles_rows_again() -> bytes:
    return star.particles_rows("mics//a.mrc", PICKS_YX, SCORE)
