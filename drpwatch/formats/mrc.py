"""The MRC file: its header, the size it must have, and reading its pixels into a buffer.

Owns: which bytes mean what, when a file is whole, and what makes a file unusable. Does not own: when
to look (`watch`), nor what the pixels mean (`pick`).

What can be wrong with a file, and what is raised:

1. shorter than its header, or a header of zeros     IncompleteMicrograph
2. shorter than its own header implies               IncompleteMicrograph
3. a last row of zeros below a first row with data   IncompleteMicrograph (pre-allocated, being filled)
4. not the file that was decided on                  ChangedWhileReading
5. TIFF, EER, HDF5, ... by magic number              UnusableMicrograph
6. a stack, a transform, 4-bit pixels, nonsense      UnusableMicrograph
7. not a regular file                                UnusableMicrograph
8. cannot be opened or read                          IncompleteMicrograph (the cause may pass)

A file that is longer than its header implies is read as it is. Compression is judged by content, not
by the name: a gzip file is whole when decompression reaches its end.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from drpwatch.errors import ChangedWhileReading, IncompleteMicrograph, UnusableMicrograph
from drpwatch.formats import gunzip
from drpwatch.micrograph import Fingerprint, ImageHeader

HEADER_BYTES = 1024

MAX_SIDE_PX = 65_535
"""No camera comes near it; and a side of 1 to 65535 is never one when its bytes are swapped, so that
it also decides the byte order, whatever the machine stamp says."""

MAX_EXTENDED_HEADER_BYTES = 1 << 26

# The fields that matter here, by their byte offset.
_HEADER = np.dtype(
    {
        "names": ["nx", "ny", "nz", "mode", "mx", "my", "cell_x", "cell_y", "nsymbt", "imod", "imod_flags"],
        "formats": ["i4", "i4", "i4", "i4", "i4", "i4", "f4", "f4", "i4", "i4", "i4"],
        "offsets": [0, 4, 8, 12, 28, 32, 40, 44, 92, 152, 156],
        "itemsize": HEADER_BYTES,
    }
)

_Order = Literal["<", ">"]
_ORDERS: tuple[_Order, _Order] = ("<", ">")
_DTYPES = {0: np.int8, 1: np.int16, 2: np.float32, 6: np.uint16, 12: np.float16}
_REFUSED_MODES = {
    3: "mode 3 (complex integers) is a transform, not a micrograph",
    4: "mode 4 (complex numbers) is a transform, not a micrograph",
    101: "mode 101 (4-bit pixels) is not supported: convert the file to mode 0, 1, 2, 6 or 12",
}
_IMOD_STAMP = 1_146_047_817  # "IMOD": the first bit of its flags says that mode 0 is signed

_MOVIE = "which is a movie in this workflow: give motion-corrected micrographs (MRC)"
_FOREIGN = {
    b"II*\0": f"a TIFF or EER file, {_MOVIE}",
    b"MM\0*": f"a TIFF file, {_MOVIE}",
    b"II+\0": f"a BigTIFF or EER file, {_MOVIE}",
    b"MM\0+": f"a BigTIFF file, {_MOVIE}",
    b"\x89HDF": "an HDF5 file, not MRC",
    b"\x89PNG": "a PNG image, not MRC",
    b"\xff\xd8\xff": "a JPEG image, not MRC",
    b"BZh": "compressed with bzip2: decompress it first",
}

_PIXEL_SIZE_RANGE_ANGSTROM = (0.05, 50.0)
_MOST_RATIO = 100  # of what is in a gzip file to its size; noise stays below 10
_MOST_COMPRESSED_BYTES = 1 << 31  # of the pixels in a gzip file: twice those of 16k x 16k float32


def parse_header(first_bytes: bytes, file_size_bytes: int | None = None) -> ImageHeader:
    """Return what the first 1024 bytes of a file say of its image.

    Parameters
    ----------
    first_bytes
        The start of the file, decompressed; more than 1024 bytes may be given.
    file_size_bytes
        Size of the whole file, where known: it only makes the reasons more exact.

    Raises
    ------
    IncompleteMicrograph
        The header is not written yet.
    UnusableMicrograph
        The bytes are no header of a single 2-D image of real pixels.
    """
    for magic, what in _FOREIGN.items():
        if first_bytes.startswith(magic):
            raise UnusableMicrograph(f"the file is {what}")
    if len(first_bytes) < HEADER_BYTES:
        have = len(first_bytes) if file_size_bytes is None else min(len(first_bytes), file_size_bytes)
        raise IncompleteMicrograph(f"header not written yet: have {have} of {HEADER_BYTES} bytes")
    if not any(first_bytes[:HEADER_BYTES]):
        raise IncompleteMicrograph(f"header not written yet: the first {HEADER_BYTES} bytes are all zero")
    order, fields = _plausible_fields(first_bytes[:HEADER_BYTES])
    if fields["nz"] != 1:
        what = f"a stack of {fields['nz']} images" if fields["nz"] > 1 else f"a file of {fields['nz']} images"
        raise UnusableMicrograph(f"the file is {what}, not one micrograph: give motion-corrected averages")
    if not 0 <= fields["nsymbt"] <= MAX_EXTENDED_HEADER_BYTES:
        raise UnusableMicrograph(f"not a usable MRC header: an extended header of {fields['nsymbt']} bytes")
    return ImageHeader(
        shape_yx=(fields["ny"], fields["nx"]),
        dtype=_pixel_dtype(fields, order),
        data_offset_bytes=HEADER_BYTES + fields["nsymbt"],
        pixel_size_yx_angstrom=_pixel_size_yx(fields),
    )


def read_header(source: Path | str | int) -> ImageHeader:
    """Return the header of a file, given by its path or by an open descriptor.

    A descriptor is read at its start and left open, at an undefined position.

    Raises
    ------
    MicrographError
        As `open_regular` and `parse_header`; or a gzip file is damaged or not whole.
    """
    if isinstance(source, int):
        return _read_header(source)
    descriptor = open_regular(source)
    try:
        return _read_header(descriptor)
    finally:
        os.close(descriptor)


def check_complete(header: ImageHeader, size_bytes: int) -> None:
    """Check that a file of this size holds all pixels that its header promises.

    More bytes than expected are accepted. The size of a compressed file says little: `read_pixels`
    finds out.

    Raises
    ------
    IncompleteMicrograph
        Bytes are missing.
    UnusableMicrograph
        A compressed file would unfold to more than any camera gives.
    """
    expected_bytes = header.expected_bytes
    if not header.compressed:
        if size_bytes < expected_bytes:
            raise IncompleteMicrograph(f"have {size_bytes} of {expected_bytes} bytes")
    elif expected_bytes > _MOST_COMPRESSED_BYTES:
        raise UnusableMicrograph(
            f"the compressed file would unfold to {expected_bytes} bytes: decompress it first"
        )
    elif size_bytes * _MOST_RATIO < expected_bytes:
        raise IncompleteMicrograph(
            f"the compressed file has {size_bytes} bytes, too few for {expected_bytes}"
        )


def read_pixels(
    path: Path | str,
    header: ImageHeader,
    fingerprint: Fingerprint | None = None,
    out: npt.NDArray[np.uint8] | None = None,
) -> npt.NDArray[Any]:
    """Read the pixels of a file that was found ready.

    Parameters
    ----------
    path, header
        The file and what `read_header` said of it.
    fingerprint
        The state in which it was found ready; None to take it as it is now.
    out
        (n,) contiguous buffer of at least `header.data_bytes`; the result is a view into it. None
        allocates, after the file was seen to be that large.

    Returns
    -------
    pixels
        (h, w) in the dtype of the file, native byte order.

    Raises
    ------
    ChangedWhileReading
        The file is not, or does not stay, the one of the fingerprint or header.
    IncompleteMicrograph
        Pixels are missing, or still zeros in a file that was allocated before it was filled.
    UnusableMicrograph
        It is no regular file, or a damaged gzip file.
    """
    descriptor = open_regular(path)
    try:
        with _problems_of_reading():
            before = os.fstat(descriptor)
            if fingerprint not in (None, _fingerprint(before)):
                raise ChangedWhileReading("the file changed after it was found complete")
            raw = _fill(descriptor, header, before.st_size, out)  # (data_bytes,)
            if _fingerprint(os.fstat(descriptor)) != _fingerprint(before):
                raise ChangedWhileReading("the file changed while it was read")
    finally:
        os.close(descriptor)
    pixels: npt.NDArray[Any] = raw.view(header.dtype).reshape(header.shape_yx)  # (h, w)
    if not header.dtype.isnative:
        pixels = pixels.byteswap(inplace=True).view(header.dtype.newbyteorder("="))
    _refuse_unfilled(pixels)
    return pixels


def fingerprint(status: os.stat_result) -> Fingerprint:
    """Return what identifies this state of a file."""
    return Fingerprint(size_bytes=status.st_size, mtime_ns=status.st_mtime_ns, inode=status.st_ino)


_fingerprint = fingerprint  # for `read_pixels`, whose argument has the name


def open_regular(path: Path | str) -> int:
    """Open a regular file for reading and return its descriptor; never wait for a FIFO's writer.

    Raises
    ------
    UnusableMicrograph
        The name is a directory, FIFO, socket, device or symbolic link loop.
    IncompleteMicrograph
        It cannot be opened now: gone, no permission, or the file system fails.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENODEV):
            raise UnusableMicrograph(f"not a regular file: {error.strerror}") from error
        raise IncompleteMicrograph(f"cannot be opened now: {error.strerror}") from error
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    kinds = {stat.S_IFDIR: "directory", stat.S_IFIFO: "FIFO", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
    raise UnusableMicrograph(f"not a regular file but a {kinds.get(stat.S_IFMT(mode), 'special file')}")


def write_mrc(path: Path | str, pixels: npt.NDArray[Any], pixel_size_angstrom: float) -> None:
    """Write (h, w) pixels of a dtype that MRC has; a name that ends in `.gz` is compressed."""
    import mrcfile  # only writing needs it

    compression = "gzip" if str(path).endswith(".gz") else None
    with mrcfile.new(path, compression=compression, overwrite=True) as file:
        file.set_data(pixels)
        file.voxel_size = pixel_size_angstrom


def _plausible_fields(header: bytes) -> tuple[_Order, dict[str, Any]]:
    """Return the byte order and the fields of a header, judged by its image sides."""
    for order in _ORDERS:
        record = np.frombuffer(header, dtype=_HEADER.newbyteorder(order))[0]
        if 1 <= record["nx"] <= MAX_SIDE_PX and 1 <= record["ny"] <= MAX_SIDE_PX:
            return order, {name: record[name].item() for name in _HEADER.names or ()}
    raise UnusableMicrograph("not an MRC file: its first bytes give no image size")


def _pixel_dtype(fields: dict[str, Any], order: _Order) -> np.dtype[Any]:
    """Return the dtype of the stored pixels."""
    mode = fields["mode"]
    if mode in _REFUSED_MODES:
        raise UnusableMicrograph(_REFUSED_MODES[mode])
    if mode not in _DTYPES:
        raise UnusableMicrograph(f"not a usable MRC header: unknown pixel mode {mode}")
    unsigned = fields["imod"] == _IMOD_STAMP and not fields["imod_flags"] & 1
    if mode == 0 and unsigned:
        return np.dtype(np.uint8)
    return np.dtype(_DTYPES[mode]).newbyteorder(order)


def _pixel_size_yx(fields: dict[str, Any]) -> tuple[float, float] | None:
    """Return angstrom per pixel, or None where the header does not really say.

    Exactly 1.0 on both axes is what many programs write when they do not know.
    """
    if fields["mx"] <= 0 or fields["my"] <= 0:
        return None
    size_yx = fields["cell_y"] / fields["my"], fields["cell_x"] / fields["mx"]
    low, high = _PIXEL_SIZE_RANGE_ANGSTROM
    if size_yx == (1.0, 1.0) or not all(low <= size <= high for size in size_yx):  # NaN fails too
        return None
    return size_yx


@contextmanager
def _problems_of_reading() -> Iterator[None]:
    """Turn what can go wrong while reading into what becomes of the micrograph."""
    try:
        yield
    except EOFError as error:
        raise IncompleteMicrograph("the compressed file is not whole") from error
    except zlib.error as error:
        raise UnusableMicrograph(f"damaged gzip file: {error}") from error
    except OSError as error:
        raise IncompleteMicrograph(f"cannot be read now: {error.strerror or error}") from error


def _is_compressed(descriptor: int) -> bool:
    """Whether the file is gzip, which no MRC header can look like."""
    return os.pread(descriptor, len(gunzip.MAGIC), 0) == gunzip.MAGIC


def _stream(descriptor: int) -> io.RawIOBase:
    """Return the file from its start, decompressed; closing it leaves the descriptor open."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    raw = io.FileIO(descriptor, closefd=False)
    return gunzip.Gunzip(raw) if _is_compressed(descriptor) else raw


def _read_into(stream: io.RawIOBase, view: memoryview) -> int:
    """Fill a buffer from a stream, and return how much of it: less at the end of the file."""
    filled = 0
    while filled < len(view) and (count := stream.readinto(view[filled:])):
        filled += count
    return filled


def _skip(stream: io.RawIOBase, count_bytes: int) -> None:
    """Pass over the next bytes of a stream."""
    if stream.seekable():
        stream.seek(count_bytes, os.SEEK_CUR)
        return
    scratch = memoryview(bytearray(1 << 16))
    while count_bytes and (count := stream.readinto(scratch[: min(count_bytes, len(scratch))])):
        count_bytes -= count


def _read_header(descriptor: int) -> ImageHeader:
    """Read and parse the header, looking into a gzip file."""
    with _problems_of_reading(), _stream(descriptor) as stream:
        start = bytearray(HEADER_BYTES)
        header = parse_header(bytes(start[: _read_into(stream, memoryview(start))]))
        return replace(header, compressed=_is_compressed(descriptor))


def _fill(
    descriptor: int, header: ImageHeader, size_bytes: int, out: npt.NDArray[np.uint8] | None
) -> npt.NDArray[np.uint8]:
    """Return (data_bytes,) the stored bytes of the pixels."""
    # Nothing is allocated on the word of a header alone.
    check_complete(replace(header, compressed=_is_compressed(descriptor)), size_bytes)
    if out is None:
        out = np.empty(header.data_bytes, dtype=np.uint8)
    elif out.dtype != np.uint8 or out.ndim != 1 or out.size < header.data_bytes:
        raise ValueError(f"the buffer must be (n >= {header.data_bytes},) uint8, not {out.shape} {out.dtype}")
    raw = out[: header.data_bytes]
    with _stream(descriptor) as stream:
        _skip(stream, header.data_offset_bytes)
        filled = _read_into(stream, raw.data)
        if filled < len(raw):
            have = header.data_offset_bytes + filled
            raise IncompleteMicrograph(f"have {have} of {header.expected_bytes} bytes")
        stream.read(1)  # at the end of a gzip file this verifies its checksum
    return raw


def _refuse_unfilled(pixels: npt.NDArray[Any]) -> None:
    """Refuse an image whose end was allocated but never written.

    An image of zeros throughout is blank, which is not for this module to judge; zeros in the first
    row as well are a padded border.
    """
    if not pixels[-1].any() and pixels[0].any():
        raise IncompleteMicrograph("the last row is all zeros: the file is still being filled")
