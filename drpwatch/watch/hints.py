"""Hints: the kernel's word that something happened to a file, which brings the next look forward.

A hint is never a fact: events get lost, and on network file systems those of other machines never
come, so nothing depends on them. Owns the watchdog observer of one root and why there may be none.
"""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from drpwatch.watch.scan import NameFilter, filesystem_type

_SILENT = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|lustre|gpfs|beegfs|ceph|glusterfs|panfs|pvfs2|wekafs|afs|9p|virtiofs|fuse(\..*)?"
)
"""File systems whose other writers inotify never hears of; the API appears to work on them."""


def is_silent(file_system: str) -> bool:
    """Tell whether a type of file system is of that kind, because its files are on another machine."""
    return _SILENT.fullmatch(file_system) is not None


_EVENTS: list[type[FileSystemEvent]] = [
    # Not opens and reads: those are our own. Not each write: a file says when it is closed.
    FileCreatedEvent,
    FileClosedEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirMovedEvent,
]


class Hints:
    """Collects the names below one root at which something happened.

    Parameters
    ----------
    root, names
        Where to listen, and which names to pass on.
    wake
        Set whenever a name was added.
    enabled
        False for none at all.
    """

    def __init__(self, root: Path, names: NameFilter, wake: threading.Event, *, enabled: bool = True) -> None:
        self.root = root
        self.reason: str | None = "not started" if enabled else "switched off in the configuration"
        """Why there are no hints; None while there are."""
        self._names = names
        self._wake = wake
        self._enabled = enabled
        self._lock = threading.Lock()
        self._hinted: set[str] = set()
        self._observer: BaseObserver | None = None
        self._watched: tuple[int, int] | None = None  # device and inode of the root that is listened to

    def ensure(self) -> None:
        """Start listening, again if the root was replaced or mounted anew; cheap while all is well."""
        if not self._enabled:
            return
        try:
            status = os.stat(self.root)
        except OSError as error:
            self.stop()
            self.reason = f"{self.root}: {(error.strerror or 'cannot be looked at').lower()}"
            return
        identity = (status.st_dev, status.st_ino)
        if identity == self._watched and (self._observer is None or self._alive()):
            return
        self.stop()
        self._watched = identity
        kind = filesystem_type(self.root)
        if is_silent(kind):
            self.reason = f"{self.root} is on {kind}, where other machines' writes cause no events"
            return
        self._start()

    def take(self) -> set[str]:
        """Return the names hinted at since the last call."""
        with self._lock:
            hinted, self._hinted = self._hinted, set()
        return hinted

    def stop(self) -> None:
        """Stop listening; names not taken yet stay."""
        observer, self._observer, self._watched = self._observer, None, None
        if observer is not None:
            observer.stop()
            observer.join(timeout=5)
        if self._enabled:
            self.reason = "stopped"

    def _start(self) -> None:
        """Start an observer on the root as it is now."""
        _deliver_renames_soon()
        real_root = os.path.realpath(self.root)
        observer: BaseObserver | None = None
        try:
            observer = Observer()
            observer.schedule(_Handler(self, real_root), real_root, recursive=True, event_filter=_EVENTS)
            observer.start()
        except OSError as error:
            if observer is not None:
                observer.stop()
            self._watched = None  # a limit may be raised: try again at the next call
            self.reason = f"{self.root}: no events can be had ({error.strerror or error})"
            return
        self._observer, self.reason = observer, None

    def _alive(self) -> bool:
        """Say whether every thread of the observer still runs; a removed root ends its emitter."""
        observer = self._observer
        return observer is not None and observer.is_alive() and all(e.is_alive() for e in observer.emitters)

    def _add(self, name: str) -> None:
        """Take in one name; called in the observer's thread."""
        if self._names.wants(name):
            with self._lock:
                self._hinted.add(name)
            self._wake.set()


class _Handler(FileSystemEventHandler):
    """Turns events into names relative to the root."""

    def __init__(self, hints: Hints, real_root: str) -> None:
        self._hints = hints
        self._prefix = real_root.rstrip("/") + "/"

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Pass on where the file is now."""
        if event.is_directory:
            return  # watchdog reports each file that came with it
        path = os.fsdecode(event.dest_path or event.src_path)
        if path.startswith(self._prefix):
            self._hints._add(path.removeprefix(self._prefix))


def _deliver_renames_soon() -> None:
    """Shorten watchdog's delay of renames.

    It holds them for 0.5 s to pair their two halves, which come together; that would eat the whole
    time that a micrograph may take beyond its settle time (rsync ends with a rename).
    """
    try:
        from watchdog.observers.inotify_move_event_grouper import InotifyMoveEventGrouper
    except ImportError:  # no inotify on this system, or watchdog < 7.1: hints come a little later
        return
    InotifyMoveEventGrouper.delay = 0.02
