"""The scan: one pass over a watch root, the truth about which micrographs there are.

Owns which names count as micrographs (`NameFilter`) and how a tree is walked. It opens no file
and asks nothing about files that it lists: whether one is whole is `settle`'s question.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from drpwatch.errors import IncompleteMicrograph, ScanFailed, UsageError
from drpwatch.formats.mrc import fingerprint
from drpwatch.micrograph import Sighting

MOUNTINFO = Path("/proc/self/mountinfo")

_MOST_REFUSED = 20  # names that are told one by one

_UNFINISHED_RULE = r"[.~]|(?i:.*(\.part|\.tmp|\.partial|\.filepart|\.crdownload|downloading)$)"
"""Copies under way (rsync's `.name.XXXXXX` is hidden), and what users and file servers hide (`.snapshot`)."""

_SIBLINGS = {
    "_noDW": r".*_noDW\.mrc(\.gz)?$",
    "_PS": r".*_PS\.mrc(\.gz)?$",
    "_ODD": r".*_ODD\.mrc(\.gz)?$",
    "_EVN": r".*_EVN\.mrc(\.gz)?$",
    "_gain": r"(?i:.*_gain.*\.mrc(\.gz)?$)",
    ".mrcs": r"(?i:.*\.mrcs(\.gz)?$)",
}
"""What motion correction leaves beside each micrograph, under the mark that asks for it in a glob."""

_WEIGHTED = ("_DW.mrc", "_DW.mrc.gz")
"""How MotionCor2 calls the dose-weighted one of two micrographs of the same movie."""

_UNFINISHED = re.compile(_UNFINISHED_RULE, re.S).match

Preference = Literal["dose-weighted", "plain", "both"]

_Matches = Callable[[str], re.Match[str] | None]


class NameFilter:
    """Which names below a watch root are micrographs.

    A name must match the glob and not be one of those that are never micrographs: hidden files,
    copies under way, and motion correction's by-products, unless the glob asks for them by name.

    Parameters
    ----------
    glob : str
        Matched against the whole name relative to the root: `*`, `?` and `[...]` stay inside one
        directory, `**/` stands for any number of directories, none included.
    prefer : {"dose-weighted", "plain", "both"}
        Which is a micrograph where `x.mrc` and `x_DW.mrc` lie beside each other.

    Raises
    ------
    UsageError
        The glob is empty, absolute or leads out of the root.
    """

    def __init__(self, glob: str, prefer: Preference = "both") -> None:
        self._prefer = prefer
        *directories, base = glob.split("/")
        if not base or not all(directories) or ".." in (*directories, base):
            raise UsageError(f"glob {glob!r} must be relative to the watch directory, like '**/*.mrc'")
        if base == "**":
            directories.append("**")
        self._directories = [None if part == "**" else _compile(part) for part in directories]
        self._wanted = _compile(base)
        unwanted = [rule for mark, rule in _SIBLINGS.items() if mark.lower() not in base.lower()]
        self._unwanted = re.compile("|".join([_UNFINISHED_RULE, *unwanted]), re.S).match

    def wants_inside(self, directory: str) -> bool:
        """Say whether files right in a directory (relative, "" for the root) can be wanted."""
        return _matches(self._directories, directory.split("/") if directory else [])

    def wants_base(self, base: str) -> bool:
        """Say whether a file of this base name is wanted, if its directory is."""
        return self._wanted(base) is not None and self._unwanted(base) is None

    def wants(self, name: str) -> bool:
        """Say whether a scan would list this name, if it exists."""
        directory, _, base = name.rpartition("/")
        return (
            self.wants_base(base)
            and self.wants_inside(directory)
            and _is_text(name)
            and all(walks_into(part) for part in directory.split("/") if part)
        )

    def left_out(self, names: Collection[str]) -> frozenset[str]:
        """Return those of the names beside which there is a preferred one."""
        if self._prefer == "both":
            return frozenset()
        both = [name for name in names if name.endswith(_WEIGHTED) and _plain(name) in names]
        return frozenset(both if self._prefer == "plain" else map(_plain, both))

    def preferred_to(self, name: str) -> str | None:
        """Return which name, if there is such a file, is a micrograph instead of this one."""
        weighted = name.endswith(_WEIGHTED)
        if self._prefer == "both" or weighted == (self._prefer == "dose-weighted"):
            return None
        stem, dot, ending = name.rpartition(".mrc")
        other = _plain(name) if weighted else f"{stem}_DW{dot}{ending}"
        return other if dot and self.wants(other) else None


def _plain(name: str) -> str:
    """Return the name beside that of a dose-weighted micrograph."""
    stem, _, ending = name.rpartition("_DW")
    return stem + ending


def walks_into(directory: str) -> bool:
    """Say whether a scan goes into a directory of this base name."""
    return _UNFINISHED(directory) is None


def _is_text(name: str) -> bool:
    """Say whether the journal and a STAR file can hold a name: whether its bytes are UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _compile(part: str) -> _Matches:
    """Compile one part of a glob, between slashes."""
    return re.compile(fnmatch.translate(part)).match


def _matches(parts: Sequence[_Matches | None], names: Sequence[str]) -> bool:
    """Match directory names against the parts of a glob; None stands for `**`."""
    if not parts:
        return not names
    if parts[0] is None:
        return any(_matches(parts[1:], names[skipped:]) for skipped in range(len(names) + 1))
    return bool(names) and parts[0](names[0]) is not None and _matches(parts[1:], names[1:])


@dataclass(frozen=True, slots=True)
class Listing:
    """What one pass found."""

    names: frozenset[str]  # "/" separated, relative to the root; whatever carries a micrograph's name
    unreadable: dict[str, str]  # sub-directory -> reason; its names are unknown, not gone
    refused: tuple[str, ...]  # sentences about names that cannot be recorded
    left_out: frozenset[str]  # are no micrographs here, for there is a preferred one beside each
    device: int  # st_dev of the root: it changes when a file system is mounted or unmounted

    def hides(self, name: str) -> bool:
        """Say whether the name lies in a directory that could not be read this time."""
        return any(name.startswith(f"{directory}/") for directory in self.unreadable)


def scan(root: Path, names: NameFilter) -> Listing:
    """List every name below a root that the filter wants, in one pass and without a stat of files.

    Directory links are followed after all else, each target once, so that loops end and a micrograph
    reached on two ways keeps the name that it has without a link.

    Raises
    ------
    ScanFailed
        The root itself is missing or cannot be read.
    """
    walk = _Walk(names)
    try:
        device = os.stat(root).st_dev
        real_root = os.path.realpath(root, strict=True)
        walk.directory("", real_root)
    except OSError as error:
        raise ScanFailed(
            f"{root}: the watch directory cannot be read ({_why(error)}); waiting for it"
        ) from error
    while walk.pending or walk.links:
        if walk.pending:
            relative, real = walk.pending.pop()
        else:
            relative, real = walk.next_link()
            if real in walk.visited or f"{real_root}/".startswith(real.rstrip("/") + "/"):
                continue
        try:
            walk.directory(relative, real)
        except FileNotFoundError:
            continue  # removed since its parent was read
        except OSError as error:
            walk.unreadable[relative.rstrip("/")] = _why(error)
    found = frozenset(walk.found)
    left_out = names.left_out(found)
    return Listing(found - left_out, walk.unreadable, walk.refused, left_out, device)


class _Walk:
    """The state of one pass; `relative` ends in a slash, or is empty for the root."""

    def __init__(self, names: NameFilter) -> None:
        self._names = names
        self.found: list[str] = []
        self.unreadable: dict[str, str] = {}
        self._refused: list[str] = []
        self.pending: list[tuple[str, str]] = []  # directories: name relative to the root, real path
        self.links: list[tuple[str, str]] = []
        self.visited: set[str] = set()

    @property
    def refused(self) -> tuple[str, ...]:
        """A sentence for each of the first refused names, and one for the others."""
        told = [f"{name!a}: the name is not valid UTF-8; rename it" for name in self._refused[:_MOST_REFUSED]]
        more = len(self._refused) - len(told)
        return (*told, f"{more} more names are not valid UTF-8; rename them") if more else tuple(told)

    def next_link(self) -> tuple[str, str]:
        """Take the first directory link in the order of names, with its real path."""
        self.links.sort(reverse=True)  # the order of a directory listing is not stable
        relative, path = self.links.pop()
        return relative, os.path.realpath(path)

    def directory(self, relative: str, real: str) -> None:
        """Read one directory."""
        if real in self.visited:
            return
        self.visited.add(real)
        wants_base, wants_inside = self._names.wants_base, self._names.wants_inside(relative.rstrip("/"))
        with os.scandir(real) as entries:
            for entry in entries:
                base = entry.name
                name = relative + base
                wanted = wants_inside and wants_base(base)
                if wanted:
                    self._note(name)
                if entry.is_symlink():
                    # A link that is wanted as a file is not followed here: a session of 20,000 linked
                    # micrographs would cost 20,000 stats a pass.
                    if not wanted and walks_into(base) and _is_text(base) and _is_directory(entry):
                        self.links.append((f"{name}/", entry.path))
                elif entry.is_dir() and walks_into(base):
                    if _is_text(base):
                        self.pending.append((f"{name}/", entry.path))
                    elif not wanted:
                        self._refused.append(name)

    def _note(self, name: str) -> None:
        """Keep a name, if the journal and a STAR file can."""
        (self.found if _is_text(name) else self._refused).append(name)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    """Say whether a link leads to a directory; a loop leads nowhere."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def sight(root: Path, name: str) -> Sighting:
    """Take one look at a name without opening it; links are followed.

    Raises
    ------
    IncompleteMicrograph
        It cannot be looked at now (gone, a loop of links, no permission); the text is the reason.
    """
    try:
        status = os.stat(root / name)
    except OSError as error:
        raise IncompleteMicrograph(f"cannot be looked at: {_why(error)}") from error
    return Sighting(name, fingerprint(status), stat.S_ISREG(status.st_mode))


def filesystem_type(path: Path, mountinfo: Path = MOUNTINFO) -> str:
    """Return the type of the file system that holds a path ("ext4", "nfs4", "fuse.sshfs"); "" if unknown."""
    try:
        lines = mountinfo.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    real = os.path.realpath(path)
    longest, kind = -1, ""
    for line in lines:
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        if not separator or len(fields) < 5:
            continue
        mount = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4])
        inside = real == mount or real.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= longest:  # of two mounts on one point the later hides the earlier
            longest, kind = len(mount), after.split(" ")[0]
    return kind


def _why(error: OSError) -> str:
    """Return the system's reason in lower case, as part of a sentence."""
    return (error.strerror or type(error).__name__).lower()
