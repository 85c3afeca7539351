"""One contract for every kind of MRC file, with mrcfile as the oracle; and what is refused, and why."""

import gzip
import os
import struct
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drpwatch.errors import ChangedWhileReading, IncompleteMicrograph, MicrographError, UnusableMicrograph
from drpwatch.formats import mrc
from drpwatch.micrograph import Fingerprint
from tests.bench.fuzz_mrc import fuzz

MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
STAMPS = {
    "CCP4": b"\x44\x41\x00\x00",
    "standard": b"\x44\x44\x00\x00",
    "SerialEM": b"\x44\x00\x00\x00",
    "IMOD": b"\x44\x20\x20\x20",
    "big-endian, whatever the order is": b"\x11\x11\x00\x00",
    "zero": b"\x00\x00\x00\x00",
}


def image(shape_yx: tuple[int, int] = (12, 20), dtype: str = "f4", seed: int = 0) -> np.ndarray:
    pixels = np.random.default_rng(seed).normal(0, 30, shape_yx)
    return (np.abs(pixels) if dtype.endswith("u2") else pixels).astype(dtype)


def mrc_bytes(
    pixels: np.ndarray,
    pixel_size_angstrom: float = 1.77,
    extended_header: bytes = b"",
    stamp: bytes | None = None,
    **fields: int,
) -> bytes:
    """Return an MRC file made without the code under test."""
    order = "<" if pixels.dtype.newbyteorder("=") == pixels.dtype and pixels.dtype.str[0] != ">" else ">"
    mode = next(mode for mode, kind in MODES.items() if kind == pixels.dtype.str[1:])
    height, width = pixels.shape
    header = bytearray(1024)
    struct.pack_into(f"{order}10i", header, 0, width, height, 1, mode, 0, 0, 0, width, height, 1)
    cell = width * pixel_size_angstrom, height * pixel_size_angstrom, pixel_size_angstrom
    struct.pack_into(f"{order}6f", header, 40, *cell, 90, 90, 90)
    struct.pack_into(f"{order}3i", header, 64, 1, 2, 3)
    struct.pack_into(f"{order}i", header, 92, len(extended_header))
    struct.pack_into(f"{order}i", header, 108, 20140)
    header[208:212] = b"MAP "
    header[212:216] = stamp or (STAMPS["standard"] if order == "<" else b"\x11\x11\x00\x00")
    for name, value in fields.items():
        offset = {"nx": 0, "ny": 4, "nz": 8, "mode": 12, "mx": 28, "my": 32, "ispg": 88, "nsymbt": 92}[name]
        struct.pack_into(f"{order}i", header, offset, value)
    return bytes(header) + extended_header + pixels.tobytes()


@pytest.fixture(params=[".mrc", ".mrc.gz"])
def save(request, tmp_path):
    """Write a file, plain or compressed, and return its path."""

    def write(content: bytes, name: str = "foo") -> Path:
        path = tmp_path / (name + request.param)
        path.write_bytes(gzip.compress(content, 1) if request.param.endswith("gz") else content)
        return path

    return write


def read(path: Path) -> np.ndarray:
    return mrc.read_pixels(path, mrc.read_header(path))


def refusal_of(call: Callable[[], object]) -> str | None:
    """Return the reason for which a file is refused, None where it is not."""
    try:
        call()
    except MicrographError as error:
        return str(error)
    return None


def assert_as_mrcfile(path: Path) -> None:
    """Assert that our reader gives what mrcfile gives."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd machine stamps
        with mrcfile.open(path, permissive=True) as oracle:
            expected, voxel = oracle.data.reshape(oracle.data.shape[-2:]), oracle.voxel_size
    header = mrc.read_header(path)
    assert header.shape_yx == expected.shape
    assert header.pixel_size_yx_angstrom == (pytest.approx(voxel.y), pytest.approx(voxel.x))
    pixels = mrc.read_pixels(path, header, mrc.fingerprint(path.stat()))
    assert pixels.dtype == expected.dtype.newbyteorder("=")
    assert pixels.dtype.isnative
    np.testing.assert_array_equal(pixels, expected)


class TestContract:
    @pytest.mark.parametrize("order", "<>")
    @pytest.mark.parametrize("mode", MODES)
    def test_modes_and_byte_orders(self, save, mode, order):
        assert_as_mrcfile(save(mrc_bytes(image(dtype=order + MODES[mode]))))

    @pytest.mark.parametrize("shape_yx", [(1, 1), (1, 300), (257, 1), (3, 256), (256, 3), (33, 65)])
    @pytest.mark.parametrize("dtype", ["<i1", "<f4", ">i2"])
    def test_shapes(self, save, shape_yx, dtype):
        assert_as_mrcfile(save(mrc_bytes(image(shape_yx, dtype))))

    @pytest.mark.parametrize("size_bytes", [1, 80, 768, 131072])
    def test_extended_headers(self, save, size_bytes):
        path = save(mrc_bytes(image(), extended_header=b"x" * size_bytes))
        assert mrc.read_header(path).data_offset_bytes == 1024 + size_bytes
        assert_as_mrcfile(path)

    @pytest.mark.parametrize("stamp", ["CCP4", "SerialEM", "IMOD", "zero"])
    def test_odd_machine_stamps(self, save, stamp):
        path = save(mrc_bytes(image(), stamp=STAMPS[stamp]))
        expected = save(mrc_bytes(image(), stamp=STAMPS["standard"]), "standard")
        assert mrc.read_header(path) == mrc.read_header(expected)
        if stamp != "zero":
            assert_as_mrcfile(path)

    @pytest.mark.parametrize("order", "<>")
    @pytest.mark.parametrize("stamp", STAMPS)
    def test_the_byte_order_comes_from_the_sides(self, save, stamp, order):
        pixels = image((7, 256), order + "i2")  # 256 is plausible in neither order but one
        path = save(mrc_bytes(pixels, stamp=STAMPS[stamp]))
        np.testing.assert_array_equal(read(path), pixels)

    @pytest.mark.parametrize("space_group", [0, 1, 401])
    def test_space_groups_of_volumes(self, save, space_group):
        assert_as_mrcfile(save(mrc_bytes(image(), ispg=space_group)))

    def test_written_by_mrcfile(self, tmp_path):
        for name in ("a.mrc", "b.mrc.gz"):
            mrc.write_mrc(tmp_path / name, image(), 0.885)
            assert_as_mrcfile(tmp_path / name)

    def test_more_bytes_than_expected_are_accepted(self, save):
        pixels = image()
        path = save(mrc_bytes(pixels) + b"\0" * 5000)
        mrc.check_complete(mrc.read_header(path), path.stat().st_size)
        np.testing.assert_array_equal(read(path), pixels)

    def test_a_descriptor_is_as_good_as_a_path(self, save):
        path = save(mrc_bytes(image()))
        descriptor = mrc.open_regular(path)
        try:
            assert mrc.read_header(descriptor) == mrc.read_header(path)
            assert mrc.fingerprint(os.fstat(descriptor)) == mrc.fingerprint(path.stat())
        finally:
            os.close(descriptor)

    def test_every_cut_is_incomplete(self, save):
        content = mrc_bytes(image((5, 6)), extended_header=b"e" * 100)
        for size in (0, 1, 3, 1023, 1024, 1100, 1124, len(content) - 1):
            path = save(content[:size])
            with pytest.raises(IncompleteMicrograph):
                read(path)

    def test_a_row_of_zeros_at_the_end_is_not_written_yet(self, save):
        pixels = image()
        pixels[-1] = 0
        path = save(mrc_bytes(pixels))
        with pytest.raises(IncompleteMicrograph, match="still being filled"):
            read(path)

    def test_a_border_of_zeros_is_an_image(self, save):
        pixels = np.pad(image(), 2)
        path = save(mrc_bytes(pixels))
        np.testing.assert_array_equal(read(path), pixels)

    def test_a_blank_image_is_left_to_the_picker(self, save):
        path = save(mrc_bytes(np.zeros((4, 5), "f4")))
        assert not read(path).any()


class TestBuffer:
    @pytest.mark.parametrize("dtype", ["<f4", ">f4", ">u2", "<f2"])
    def test_pixels_are_a_view_into_the_buffer(self, save, dtype):
        pixels = image(dtype=dtype)
        path, buffer = save(mrc_bytes(pixels)), np.full(10_000, 7, np.uint8)
        result = mrc.read_pixels(path, mrc.read_header(path), None, buffer)
        assert np.shares_memory(result, buffer)
        np.testing.assert_array_equal(result, pixels)
        assert (buffer[pixels.nbytes :] == 7).all()

    def test_a_small_buffer_is_a_mistake_of_the_caller(self, save):
        path = save(mrc_bytes(image()))
        with pytest.raises(ValueError, match="buffer must be"):
            mrc.read_pixels(path, mrc.read_header(path), None, np.empty(10, np.uint8))


class TestPixelSize:
    @pytest.mark.parametrize("size", [0.0, 1.0, float("nan"), float("inf"), -1.5, 0.01, 51.0])
    def test_no_answer_is_not_guessed(self, size):
        assert mrc.parse_header(mrc_bytes(image(), size)).pixel_size_yx_angstrom is None

    @pytest.mark.parametrize("grid", [{"mx": 0}, {"my": -3}, {"mx": 0, "my": 0}])
    def test_no_grid_no_size(self, grid):
        assert mrc.parse_header(mrc_bytes(image(), **grid)).pixel_size_yx_angstrom is None

    def test_axes_are_kept_apart(self):
        header = mrc.parse_header(mrc_bytes(image((12, 20)), 1.5, my=6))
        assert header.pixel_size_yx_angstrom == (pytest.approx(3.0), pytest.approx(1.5))


class TestRefused:
    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"nz": 40}, "a stack of 40 images"),
            ({"nz": 0}, "not one micrograph"),
            ({"mode": 3}, "mode 3 .* is a transform"),
            ({"mode": 4}, "mode 4 .* is a transform"),
            ({"mode": 101}, "4-bit"),
            ({"mode": 154285104}, "unknown pixel mode 154285104"),
            ({"mode": -1}, "unknown pixel mode -1"),
            ({"nx": 0}, "not an MRC file"),
            ({"ny": -5}, "not an MRC file"),
            ({"nx": 70000}, "not an MRC file"),
            ({"nsymbt": -1}, "extended header of -1 bytes"),
            ({"nsymbt": 2**31 - 1}, "extended header of 2147483647 bytes"),
        ],
    )
    def test_headers(self, fields, reason):
        with pytest.raises(UnusableMicrograph, match=reason):
            mrc.parse_header(mrc_bytes(image(), **fields))

    @pytest.mark.parametrize(
        ("start", "reason"),
        [
            (b"II*\0", "TIFF or EER"),
            (b"II+\0\x08\0\0\0", "BigTIFF or EER"),
            (b"MM\0*", "TIFF"),
            (b"\x89HDF\r\n\x1a\n", "HDF5"),
            (b"\x89PNG\r\n", "PNG"),
            (b"BZh9", "bzip2"),
        ],
    )
    def test_other_formats_are_named(self, start, reason):
        for content in (start, start + b"\0" * 2000):
            with pytest.raises(UnusableMicrograph, match=reason):
                mrc.parse_header(content, len(content))

    def test_zeros_are_a_header_to_come(self):
        with pytest.raises(IncompleteMicrograph, match="all zero"):
            mrc.parse_header(bytes(1024), 5000)

    def test_an_empty_file_says_how_little_it_has(self):
        with pytest.raises(IncompleteMicrograph, match="header not written yet: have 0 of 1024 bytes"):
            mrc.parse_header(b"", 0)

    def test_a_short_file_says_how_much_it_has(self):
        header = mrc.parse_header(mrc_bytes(image((12, 20), "i2")))
        with pytest.raises(IncompleteMicrograph, match="have 1300 of 1504 bytes"):
            mrc.check_complete(header, 1300)
        mrc.check_complete(header, 1504)

    def test_imod_unsigned_bytes(self, tmp_path):
        pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
        content = bytearray(mrc_bytes(pixels.view("i1")))
        struct.pack_into("<ii", content, 152, 1146047817, 0)
        (tmp_path / "a.mrc").write_bytes(content)
        result = mrc.read_pixels(tmp_path / "a.mrc", mrc.read_header(tmp_path / "a.mrc"))
        np.testing.assert_array_equal(result, pixels)
        struct.pack_into("<i", content, 156, 1)
        assert mrc.parse_header(bytes(content)).dtype == np.int8

    def test_a_damaged_gzip_file(self, tmp_path):
        content = bytearray(gzip.compress(mrc_bytes(image((64, 64)))))
        path = tmp_path / "a.mrc.gz"
        path.write_bytes(content)
        header = mrc.read_header(path)
        content[-6] ^= 255  # in the checksum
        path.write_bytes(content)
        with pytest.raises(UnusableMicrograph, match=r"damaged gzip file: .*incorrect data check"):
            mrc.read_pixels(path, header)

    def test_gzip_files_of_other_writers(self, tmp_path):
        """Several members, empty ones among them, a name and a comment in the header, padding."""
        content = mrc_bytes(image())
        named = bytearray(gzip.compress(content[:700]))
        named[3] = 0x18  # name and comment follow the first ten bytes
        parts = [bytes(named[:10]) + b"a.mrc\0why\0" + bytes(named[10:])]
        parts += [gzip.compress(b""), gzip.compress(content[700:1100]), gzip.compress(content[1100:])]
        for joint, end in ((b"", b""), (b"\0" * 512, b"\0" * 300_000)):
            path = tmp_path / "a.mrc.gz"
            path.write_bytes(joint.join(parts) + end)
            np.testing.assert_array_equal(read(path), image())
            path.write_bytes(joint.join(parts) + end + b"rubbish")
            with pytest.raises(UnusableMicrograph, match="damaged gzip file"):
                read(path)
            path.write_bytes(joint.join(parts)[:-4])
            with pytest.raises(IncompleteMicrograph, match="the compressed file is not whole"):
                read(path)

    def test_a_gzip_file_that_is_all_name_keeps_nobody_busy(self, tmp_path):
        path = tmp_path / "a.mrc.gz"
        path.write_bytes(b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * 50_000_000)
        started_s = time.process_time()
        with pytest.raises(IncompleteMicrograph, match="the compressed file is not whole"):
            mrc.read_header(path)
        assert time.process_time() - started_s < 2.0


class TestNotAFile:
    def test_directory_fifo_and_loop(self, tmp_path):
        (tmp_path / "directory.mrc").mkdir()
        os.mkfifo(tmp_path / "fifo.mrc")
        (tmp_path / "loop.mrc").symlink_to("loop.mrc")
        for name, reason in {"directory": "a directory", "fifo": "a FIFO", "loop": "symbolic links"}.items():
            with pytest.raises(UnusableMicrograph, match=reason):
                mrc.read_header(tmp_path / f"{name}.mrc")

    def test_a_device(self):
        with pytest.raises(UnusableMicrograph, match="a device"):
            mrc.read_header("/dev/null")

    def test_a_missing_file_may_come_back(self, tmp_path):
        with pytest.raises(IncompleteMicrograph, match="cannot be opened now: No such file"):
            mrc.read_header(tmp_path / "gone.mrc")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_permission_may_be_given_later(self, tmp_path):
        path = tmp_path / "secret.mrc"
        path.write_bytes(mrc_bytes(image()))
        path.chmod(0)
        with pytest.raises(IncompleteMicrograph, match="Permission denied"):
            mrc.read_header(path)

    def test_no_descriptor_leaks(self, tmp_path):
        (tmp_path / "directory.mrc").mkdir()
        path = tmp_path / "a.mrc"
        path.write_bytes(mrc_bytes(image()))
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            read(path)
            with pytest.raises(UnusableMicrograph):
                mrc.read_header(tmp_path / "directory.mrc")
        assert len(os.listdir("/proc/self/fd")) == before


class TestChanged:
    def test_another_file_than_the_one_decided_on(self, save):
        path = save(mrc_bytes(image()))
        header, seen = mrc.read_header(path), mrc.fingerprint(path.stat())
        other = Fingerprint(seen.size_bytes, seen.mtime_ns + 1, seen.inode)
        with pytest.raises(ChangedWhileReading, match="after it was found complete"):
            mrc.read_pixels(path, header, other)

    def test_a_write_during_the_read(self, save, monkeypatch):
        path = save(mrc_bytes(image()))
        header, fill = mrc.read_header(path), mrc._fill

        def fill_and_write(*arguments):
            raw = fill(*arguments)
            with path.open("ab") as file:
                file.write(b"more")
            return raw

        monkeypatch.setattr(mrc, "_fill", fill_and_write)
        with pytest.raises(ChangedWhileReading, match="while it was read"):
            mrc.read_pixels(path, header, mrc.fingerprint(path.stat()))

    def test_a_file_that_shrank(self, save):
        content = mrc_bytes(image((64, 64)))
        path = save(content)
        header = mrc.read_header(path)
        path.write_bytes(path.read_bytes()[:-300])
        with pytest.raises(IncompleteMicrograph):
            mrc.read_pixels(path, header)


class TestMemory:
    def test_a_header_alone_allocates_nothing(self, save):
        path = save(mrc_bytes(image(), nx=65535, ny=65535))
        header = mrc.read_header(path)
        tracemalloc.start()
        try:
            with pytest.raises(MicrographError, match="17179345924 bytes"):
                mrc.read_pixels(path, header)
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize(
        ("side_px", "problem", "reason"),
        [
            (2000, IncompleteMicrograph, r"has \d+ bytes, too few for 16001024"),
            (30_000, UnusableMicrograph, "would unfold to 3600001024 bytes: decompress it first"),
        ],
    )
    def test_a_gzip_bomb_is_refused_before_it_unfolds(self, tmp_path, side_px, problem, reason):
        """A blank image compresses a thousandfold, a micrograph does not tenfold."""
        pack = zlib.compressobj(wbits=31)
        content = pack.compress(mrc_bytes(image(), nx=side_px, ny=side_px)[:1024])
        content += b"".join(pack.compress(bytes(1 << 20)) for _ in range(16)) + pack.flush()
        path = tmp_path / "bomb.mrc.gz"
        path.write_bytes(content)
        header = mrc.read_header(path)
        tracemalloc.start()
        try:
            with pytest.raises(problem, match=reason):
                mrc.check_complete(header, path.stat().st_size)
            with pytest.raises(problem, match=reason):
                mrc.read_pixels(path, header)
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()

    def test_a_long_extended_header_that_is_compressed_is_passed_over(self, tmp_path):
        path = tmp_path / "a.mrc.gz"
        pixels = np.random.default_rng(0).normal(size=(500, 500)).astype("f4")
        path.write_bytes(gzip.compress(mrc_bytes(pixels, extended_header=bytes(50_000_000)), 1))
        header = mrc.read_header(path)
        tracemalloc.start()
        try:
            np.testing.assert_array_equal(mrc.read_pixels(path, header), pixels)
            assert tracemalloc.get_traced_memory()[1] < 12_000_000
        finally:
            tracemalloc.stop()


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(["<i1", "<f4", ">i2", "<f2"]),
    edits=st.lists(
        st.tuples(st.sampled_from([*range(0, 56), *range(88, 112), *range(152, 160)]), st.integers(0, 255)),
        max_size=6,
    ),
    size_bytes=st.integers(0, 2200),
    compress=st.booleans(),
    damage=st.none() | st.tuples(st.integers(0, 400), st.integers(0, 255)),
)
def test_no_header_crashes_the_reader(tmp_path, dtype, edits, size_bytes, compress, damage):
    content = bytearray(mrc_bytes(image(dtype=dtype)))
    for offset, value in edits:
        content[offset] = value
    content = bytearray(gzip.compress(content[:size_bytes], 1)) if compress else content[:size_bytes]
    if damage and damage[0] < len(content):
        content[damage[0]] = damage[1]
    path = tmp_path / "fuzz.mrc"
    path.write_bytes(content)
    reason = refusal_of(lambda: read(path))
    if reason is None:
        pixels = read(path)
        assert compress or pixels.nbytes + 1024 <= len(content)
    else:
        assert reason.strip()
        assert "\n" not in reason


def test_a_short_run_of_the_bench_that_damages_files():
    findings = fuzz(2000, seed=0)
    assert findings.cases == 2000
    assert findings.read > 200
    assert findings.refused.keys() == {"IncompleteMicrograph", "UnusableMicrograph"}
    assert (findings.crashes, findings.greedy) == ([], [])
    assert findings.slowest_s < 1.0


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=0, max_size=1100))
def test_no_bytes_crash_the_parser(content):
    reason = refusal_of(lambda: mrc.parse_header(content, len(content)))
    assert reason is None or len(reason) > 10
