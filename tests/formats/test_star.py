"""What is written is what RELION's rules allow, and what three other readers and our strict one read."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import gemmi
import mrcfile
import numpy as np
import pytest
import starfile
from hypothesis import given, settings
from hypothesis import strategies as st

from drpwatch.errors import StarError
from drpwatch.formats import mrc, star

OPTICS = star.Optics(0.885)
PICKS_YX = np.array([[512.0, 1024.0], [0.25, 4095.9996]], dtype=np.float32)
SCORE = np.array([0.973, 0.02], dtype=np.float32)
NAME = "MotionCorr/job002/Movies/foo_0001.mrc"


class TestTexts:
    """The very bytes of formats.md 4.1 to 4.4."""

    def test_particles(self):
        text = star.particles_header(OPTICS) + star.particles_rows(NAME, PICKS_YX, SCORE)
        assert text.decode() == (
            "\n# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n"
            "_rlnMicrographOriginalPixelSize #3\n_rlnMicrographPixelSize #4\n_rlnVoltage #5\n"
            "_rlnSphericalAberration #6\n_rlnAmplitudeContrast #7\n"
            "opticsGroup1 1 0.885000 0.885000 300.000000 2.700000 0.100000\n\n"
            "\n# version 30001\n\ndata_particles\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n"
            "_rlnAutopickFigureOfMerit #3\n_rlnMicrographName #4\n_rlnOpticsGroup #5\n"
            "_rlnOriginXAngst #6\n_rlnOriginYAngst #7\n"
            f"1024.000 512.000 0.973000 {NAME} 1 0.000000 0.000000\n"
            f"4096.000 0.250 0.020000 {NAME} 1 0.000000 0.000000\n"
        )

    def test_one_micrograph(self):
        assert star.micrograph_picks(PICKS_YX, SCORE).decode() == (
            "\n# version 30001\n\ndata_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n"
            "_rlnClassNumber #3\n_rlnAutopickFigureOfMerit #4\n_rlnAnglePsi #5\n"
            "1024.000 512.000 0 0.973000 0.000000\n4096.000 0.250 0 0.020000 0.000000\n"
        )

    def test_a_micrograph_without_picks_ends_with_its_last_label(self):
        text = star.micrograph_picks(np.empty((0, 2), np.float32), np.empty(0, np.float32))
        assert text.endswith(b"\n_rlnAnglePsi #5\n")
        assert star.read(text)[""].rows == ()
        assert star.particles_rows(NAME, np.empty((0, 2)), np.empty(0)) == b""

    def test_the_micrographs_that_relion_extracts_from(self):
        assert star.micrographs([NAME, "Grid 1/b.mrc"], OPTICS).decode() == (
            "\n# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n"
            "_rlnMicrographOriginalPixelSize #3\n_rlnMicrographPixelSize #4\n_rlnVoltage #5\n"
            "_rlnSphericalAberration #6\n_rlnAmplitudeContrast #7\n"
            "opticsGroup1 1 0.885000 0.885000 300.000000 2.700000 0.100000\n\n"
            "\n# version 30001\n\ndata_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnOpticsGroup #2\n"
            f"{NAME} 1\n'Grid 1/b.mrc' 1\n"
        )

    def test_the_list_for_relion_4(self):
        row = star.autopick_row(NAME, "AutoPick/job004/Movies/foo_0001_autopick.star")
        assert (star.autopick_header() + row).decode() == (
            "\n# version 30001\n\ndata_coordinate_files\n\nloop_\n_rlnMicrographName #1\n"
            "_rlnMicrographCoordinates #2\n"
            f"{NAME} AutoPick/job004/Movies/foo_0001_autopick.star\n"
        )

    def test_the_suffix_file_for_relion_3_1(self):
        assert star.coords_suffix("CtfFind/job003/micrographs_ctf.star") == (
            b"CtfFind/job003/micrographs_ctf.star\n"
        )
        for path in ("two words.star", "two\nlines.star", ""):
            with pytest.raises(StarError):
                star.coords_suffix(path)

    def test_minus_zero_is_zero(self):
        assert b"-0" not in star.micrograph_picks(np.array([[-0.0, -0.0]]), np.array([0.5]))

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_numbers_must_be_finite(self, bad):
        for picks_yx, score in ([[bad, 1]], [0.5]), ([[1, 1]], [bad]):
            with pytest.raises(StarError, match="not finite"):
                star.particles_rows(NAME, np.array(picks_yx), np.array(score))
            with pytest.raises(StarError, match="not finite"):
                star.micrograph_picks(np.array(picks_yx), np.array(score))


class TestOptics:
    @pytest.mark.parametrize(
        "values",
        [
            {"pixel_size_angstrom": 0.0},
            {"pixel_size_angstrom": float("nan")},
            {"pixel_size_angstrom": 1.0, "voltage_kv": -300},
            {"pixel_size_angstrom": 1.0, "amplitude_contrast": float("inf")},
            {"pixel_size_angstrom": 1.0, "group_name": "optics group"},
            {"pixel_size_angstrom": 1.0, "group_name": "data_1"},
            {"pixel_size_angstrom": 1.0, "group_name": ""},
        ],
    )
    def test_nonsense_is_refused(self, values):
        with pytest.raises(StarError, match="optics"):
            star.Optics(**values)


class TestQuote:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("a/b.mrc", "a/b.mrc"),
            ("Grid 1/b.mrc", "'Grid 1/b.mrc'"),
            ("it's.mrc", "it's.mrc"),
            ("it's one.mrc", '"it\'s one.mrc"'),
            ("'a'", "\"'a'\""),
            ("data_1/a.mrc", "'data_1/a.mrc'"),
            ("raw_data_1/a.mrc", "raw_data_1/a.mrc"),
            ("Loop_", "'Loop_'"),
            ("_a.mrc", "'_a.mrc'"),
            ("#a.mrc", "'#a.mrc'"),
            (";a.mrc", "';a.mrc'"),
            ("é.mrc", "'é.mrc'"),
            ("", "''"),
        ],
    )
    def test_values(self, value, text):
        assert star.quote(value) == text

    @pytest.mark.parametrize(
        "value",
        [
            "a\nb",
            "a\rb",
            "a\tb",
            "a\0b",
            "a\x7fb",
            "a\x85b",
            "a\u2028b",
            "a  b",
            " a",
            "a ",
            "a\xa0b",
            "a 'b' \"c\"",
            "'\"",
            "\udcff.mrc",
        ],
    )
    def test_what_no_reader_would_give_back_is_refused(self, value):
        with pytest.raises(StarError, match="cannot be written to a STAR file"):
            star.quote(value)


def readable_names(path: Path) -> dict[str, list[str]]:
    """Return the micrograph names of a particle file as each of the readers gives them."""
    column = gemmi.cif.read(str(path)).find_block("particles").find_values("_rlnMicrographName")
    ours = star.read(path)["particles"].column("rlnMicrographName")
    readers = {"ours": ours, "gemmi": [gemmi.cif.as_string(value) for value in column]}
    if all(starfile_can_read(name) for name in ours):
        tables = starfile.read(path, always_dict=True, parse_as_string=["rlnMicrographName"])
        readers["starfile"] = [str(name) for name in tables["particles"]["rlnMicrographName"]]
    return readers


names = st.text(
    st.sampled_from("ab/._-#;$'\"[] \t\n\r\0é日\u2028?") | st.characters(), max_size=12
) | st.sampled_from(
    [
        "data_",
        "data_x",
        "loop_",
        "save_",
        "stop_",
        "global_",
        "_rlnX",
        "?",
        ".",
        "NA",
        "nan",
        "<NA>",
        "007",
        "1e5",
    ]
)


def starfile_can_read(name: str) -> bool:
    """Whether starfile 0.5 can read a name: not with a quote or # in it, nor what pandas takes for NaN."""
    return name not in ("nan", "NaN", "<NA>") and not set(name) & set("'\"#")


coordinates = st.floats(0, 20_000, width=32)


@settings(max_examples=150, deadline=None)
@given(names)
def test_a_name_comes_back_or_is_refused(name):
    try:
        row = star.particles_rows(name, PICKS_YX[:1], SCORE[:1])
    except StarError:
        return
    neighbour = star.particles_rows("good.mrc", PICKS_YX[:1], SCORE[:1])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "particles.star"
        path.write_bytes(star.particles_header(OPTICS) + neighbour + row + neighbour)
        for reader, found in readable_names(path).items():
            assert found == ["good.mrc", name, "good.mrc"], reader


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.tuples(coordinates, coordinates, st.floats(0, 1, width=32)), max_size=4), max_size=4)
)
def test_a_growing_file_is_valid_after_each_append(micrographs):
    text = star.particles_header(OPTICS)
    written = np.empty((0, 3))
    for number, picks in enumerate(micrographs):
        table = np.array(picks, dtype=np.float32).reshape(-1, 3)  # y x score
        text += star.particles_rows(f"m {number}.mrc", table[:, :2], table[:, 2])
        written = np.concatenate([written, table])
        block = star.read(text)["particles"]
        read = np.column_stack(
            [
                block.numbers(f"rln{label}")
                for label in ("CoordinateY", "CoordinateX", "AutopickFigureOfMerit")
            ]
        )
        np.testing.assert_allclose(read, written, atol=0.00051, rtol=0)
        np.testing.assert_allclose(read[:, 2], written[:, 2], atol=5.1e-7)
        found = gemmi.cif.read_string(text.decode())["particles"].find_values("_rlnCoordinateX")
        assert [float(x) for x in found] == read[:, 1].tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 300)), max_size=20))
def test_a_row_never_crosses_a_page(micrographs):
    """A reader that sees any number of whole pages sees whole rows, in every reader's eyes."""
    text = star.particles_header(OPTICS)
    plain, ends = text, []
    for n, length in micrographs:
        rows = star.particles_rows("a" * length, np.full((n, 2), 1234.5), np.full(n, 0.5))
        plain += rows
        text += star.in_pages(rows, len(text))
        ends.append(len(text))
    assert star.read(text) == star.read(plain)
    for seen in {*range(star.PAGE_BYTES, len(text), star.PAGE_BYTES), *ends}:
        rows = star.read(text[:seen])["particles"].rows
        assert rows == star.read(plain)["particles"].rows[: len(rows)]
        found = gemmi.cif.read_string(text[:seen].decode())["particles"].find_values("_rlnCoordinateX")
        assert [*found] == [row[0] for row in rows]


def test_a_row_longer_than_a_page_stays_as_it_is():
    row = star.autopick_row("a" * 3000, "b" * 3000)
    assert star.in_pages(row, 100) == row


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400))
def test_a_torn_file_is_refused(cut):
    whole = star.particles_header(OPTICS) + star.particles_rows(NAME, PICKS_YX, SCORE)
    torn = whole[:-cut]
    if not torn.endswith(b"\n"):
        with pytest.raises(StarError, match="half written"):
            star.read(torn)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["", "#", "# x", "data_", "data_a", "loop_", "_a #1", "_b", "_a#1", "1", "1 2", "'1 2'"]
        )
        | st.text(max_size=8)
    )
)
def test_no_text_crashes_the_reader(lines):
    try:
        blocks = star.read("\n".join(lines).encode("utf-8", "replace") + b"\n")
    except StarError as refusal:
        problem = str(refusal)
        assert "line" in problem
    else:
        assert all(len(row) == len(block.labels) for block in blocks.values() for row in block.rows)


class TestReader:
    LOOP = "data_\n\nloop_\n_rlnA #1\n_rlnB #2\n"

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            (LOOP + "1 2\n\n3 4\n", "line 8: '3 4' below an empty line"),
            (LOOP + "1 2\n# note\n3 4\n", "line 7: a comment inside a loop"),
            (LOOP + "1 2\n3\n", "line 7: 1 values for 2 labels"),
            (LOOP + "1 2 3\n", "line 6: 3 values for 2 labels"),
            (LOOP + "1 2\n3 4", "line 7: the last line has no newline"),
            (LOOP[:-1], "line 5: the last line has no newline"),
            (LOOP + "1 'two\n", "line 6: a quote that does not close"),
            (LOOP + "1 2\r\n", "line 6: DOS line ends"),
            (LOOP + "1 2\n\0\0\0", "line 7: control character"),
            (LOOP + "1 2\ndata_b\n", "line 7: 'data_b' right below a loop"),
            (LOOP + "\n# version 30001\n\ndata_b\n", "line 9: .*RELION would read it as a row"),
            ("# from data_optics\n" + LOOP, "line 1: data_ or loop_ in a comment"),
            ("data_\nloop_\n_rlnA#1\n", "line 3: expected a new label"),
            ("data_\nloop_\n_rlnA #1\n_rlnA #2\n", "line 4: expected a new label"),
            ("data_\nloop_\n\n", "a loop_ without labels"),
            ("data_a\n_x 1\n\ndata_a\n_x 1\n", "line 4: a second block data_a"),
            ("_rlnA 1\n", "line 1: expected a data_ block"),
            ("x y\n1 2\n", "line 1: expected a data_ block"),
            ("data_a\n_x\n", "line 2: expected a new _label and one value"),
        ],
    )
    def test_what_relion_would_misread(self, text, reason):
        with pytest.raises(StarError, match=f"^STAR text, {reason}" if reason[:4] == "line" else reason):
            star.read(text.encode())

    def test_other_encodings(self):
        with pytest.raises(StarError, match="line 2: not valid UTF-8"):
            star.read(b"data_\n_a \xff\n")

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(StarError, match=r"gone\.star: cannot be read \(No such file or directory\)"):
            star.read(tmp_path / "gone.star")

    def test_as_relion_writes(self):
        blocks = star.read(
            b"\n# version 30001\n\ndata_general\n\n_rlnA      1.5 \n_rlnB  'two words' \n \n"
            b"\n# version 30001\n\ndata_particles\n\nloop_ \n_rlnCoordinateX #1 \n_rlnName #2 \n"
            b"  102.50 'a b' \n   -3.00 c # ours \n \n"
        )
        assert blocks["general"].column("_rlnB") == ["two words"]
        assert blocks["particles"].numbers("rlnCoordinateX").tolist() == [102.5, -3.0]
        assert blocks["particles"].column("rlnName") == ["a b", "c"]

    def test_an_empty_file_has_no_blocks(self):
        assert star.read(b"") == {}

    def test_columns_that_are_not_there_or_not_numbers(self):
        block = star.read(b"data_x\n\nloop_\n_a #1\n_b #2\none nan\n")["x"]
        with pytest.raises(StarError, match="data_x has no column _c"):
            block.column("c")
        with pytest.raises(StarError, match="data_x, column a: could not convert"):
            block.numbers("a")
        with pytest.raises(StarError, match="not every value is finite"):
            block.numbers("b")

    def test_as_gemmi_and_starfile_write(self, tmp_path):
        path = tmp_path / "a.star"
        path.write_bytes(star.particles_header(OPTICS) + star.particles_rows("a b.mrc", PICKS_YX, SCORE))
        expected = star.read(path)["particles"].column("rlnMicrographName")
        gemmi.cif.read(str(path)).write_file(str(tmp_path / "gemmi.star"))
        starfile.write(starfile.read(path), tmp_path / "starfile.star")
        for name in ("gemmi.star", "starfile.star"):
            assert star.read(tmp_path / name)["particles"].column("rlnMicrographName") == expected


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_star_handler") is None, reason="RELION is not installed")
def test_relion_reads_every_kind_of_name(tmp_path):
    written = ["a/b.mrc", "Grid 1/b.mrc", "it's.mrc", "it's one.mrc", "raw_data_1/x.mrc", "data_1/x.mrc"]
    written += ["é/日本.mrc", "loop_/x.mrc", 'a"b.mrc']
    text = star.particles_header(OPTICS)
    for name in written:
        text += star.particles_rows(name, PICKS_YX, SCORE)
    (tmp_path / "in.star").write_bytes(text)
    command = ["relion_star_handler", "--i", "in.star", "--o", "out.star"]
    command += ["--operate", "rlnCoordinateX", "--add_to", "1"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=30)
    found = star.read(tmp_path / "out.star")["particles"]
    assert found.column("rlnMicrographName") == [name for name in written for _ in range(2)]
    assert found.numbers("rlnCoordinateX").tolist() == [1025.0, 4097.0] * len(written)


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_preprocess") is None, reason="RELION is not installed")
def test_relion_extracts_what_was_picked(tmp_path):
    """RELION 3.1 finds the files by coords_suffix, takes x and y as they are, and survives zero picks."""
    pixels = np.random.default_rng(0).normal(0, 1, (96, 160)).astype("f4")
    names = ["mics/a.mrc", "mics/none.mrc"]
    (tmp_path / "mics").mkdir()
    for name in names:
        mrc.write_mrc(tmp_path / name, pixels, 2.0)
    table = "data_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n_rlnMicrographPixelSize #3\n"
    table += "_rlnVoltage #4\n_rlnSphericalAberration #5\n_rlnAmplitudeContrast #6\n"
    table += "opticsGroup1 1 2.0 300 2.7 0.1\n\n\ndata_micrographs\n\nloop_\n"
    table += "_rlnMicrographName #1\n_rlnOpticsGroup #2\n"
    table += "".join(f"{name} 1\n" for name in names)
    (tmp_path / "mics.star").write_text("\n# version 30001\n\n" + table)
    picks = tmp_path / "picks" / "mics"
    picks.mkdir(parents=True)
    picks_yx = np.array([[40.7, 100.2], [60.0, 30.0]])
    (picks / "a_autopick.star").write_bytes(star.micrograph_picks(picks_yx, SCORE))
    (picks / "none_autopick.star").write_bytes(star.micrograph_picks(picks_yx[:0], SCORE[:0]))
    (tmp_path / "picks" / "coords_suffix_autopick.star").write_bytes(star.coords_suffix("mics.star"))
    command = ["relion_preprocess", "--i", "mics.star", "--coord_dir", "picks/", "--coord_suffix"]
    command += ["_autopick.star", "--part_star", "out/particles.star", "--part_dir", "out/"]
    command += ["--extract", "--extract_size", "32"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=30)
    found = star.read(tmp_path / "out" / "particles.star")["particles"]
    assert found.picks_yx().tolist() == picks_yx.tolist()
    with mrcfile.open(tmp_path / "out" / "mics" / "a.mrcs") as stack:
        np.testing.assert_allclose(stack.data[0], pixels[40 - 16 : 40 + 16, 100 - 16 : 100 + 16], atol=1e-5)
