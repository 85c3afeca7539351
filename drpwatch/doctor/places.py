"""Directories that drpwatch reads and writes: there, open to it, on which file system, with room."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from drpwatch.doctor.check import Check, fail, gigabytes, ok, warn
from drpwatch.errors import JournalError, OutputError
from drpwatch.session import disk, schema
from drpwatch.watch.hints import is_silent
from drpwatch.watch.scan import filesystem_type

PATIENCE_S = 10.0
STATE_ROOM_BYTES = 2e9
OUTPUT_ROOM_BYTES = 20e9
"""The same as in the alert rules."""


def check_state(directory: Path) -> Iterator[Check]:
    """Check where the journal is."""
    name = "state directory"
    kind = filesystem_type(directory)
    if is_silent(kind):
        yield fail(
            name,
            f"{directory} is on a network file system ({kind})",
            "set daemon.state_dir to a local disk: SQLite's journal does not work on this one",
        )
        return
    if not os.path.isdir(directory):
        yield _missing_state(name, directory)
        return
    problem = _cannot_write(directory)
    if problem is not None:
        yield fail(
            name,
            f"{directory}: {problem}",
            "it must belong to the daemon's user; if that is another one: runuser -u drpwatch -- drpwatch doctor",
        )
        return
    yield _room(name, directory, kind, STATE_ROOM_BYTES, "picking pauses when it is full")
    yield _journal(directory / "journal.db")


def _missing_state(name: str, directory: Path) -> Check:
    above = next(parent for parent in directory.parents if os.path.exists(parent))
    if os.access(above, os.W_OK | os.X_OK):
        return ok(name, f"{directory} will be made at the first start")
    return warn(
        name,
        f"{directory} is not there, and {above} is closed to this user",
        "as a service, systemd makes it; else make it, and give it to the daemon's user",
    )


def _journal(path: Path) -> Check:
    try:
        schema.check(path)
    except (JournalError, OutputError) as error:
        return fail(
            "journal",
            str(error),
            "README tells what to do about each, under 'When the journal is damaged or lost'",
        )
    return ok("journal", f"{path} is whole" if path.exists() else f"{path} will be made at the first start")


def check_watch_root(root: Path) -> Check:
    """Check a directory that is, or is to be, watched."""
    return _answered("watch root", root, _watch_root)


def check_output(directory: Path) -> Check:
    """Check a directory that sessions write to, or that is to be made."""
    return _answered("output", directory, _output)


def _answered(name: str, path: Path, look: Callable[[str, Path], Check]) -> Check:
    """Return what a look finds, or that there was none: a dead file server holds whoever asks it."""
    found: list[Check] = []
    thread = threading.Thread(target=lambda: found.append(look(name, path)), daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    if found:
        return found[0]
    return fail(
        name,
        f"{path}: its file system does not answer within {PATIENCE_S:g} s",
        "look after the file server or the mount; drpwatch waits for it, and nothing is lost meanwhile",
    )


def _watch_root(name: str, root: Path) -> Check:
    try:
        with os.scandir(root) as entries:
            next(entries, None)
    except OSError as error:
        return fail(
            name,
            f"{root}: {(error.strerror or '').lower()}",
            "mount it, or let the daemon's user read it; it is waited for, and nothing is lost meanwhile",
        )
    kind = filesystem_type(root)
    if is_silent(kind):
        return ok(name, f"{root} on {kind}, readable; new files are found by scans alone")
    return ok(name, f"{root} on {kind or 'an unknown file system'}, readable")


def _output(name: str, directory: Path) -> Check:
    there = directory
    while not os.path.exists(there):  # which is also False for what is closed to us
        there = there.parent
    problem = _cannot_write(there)
    if problem is not None:
        return fail(
            name,
            f"{directory}: {problem}",
            "let the daemon's user write there; as a service, also name it with `drpwatch deploy --writes`",
        )
    return _room(name, there, filesystem_type(there), OUTPUT_ROOM_BYTES, "picking pauses when it is full")


def _cannot_write(directory: Path) -> str | None:
    """Return why files cannot be made in a directory; None if they can."""
    if not os.path.isdir(directory):
        return "not a directory"
    try:
        if os.statvfs(directory).f_flag & os.ST_RDONLY:
            return "mounted read-only"
    except OSError as error:
        return (error.strerror or type(error).__name__).lower()
    return None if os.access(directory, os.W_OK | os.X_OK) else "permission denied"


def _room(name: str, directory: Path, kind: str, least_bytes: float, what_then: str) -> Check:
    free = disk.free_bytes(directory)
    found = f"{directory} on {kind or 'an unknown file system'}, {gigabytes(free)} free"
    if free >= least_bytes:
        return ok(name, found)
    return warn(name, found, f"make room: {what_then}")
