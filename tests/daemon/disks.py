"""Small file systems of our own, to be filled, made read-only and taken away."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """A tmpfs mounted at a directory."""

    def __init__(self, path: Path, size_kib: int) -> None:
        self.path = path
        self._filler = path / ".filler"
        path.mkdir(parents=True, exist_ok=True)
        self._mount("-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(path))

    @staticmethod
    def _mount(*arguments: str) -> None:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")

    def fill(self) -> None:
        """Leave no byte free."""
        with self._filler.open("ab", buffering=0) as filler:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while filler.write(b"x" * size):
                        pass
                except OSError:
                    continue

    def free(self) -> None:
        self._filler.unlink()

    def read_only(self, *, on: bool) -> None:
        self._mount("-o", f"remount,{'ro' if on else 'rw'}", str(self.path))

    def show_at(self, path: Path) -> None:
        """Let the disk be found at another place too."""
        path.mkdir(parents=True, exist_ok=True)
        self._mount("--bind", str(self.path), str(path))

    def hide(self, path: Path) -> None:
        """Undo `show_at`: an empty directory is left."""
        subprocess.run(["umount", "--lazy", str(path)], capture_output=True, check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], capture_output=True, check=False)


@contextmanager
def small_disk(path: Path, size_kib: int = 1024) -> Iterator[SmallDisk]:
    """Mount a small disk at a directory; skip the test where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    disk = SmallDisk(path, size_kib)
    try:
        yield disk
    finally:
        disk.unmount()
