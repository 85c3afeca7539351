"""Hints from the real kernel."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from watchdog.observers.inotify_c import InotifyFD

from drpwatch.watch import hints as hints_module
from drpwatch.watch.hints import Hints
from drpwatch.watch.scan import NameFilter
from tests.support import eventually

WITHIN_S = 5.0


@pytest.fixture
def wake() -> threading.Event:
    return threading.Event()


@pytest.fixture
def hints(root: Path, wake: threading.Event) -> Iterator[Hints]:
    hints = Hints(root, NameFilter("**/*.mrc"), wake)
    hints.ensure()
    if hints.reason is not None:
        pytest.skip(f"no events here: {hints.reason}")
    yield hints
    hints.stop()


def expect(hints: Hints, *names: str) -> set[str]:
    """Wait until all the names were hinted at; return all that came until then."""
    seen: set[str] = set()

    def take() -> bool:
        seen.update(hints.take())
        return seen >= set(names)

    eventually(take, WITHIN_S, f"hints at {names}")
    return seen


def test_each_way_in_which_a_file_arrives(
    hints: Hints, wake: threading.Event, root: Path, put, tmp_path
) -> None:
    put("x/y/a.mrc")
    expect(hints, "x/y/a.mrc")
    assert wake.is_set()
    put(".b.mrc.Xk29sT").rename(root / "b.mrc")
    expect(hints, "b.mrc")
    (tmp_path / "grid").mkdir()
    (tmp_path / "grid" / "c.mrc").touch()
    (tmp_path / "grid").rename(root / "grid")
    expect(hints, "grid/c.mrc")
    (root / "grid").rename(root / "grid2")
    expect(hints, "grid2/c.mrc")
    put("grid2/d.mrc")
    expect(hints, "grid2/d.mrc")


def test_only_micrographs_wake_and_reading_them_does_not(hints: Hints, wake: threading.Event, put) -> None:
    path = put("a.mrc")
    # A rename is one event, after which all earlier ones have come.
    put("first.part").rename(path.with_name("first.mrc"))
    assert expect(hints, "a.mrc", "first.mrc") == {"a.mrc", "first.mrc"}
    wake.clear()
    path.read_bytes()
    put("a_PS.mrc")
    put("movie.tif")
    put("last.part").rename(path.with_name("last.mrc"))
    assert expect(hints, "last.mrc") == {"last.mrc"}
    assert wake.is_set()


def test_closing_hints_again(hints: Hints, root: Path, whole_bytes) -> None:
    with open(root / "a.mrc", "wb") as file:
        file.write(whole_bytes[:100])
        expect(hints, "a.mrc")
        file.write(whole_bytes[100:])
    expect(hints, "a.mrc")


def test_root_that_comes_late_and_is_replaced(root: Path, wake: threading.Event) -> None:
    later = root / "later"
    hints = Hints(later, NameFilter("**/*.mrc"), wake)
    hints.ensure()
    assert hints.reason == f"{later}: no such file or directory"
    try:
        later.mkdir()
        hints.ensure()
        assert hints.reason is None
        (later / "a.mrc").touch()
        expect(hints, "a.mrc")
        later.rename(root / "old")
        hints.ensure()
        assert "no such file" in hints.reason
        later.mkdir()
        hints.ensure()
        assert hints.reason is None
        (later / "b.mrc").touch()
        expect(hints, "b.mrc")
    finally:
        hints.stop()
    assert hints.reason == "stopped"


def test_root_that_is_a_link(root: Path, tmp_path: Path, wake: threading.Event) -> None:
    (tmp_path / "link").symlink_to(root)
    hints = Hints(tmp_path / "link", NameFilter("**/*.mrc"), wake)
    hints.ensure()
    try:
        (root / "a.mrc").touch()
        expect(hints, "a.mrc")
    finally:
        hints.stop()


def test_ensure_is_cheap_while_all_is_well_and_mends_a_dead_observer(hints: Hints, put) -> None:
    observer = hints._observer
    hints.ensure()
    assert hints._observer is observer
    observer.stop()
    observer.join()
    hints.ensure()
    assert hints._observer is not observer
    put("a.mrc")
    expect(hints, "a.mrc")


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "fuse.sshfs", "fuse"]
)
def test_file_systems_without_events_give_none_and_say_so(root, wake, monkeypatch, kind) -> None:
    monkeypatch.setattr(hints_module, "filesystem_type", lambda _: kind)
    threads = threading.active_count()
    hints = Hints(root, NameFilter("**/*.mrc"), wake)
    hints.ensure()
    hints.ensure()
    assert hints.reason == f"{root} is on {kind}, where other machines' writes cause no events"
    assert hints.take() == set()
    assert threading.active_count() == threads
    hints.stop()


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "fuseblk", "overlay", ""])
def test_local_file_systems_have_events(kind: str) -> None:
    assert hints_module._SILENT.fullmatch(kind) is None


def test_switched_off(root: Path, wake: threading.Event) -> None:
    hints = Hints(root, NameFilter("**/*.mrc"), wake, enabled=False)
    hints.ensure()
    hints.stop()
    assert hints.reason == "switched off in the configuration"


def test_watch_limit_is_told_survived_and_tried_again(root, wake, monkeypatch, put) -> None:
    def limit(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "inotify watch limit reached")

    hints = Hints(root, NameFilter("**/*.mrc"), wake)
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(InotifyFD, "add_callback", limit)
        hints.ensure()
    assert hints.reason == f"{root}: no events can be had (inotify watch limit reached)"
    eventually(lambda: threading.active_count() == threads, WITHIN_S, "no thread left behind")
    assert len(os.listdir("/proc/self/fd")) == descriptors
    hints.ensure()
    assert hints.reason is None
    put("a.mrc")
    expect(hints, "a.mrc")
    hints.stop()


def test_stop_leaves_no_thread_and_no_descriptor(root: Path, wake: threading.Event) -> None:
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    hints = Hints(root, NameFilter("**/*.mrc"), wake)
    for _ in range(3):
        hints.ensure()
        hints.stop()
    eventually(lambda: threading.active_count() == threads, WITHIN_S, "no thread left behind")
    assert len(os.listdir("/proc/self/fd")) == descriptors
