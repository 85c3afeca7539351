"""Writing files that survive: appending, replacing and cutting, each made durable before it returns.

Every function raises `OSError` as the system does; `session.outputs` turns it into a sentence. Tests
replace `os` in this module to fail at each of its calls.

No file is written through a symbolic link: others may be allowed to lay links into the directory, but not to
write where they lead.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path


def size_bytes(path: Path) -> int | None:
    """Return the size of a file, None where there is none, or a link in its place."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


Identity = tuple[int, int]
"""What tells a file from another of the same name: file system and inode."""


def identity(path: Path) -> Identity | None:
    """Return which file lies there, None where there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def read(path: Path, offset_bytes: int, size_bytes: int) -> bytes:
    """Return a part of a file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, size_bytes, offset_bytes)
    finally:
        os.close(descriptor)


def free_bytes(directory: Path) -> int:
    """Return how much an ordinary user can still write to the file system of a directory."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def device(directory: Path) -> int:
    """Return the file system that holds a directory, or would if it were made."""
    while True:
        try:
            return os.stat(directory).st_dev
        except FileNotFoundError:
            directory = directory.parent


def append(path: Path, data: bytes) -> None:
    """Append to a file in one write, of which a reader sees all, or whole pages: see `formats.star.in_pages`.

    After a failure the file may have a part of it: the caller knows the length to cut it to.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.write(descriptor, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # how a full disk begins
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cut(path: Path, length_bytes: int) -> None:
    """Cut a file to a length."""
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.ftruncate(descriptor, length_bytes)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_beside(path: Path, chunks: Iterable[bytes]) -> int:
    """Write the next version of a file beside it and return its length; `put_in_place` makes it the file."""
    beside = _beside(path)
    length = 0
    descriptor = _create(beside)
    try:
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                written = os.write(descriptor, view)
                view = view[written:]
                length += written
        os.fsync(descriptor)
    except OSError:
        os.unlink(beside)  # half a file is of no use to anybody and may be what fills the disk
        raise
    finally:
        os.close(descriptor)
    return length


def put_in_place(path: Path) -> None:
    """Let what `write_beside` left become the file, at once for every reader."""
    move(_beside(path), path)


def move(source: Path, target: Path) -> None:
    """Give a durable file another name in its directory, in place of what has that name."""
    os.replace(source, target)
    sync_directory(target.parent)


def replace(path: Path, data: bytes) -> None:
    """Write a whole small file, at once for every reader."""
    write_beside(path, [data])
    put_in_place(path)


def remove(path: Path) -> None:
    """Remove a file; that there is none, and can be none, is fine."""
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return
        raise
    sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """Make a directory and its parents, durably."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        os.makedirs(directory, exist_ok=True)
        sync_directory(directory.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_no_links(directory: Path, root: Path) -> None:
    """Refuse a directory below a root of ours that is reached through a symbolic link."""
    while directory != root:
        if os.path.islink(directory):
            raise OSError(errno.ELOOP, "it is a symbolic link; remove it", str(directory))
        directory = directory.parent


def _create(path: Path) -> int:
    """Open a new file, in place of what was left there."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o666)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, flags, 0o666)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")
