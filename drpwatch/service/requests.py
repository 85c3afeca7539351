"""What a request to start a session must fulfil before anything is done."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from drpwatch.errors import ScanFailed, StarError, UsageError
from drpwatch.formats import star
from drpwatch.service.admission import check_pixel_size
from drpwatch.service.control import SessionRequest
from drpwatch.session.records import SessionSpec
from drpwatch.watch.scan import NameFilter, scan


def usable_spec(request: SessionRequest) -> SessionSpec:
    """Return what the session is about, or refuse what could not be watched, or not be written.

    Raises
    ------
    UsageError
        A path, the glob or the prefix cannot be used, or the micrographs that are there would all fail.
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
    _check_watch_root(spec)
    return spec


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


def _check_watch_root(spec: SessionSpec) -> None:
    """Refuse a root that cannot be watched, or whose micrographs would all fail; wait for a missing one."""
    root = spec.watch_root
    try:
        if not root.exists():
            return
        if not root.is_dir():
            raise UsageError(f"watch directory {root} is not a directory")
        listing = scan(root, NameFilter(spec.glob))
    except (ScanFailed, OSError) as error:
        raise UsageError(f"watch directory cannot be used: {error}") from error
    check_pixel_size(root, sorted(listing.names), spec.params)


def check_writable(directory: Path) -> None:
    """Make the output directory and prove that files can be made in it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise UsageError(
            f"output directory {directory} cannot be written ({why}): give another one, or let the daemon's"
            " user write there"
        ) from error
