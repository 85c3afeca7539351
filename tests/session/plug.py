"""A disk whose plug is pulled: it keeps what was made durable, and of the rest as much as it likes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.session.faults import Faults, FaultyOs


class _File:
    """One file, whatever its name is by now."""

    def __init__(self, durable: bytes = b"") -> None:
        self.durable = durable


class PluggedOs(FaultyOs):
    """Stands for `os` in `session.disk`, and notes what is durable below a directory."""

    def __init__(self, faults: Faults, root: Path) -> None:
        super().__init__(faults)
        self._root = root
        self._files: dict[Path, _File] = {}  # by the name of now
        self._directories: set[Path] = set()
        self._durable_names: dict[Path, dict[Path, _File | None]] = {}  # None: a directory
        self._open: dict[int, Path] = {}
        self._take_stock()

    def _is_ours(self, path: Path) -> bool:
        return path == self._root or self._root in path.parents

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        descriptor = super().open(path, flags, mode)
        path = Path(path)
        self._open[descriptor] = path
        if self._is_ours(path) and flags & os.O_CREAT and path not in self._files:
            self._files[path] = _File()
        return descriptor

    def close(self, descriptor: int) -> None:
        del self._open[descriptor]
        super().close(descriptor)

    def fsync(self, descriptor: int) -> None:
        super().fsync(descriptor)
        path = self._open[descriptor]
        if path in self._files:
            self._files[path].durable = path.read_bytes()
        else:
            self._durable_names[path] = self._names(path)

    def replace(self, source: Path, target: Path) -> None:
        super().replace(source, target)
        if self._is_ours(Path(target)):
            self._files[Path(target)] = self._files.pop(Path(source))

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._files.pop(Path(path), None)

    def makedirs(self, path: Path, exist_ok: bool = False) -> None:
        super().makedirs(path, exist_ok)
        self._directories.add(Path(path))

    def _names(self, directory: Path) -> dict[Path, _File | None]:
        """What a directory holds now."""
        names: dict[Path, _File | None] = {
            path: file for path, file in self._files.items() if path.parent == directory
        }
        names.update(dict.fromkeys(path for path in self._directories if path.parent == directory))
        return names

    def pull(self, *, names_kept: bool, data_kept: bool) -> None:
        """Leave on the disk what a power cut leaves.

        Whatever was made durable is there. Names (files made, renamed and removed) and data that were not
        may have reached the disk all the same.
        """
        now = {id(file): path.read_bytes() for path, file in self._files.items()}
        contents: dict[Path, bytes] = {}
        directories: list[Path] = []
        left = [self._root.parent]
        while left:
            directory = left.pop()
            names = self._names(directory) if names_kept else self._durable_names.get(directory, {})
            for path, file in names.items():
                if file is None:
                    left.append(path)
                    directories.append(path)
                else:
                    contents[path] = now.get(id(file), file.durable) if data_kept else file.durable
        shutil.rmtree(self._root, ignore_errors=True)
        for directory in directories:
            directory.mkdir()
        for path, content in contents.items():
            path.write_bytes(content)
        self._take_stock()

    def _take_stock(self) -> None:
        """Take all that is there for durable, as it is after a start of the machine."""
        there = [path for path in (self._root, *self._root.rglob("*")) if path.exists()]
        self._directories = {path for path in there if path.is_dir()}
        self._files = {path: _File(path.read_bytes()) for path in there if path.is_file()}
        self._durable_names = {path: self._names(path) for path in (self._root.parent, *self._directories)}
