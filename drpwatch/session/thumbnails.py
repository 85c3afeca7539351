"""The pictures of a session on disk, for people to look at: as many as are allowed, the newest ones.

    <out_dir>/thumbnails/small/<sub-directories>/<micrograph>.jpg       for lists
    <out_dir>/thumbnails/large/<sub-directories>/<micrograph>.jpg       the whole frame, to zoom in
    <out_dir>/thumbnails/spectrum/<sub-directories>/<micrograph>.jpg    its power spectrum

Nothing depends on them: they may be deleted at any time. They are whole or not there, but not made durable.
Links that somebody laid among them are not followed: what is read here is served to whoever asks.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from PIL import Image

from drpwatch.micrograph import Pictures
from drpwatch.session import disk

FOLDER = "thumbnails"
SMALL_PX = 320
_QUALITY = 80
_ENDING = ".jpg"


class View(StrEnum):
    """Which of a micrograph's pictures."""

    SMALL = "small"
    LARGE = "large"
    SPECTRUM = "spectrum"


class Thumbnails:
    """The pictures of one session.

    Reading is safe from any thread, writing is for one. Every method raises `OSError` as the system does.

    Parameters
    ----------
    most, most_bytes
        Micrographs, and bytes of all their pictures, that are kept; the oldest make room.
    """

    def __init__(self, out_dir: Path, most: int = 0, most_bytes: int = 0) -> None:
        self._out_dir = out_dir
        self._folder = out_dir / FOLDER
        self._most = most
        self._most_bytes = most_bytes
        self._kept: dict[str, int] | None = None  # bytes by name, the oldest first; None: not looked yet
        self._bytes = 0

    def has(self, name: str) -> bool:
        """Tell whether there are pictures of a micrograph."""
        return os.path.exists(self._path(name, View.SMALL))

    def read(self, name: str, view: View) -> bytes | None:
        """Return a picture as JPEG, None where there is none."""
        path = self._path(name, view)
        try:
            disk.check_no_links(path.parent, self._out_dir)
            with open(
                os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb"
            ) as file:
                return file.read() if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, name: str, pictures: Pictures) -> None:
        """Write the pictures of a micrograph, in place of those that it had, and make room for the next."""
        if self._kept is None:
            self._kept = self._look()
            self._bytes = sum(self._kept.values())
        encoded = encode(pictures)
        self._bytes -= self._kept.pop(name, 0)
        for view in (View.SPECTRUM, View.LARGE, View.SMALL):  # the small one says that all are there
            self._put(self._path(name, view), encoded[view])
        self._kept[name] = sum(map(len, encoded.values()))
        self._bytes += self._kept[name]
        while len(self._kept) > self._most or self._bytes > self._most_bytes:
            oldest = next(iter(self._kept))
            self._remove(oldest)
            self._bytes -= self._kept.pop(oldest)

    def _look(self) -> dict[str, int]:
        """Return what an earlier process left."""
        small = self._folder / View.SMALL
        found: list[tuple[float, str, int]] = []
        for path in small.rglob(f"*{_ENDING}"):
            with suppress(OSError):
                name = str(path.relative_to(small)).removesuffix(_ENDING)
                others = (self._path(name, view) for view in (View.LARGE, View.SPECTRUM))
                status = path.stat()
                found.append(
                    (status.st_mtime, name, status.st_size + sum(one.stat().st_size for one in others))
                )
        return {name: size_bytes for _, name, size_bytes in sorted(found)}

    def _put(self, path: Path, data: bytes) -> None:
        if not self._out_dir.is_dir():  # it may be a mount that is gone: not ours to make
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._out_dir))
        disk.check_no_links(path.parent, self._out_dir)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._folder / ".new"
        beside.unlink(missing_ok=True)
        with beside.open("xb") as file:
            file.write(data)
        os.replace(beside, path)

    def _remove(self, name: str) -> None:
        for view in View:
            path = self._path(name, view)
            disk.check_no_links(path.parent, self._out_dir)
            path.unlink(missing_ok=True)

    def _path(self, name: str, view: View) -> Path:
        return self._folder / view / f"{name}{_ENDING}"


def encode(pictures: Pictures) -> dict[View, bytes]:
    """Return all pictures of a micrograph as JPEG."""
    large = Image.fromarray(pictures.micrograph)
    small = large.copy()
    small.thumbnail((SMALL_PX, SMALL_PX))
    return {
        View.SMALL: _jpeg(small),
        View.LARGE: _jpeg(large),
        View.SPECTRUM: _jpeg(Image.fromarray(pictures.spectrum)),
    }


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
