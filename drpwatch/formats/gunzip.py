"""A gzip file as a stream of what is in it.

Not Python's `gzip.GzipFile`: that reads the name in a file's header byte by byte, so that a file which is all
name keeps it busy for 0.4 s a megabyte.
"""

from __future__ import annotations

import io
import zlib

MAGIC = b"\x1f\x8b\x08"

_CHUNK_BYTES = 1 << 18
_MOST_AT_ONCE_BYTES = 1 << 22
_WITH_GZIP_HEADER = 31  # zlib's word for it; the checksum at the end is checked as well


class Gunzip(io.RawIOBase):
    """Reads the members of a gzip file one after the other; zeros behind them are padding.

    Closing it leaves the file open. Reading raises `EOFError` where the file ends too early, and `zlib.error`
    where it is damaged.
    """

    def __init__(self, compressed: io.RawIOBase) -> None:
        self._compressed = compressed
        self._inflate = zlib.decompressobj(_WITH_GZIP_HEADER)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill a buffer, or the first part of it, and return how many bytes; 0 at the end."""
        while True:
            if self._inflate.eof:
                data = self._next_member()
                if not data:
                    return 0
                self._inflate = zlib.decompressobj(_WITH_GZIP_HEADER)
            else:
                data = self._inflate.unconsumed_tail or self._compressed.read(_CHUNK_BYTES) or b""
                if not data:
                    raise EOFError("the file ends within a gzip member")
            found = self._inflate.decompress(data, min(len(buffer), _MOST_AT_ONCE_BYTES))
            if found:
                buffer[: len(found)] = found
                return len(found)

    def _next_member(self) -> bytes:
        """Return the first bytes of what follows a member, without padding; none at the end."""
        data = self._inflate.unused_data.lstrip(b"\0")
        while not data:
            chunk = self._compressed.read(_CHUNK_BYTES)
            if not chunk:
                return b""
            data = chunk.lstrip(b"\0")
        return data
