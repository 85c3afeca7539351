"""The files of other programs, as formats.md 4.6 to 4.8 shows them and as those programs read them."""

import csv
import io

import gemmi
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpwatch.errors import StarError, UsageError
from drpwatch.formats import exports, star

PICKS_YX = np.array([[512.0, 1024.0], [10.25, 4000.75]], dtype=np.float32)
SCORE = np.array([0.973, 0.02], dtype=np.float32)
NOTHING = (np.empty((0, 2), np.float32), np.empty(0, np.float32))


class TestBox:
    def test_corners_and_sides(self):
        assert exports.box(PICKS_YX, 256) == b"896\t384\t256\t256\n3873\t-118\t256\t256\n"

    @given(st.floats(0, 10_000, width=32), st.floats(0, 10_000, width=32), st.integers(1, 999))
    def test_the_centre_is_found_again(self, y, x, size_px):
        corner_x, corner_y, width, height = map(int, exports.box(np.array([[y, x]]), size_px).split())
        assert abs(corner_x + width // 2 - x) <= 0.5
        assert abs(corner_y + height // 2 - y) <= 0.5

    def test_no_picks_no_lines(self):
        assert exports.box(NOTHING[0], 100) == b""

    def test_a_box_without_size(self):
        with pytest.raises(UsageError, match="a box of 0 px has no size"):
            exports.box(PICKS_YX, 0)


class TestCbox:
    def test_a_row_is_as_cryolo_has_it(self):
        blocks = star.read(exports.cbox(PICKS_YX, SCORE, 200, 208))
        assert blocks["global"].column("cbox_format_version") == ["1.0"]
        assert blocks["cryolo"].rows[0] == tuple(
            "924.000 412.000 <NA> 200.0 200.0 <NA> 208.0 208.0 0.973000 <NA> <NA>".split()
        )
        assert blocks["cryolo_include"].labels == ("slice_index",)

    def test_an_odd_box_keeps_the_centre(self):
        block = star.read(exports.cbox(PICKS_YX, SCORE, 201, 208))["cryolo"]
        centre_x = block.numbers("CoordinateX") + block.numbers("Width") / 2
        np.testing.assert_allclose(centre_x, PICKS_YX[:, 1])

    def test_gemmi_reads_it_with_picks_and_without(self):
        for picks in ((PICKS_YX, SCORE), NOTHING):
            document = gemmi.cif.read_string(exports.cbox(*picks, 200, 208).decode())
            assert len(document["cryolo"].find_values("_CoordinateX")) == len(picks[1])


class TestTopaz:
    def test_lines(self):
        text = exports.topaz_header() + exports.topaz_rows("mics/foo_0001.mrc.gz", PICKS_YX, SCORE)
        assert text.decode() == (
            "image_name\tx_coord\ty_coord\tscore\n"
            "foo_0001\t1024\t512\t0.973000\nfoo_0001\t4001\t10\t0.020000\n"
        )

    def test_names_that_would_break_it(self):
        for name in ("a\tb.mrc", "a\nb.mrc", "\udcff.mrc"):
            with pytest.raises(UsageError, match="has a character that cannot be exported"):
                exports.topaz_rows(name, PICKS_YX, SCORE)
            with pytest.raises(UsageError, match="has a character that cannot be exported"):
                exports.csv_rows(name, PICKS_YX, SCORE)


class TestCsv:
    @given(
        st.text(st.sampled_from("ab/._,;'\" ") | st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]))
    )
    def test_any_name_comes_back(self, name):
        text = (exports.csv_header() + exports.csv_rows(name, PICKS_YX, SCORE)).decode()
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        assert [row["micrograph"] for row in rows] == [name, name]
        assert [float(row["x_px"]) for row in rows] == [1024.0, 4000.75]
        assert [float(row["y_px"]) for row in rows] == [512.0, 10.25]
        assert [float(row["score"]) for row in rows] == [0.973, 0.02]


def test_numbers_must_be_finite():
    bad = np.array([[np.nan, 1.0]])
    for write in (
        lambda: exports.box(bad, 10),
        lambda: exports.cbox(bad, SCORE[:1], 10, 10),
        lambda: exports.topaz_rows("a", bad, SCORE[:1]),
        lambda: exports.csv_rows("a", bad, SCORE[:1]),
    ):
        with pytest.raises(StarError, match="not finite"):
            write()
