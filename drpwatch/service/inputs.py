"""What a user means by FILES and DIRECTORIES: one root, and the names of micrographs below it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from drpwatch.config import Watch
from drpwatch.errors import ScanFailed, UsageError
from drpwatch.service.control import DEFAULT_GLOB
from drpwatch.session.tables import picks_name
from drpwatch.watch.scan import NameFilter, scan


@dataclass(frozen=True, slots=True)
class Inputs:
    """The micrographs to pick: `names` are relative to `root`, "/" separated, in order, each once."""

    root: Path
    names: tuple[str, ...]
    problems: tuple[tuple[str, str], ...] = ()  # (what, why): could not be looked at, others go on


def find_inputs(paths: Sequence[Path], glob: str = DEFAULT_GLOB) -> Inputs:
    """Find the micrographs that files and directories stand for.

    A directory stands for what a session that watches it would find; a file for itself, whatever its name.
    The root is the one directory given, else what all directories and the parents of all files have in
    common.

    Raises
    ------
    UsageError
        A path does not exist, nothing is found, the glob makes no sense, or two files would have their
        picks in one file.
    """
    filter_ = NameFilter(glob, Watch().prefer)
    absolute = list(dict.fromkeys(Path(os.path.abspath(path.expanduser())) for path in paths))
    missing = [path for path in absolute if not os.path.lexists(path)]
    if missing:
        more = f" (nor {len(missing) - 1} others)" if len(missing) > 1 else ""
        raise UsageError(f"{missing[0]}: no such file or directory{more}")
    directories = [path for path in absolute if path.is_dir()]
    files = [path for path in absolute if path not in directories]
    root = _common_root(directories, files)
    names = [path.relative_to(root).as_posix() for path in files]
    problems: list[tuple[str, str]] = []
    for directory in directories:
        before = "" if directory == root else f"{directory.relative_to(root).as_posix()}/"
        try:
            listing = scan(directory, filter_)
        except ScanFailed as error:
            raise UsageError(f"{directory}: the directory cannot be read: {error.__cause__}") from error
        names += [before + name for name in listing.names]
        problems += [
            (before + inside, f"the directory cannot be read: {why}")
            for inside, why in listing.unreadable.items()
        ]
        problems += [(str(directory), sentence) for sentence in listing.refused]
    if not names and not problems:
        raise UsageError(f"nothing to pick: no file in {', '.join(map(str, directories))} matches {glob!r}")
    ordered = tuple(sorted(set(names)))
    check_picks_files(ordered)
    return Inputs(root, ordered, tuple(sorted(problems)))


def check_picks_files(names: Sequence[str]) -> None:
    """Refuse names of which two would have their picks in one file.

    Raises
    ------
    UsageError
        Two files differ only in their ending.
    """
    owner: dict[str, str] = {}
    for name in names:
        other = owner.setdefault(picks_name(name), name)
        if other != name:
            raise UsageError(
                f"{other} and {name} would both have their picks in {picks_name(name)}:"
                " pick them into different output directories"
            )


def _common_root(directories: Sequence[Path], files: Sequence[Path]) -> Path:
    """Return the directory that names are relative to."""
    return Path(os.path.commonpath([*directories, *(path.parent for path in files)]))
