"""What a request to start a session must fulfil before anything is done."""

from __future__ import annotations

import datetime
import errno
import math
import os
import tempfile
from pathlib import Path

from drpwatch.errors import MicrographError, ScanFailed, SessionError, StarError, UsageError
from drpwatch.formats import star
from drpwatch.micrograph import Fingerprint
from drpwatch.service.admission import check_pixel_size
from drpwatch.service.control import ALL, SessionRequest
from drpwatch.session.records import SessionSpec
from drpwatch.session.tables import AUTOPICK, PARTICLES
from drpwatch.watch.scan import NameFilter, scan, sight


def usable_spec(request: SessionRequest) -> tuple[SessionSpec, dict[str, Fingerprint]]:
    """Return what the session is about, or refuse what could not be watched, or not be written.

    Returns
    -------
    tuple
        The specification, and the files that are there now and are not to be picked.

    Raises
    ------
    UsageError
        A path, the glob, the prefix or the backfill cannot be used, or the micrographs that are there would
        all fail.
    """
    spec = SessionSpec(
        name=request.name,
        watch_root=_usable_path(request.watch_root, "watch directory"),
        out_dir=_usable_path(request.out_dir or default_out_dir(request), "output directory"),
        params=request.params,
        glob=request.glob,
        micrograph_prefix=request.micrograph_prefix,
    )
    _check_rows_can_be_written(spec)
    _check_glob(spec.glob)
    return spec, _check_watch_root(spec, _cutoff_ns(request.backfill))


def default_out_dir(request: SessionRequest) -> Path:
    """Return where outputs go if nobody says: `drpwatch/<session>` beside the watched directory."""
    return request.watch_root.parent / "drpwatch" / request.name


def _usable_path(path: Path, what: str) -> Path:
    """Return an absolute path without `..`, or refuse."""
    text = str(path)
    if not path.is_absolute():
        raise UsageError(f"{what} {text}: give an absolute path, the daemon has no current directory")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} {text!a}: the path is not valid UTF-8") from error
    if "\0" in text:
        raise UsageError(f"{what}: the path has a NUL character")
    return Path(os.path.normpath(path))


def _check_rows_can_be_written(spec: SessionSpec) -> None:
    """Refuse paths that no STAR file can carry."""
    for what, value in (
        ("output directory", str(spec.out_dir / "x")),
        ("micrograph prefix", spec.micrograph_prefix + "x"),
    ):
        try:
            star.quote(value)
        except StarError as error:
            raise UsageError(f"{what}: {error}") from error


def _check_glob(glob: str) -> None:
    """Refuse a glob that is malformed, or under which two files could have one picks file."""
    NameFilter(glob)
    ending = glob.rpartition("/")[2].rpartition(".")[2]
    if "." not in glob.rpartition("/")[2] or not ending.isalnum() or ending == "star":
        raise UsageError(f"glob {glob!r} must end in the file type, like '**/*.mrc'")


def _cutoff_ns(backfill: str) -> float:
    """Return the time of modification, in ns, before which files that are there already are not wanted."""
    if backfill == ALL:
        return -math.inf
    if backfill == "new-only":
        return math.inf
    word, _, text = backfill.partition("=")
    try:
        if word != "since":
            raise ValueError
        return datetime.datetime.fromisoformat(text).timestamp() * 1e9
    except (ValueError, OverflowError):
        raise UsageError(
            f"backfill {backfill!r}: give all, new-only, or since=TIME such as since=2026-11-24T08:00"
        ) from None


def _check_watch_root(spec: SessionSpec, cutoff_ns: float) -> dict[str, Fingerprint]:
    """Refuse a root that cannot be watched, or whose micrographs would all fail; wait for a missing one.

    Returns the files that are older than the cutoff. One that is being written now will change, and then it
    is found like any new one.
    """
    root = spec.watch_root
    try:
        if not root.exists():
            return {}
        if not root.is_dir():
            raise UsageError(f"watch directory {root} is not a directory")
        listing = scan(root, NameFilter(spec.glob))
    except (ScanFailed, OSError) as error:
        raise UsageError(f"watch directory cannot be used: {error}") from error
    names = sorted(listing.names)
    passed_over = {}
    for name in names if cutoff_ns > -math.inf else ():
        try:
            marks = sight(root, name).fingerprint
        except MicrographError:
            continue
        if marks.mtime_ns < cutoff_ns:
            passed_over[name] = marks
    check_pixel_size(root, [name for name in names if name not in passed_over], spec.params)
    return passed_over


def check_unused(directory: Path) -> None:
    """Refuse an output directory in which somebody else's picks are."""
    for name in (PARTICLES, AUTOPICK):
        if os.path.lexists(directory / name):
            raise SessionError(f"{directory} has a {name} already: give another output directory")


def check_writable(directory: Path) -> None:
    """Make the output directory and prove that files can be made in it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        # The unit makes everything read-only but what it names, whatever the disk itself allows.
        remedy = (
            "run `drpwatch deploy` with --writes for it"
            if error.errno == errno.EROFS
            else "let the daemon's user write there"
        )
        raise UsageError(
            f"output directory {directory} cannot be written ({why}): give another one, or {remedy}"
        ) from error
