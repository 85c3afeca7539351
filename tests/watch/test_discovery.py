"""Discovery of one session on a real directory, with a clock of our own."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from drpwatch.errors import ScanFailed
from drpwatch.formats.mrc import fingerprint
from drpwatch.micrograph import Sighting
from drpwatch.watch import discovery
from drpwatch.watch.discovery import Back, Discovery, Gone, LeftOut, Ready, Rejected, Waiting
from drpwatch.watch.probe import probe
from drpwatch.watch.scan import sight
from tests.watch.conftest import best_cpu_s, unprivileged

SETTLING = "settling: whole, and must stay unchanged for 5 s"


class Watcher:
    """A caller as it should be: it puts what is ready or rejected among the known names."""

    def __init__(self, root: Path, glob: str = "**/*.mrc", **options) -> None:
        self.opened: list[str] = []
        self.discovery = Discovery(root, glob, 5.0, 60.0, probe=self._probe, **options)
        self.known: dict = {}
        self.now_s = 1000.0

    def _probe(self, path: Path):
        self.opened.append(path.relative_to(self.discovery.root).as_posix())
        return probe(path)

    def look(self, after_s: float = 0.0, hinted: tuple[str, ...] = (), full: bool = True) -> list:
        self.now_s += after_s
        events = self.discovery.look(self.known, set(hinted), self.now_s, full=full)
        for event in events:
            if isinstance(event, Ready | Rejected):
                self.known[event.name] = event.fingerprint
        return events

    def next_s(self) -> float | None:
        return self.discovery.next_look_s(self.now_s)


@pytest.fixture
def watcher(root: Path) -> Watcher:
    return Watcher(root)


def kinds(events: list) -> dict[str, type]:
    return {event.name: type(event) for event in events}


def test_a_file_waits_then_is_ready_once(watcher: Watcher, put) -> None:
    path = put("x/a.mrc")
    assert watcher.look() == [Waiting("x/a.mrc", SETTLING, 1000)]
    assert watcher.discovery.waiting == {"x/a.mrc": SETTLING}
    assert watcher.look(3) == []
    [ready] = watcher.look(2)
    assert (type(ready), ready.name, ready.found_by) == (Ready, "x/a.mrc", "scan")
    assert ready.fingerprint == fingerprint(path.stat())
    assert watcher.discovery.waiting == {}
    assert watcher.look(100) == []


def test_a_growing_file_tells_each_step_and_is_never_early(watcher: Watcher, put, whole_bytes) -> None:
    reasons = []
    for size_bytes in (0, 0, 500, 1024, 1200, 1200, 1408):
        put("a.mrc", whole_bytes[:size_bytes])
        for event in watcher.look(10):
            assert isinstance(event, Waiting)
            assert event.since_s == 1010
            reasons.append(event.reason)
    assert len(reasons) == 5  # 0, 500, 1024, 1200 bytes, settling
    assert reasons[-1] == SETTLING
    assert kinds(watcher.look(5)) == {"a.mrc": Ready}


def test_neighbours_of_bad_entries_are_found(watcher: Watcher, root: Path, put, whole_bytes) -> None:
    put("good.mrc")
    put("empty.mrc", b"")
    put("header.mrc", whole_bytes[:1024])
    put("random.mrc", b"\x93jk#" * 700)
    (root / "dir.mrc").mkdir()
    os.mkfifo(root / "fifo.mrc")
    (root / "loop.mrc").symlink_to("loop.mrc")
    assert set(kinds(watcher.look()).values()) == {Waiting}
    assert kinds(watcher.look(5)) == {"good.mrc": Ready, "random.mrc": Rejected}
    assert kinds(watcher.look(60)) == {"empty.mrc": Rejected, "header.mrc": Rejected}
    assert set(watcher.discovery.waiting) == {"dir.mrc", "fifo.mrc", "loop.mrc"}
    assert watcher.look(9999) == []


def test_what_carried_a_name_without_being_a_file_may_become_one(watcher: Watcher, root: Path, put) -> None:
    os.mkfifo(root / "a.mrc")
    assert "FIFO" in watcher.look()[0].reason
    (root / "a.mrc").unlink()
    put("a.mrc")
    assert watcher.look(1) == [Waiting("a.mrc", SETTLING, 1000)]
    assert kinds(watcher.look(5)) == {"a.mrc": Ready}


def test_permission_given_later(watcher: Watcher, put) -> None:
    path = put("a.mrc")
    path.chmod(0)
    with unprivileged():
        assert "Permission denied" in watcher.look()[0].reason
        assert watcher.look(5000) == []
    path.chmod(0o644)
    with unprivileged():
        assert kinds(watcher.look(5)) == {"a.mrc": Waiting}
        assert kinds(watcher.look(5)) == {"a.mrc": Ready}


def test_rewritten_file_becomes_ready_again(watcher: Watcher, put, whole_bytes) -> None:
    put("a.mrc")
    watcher.look()
    watcher.look(5)
    put("a.mrc", whole_bytes[:1200])
    assert watcher.look(1) == [Waiting("a.mrc", "have 1200 of 1408 bytes", 1006)]
    path = put("a.mrc", whole_bytes[:-1] + b"\x01")
    assert kinds(watcher.look(1)) == {"a.mrc": Waiting}
    [ready] = watcher.look(5)
    assert ready.fingerprint == fingerprint(path.stat())
    assert watcher.look(100) == []


def test_rejected_file_is_taken_up_when_it_changes(watcher: Watcher, put, whole_bytes) -> None:
    put("a.mrc", whole_bytes[:1200])
    watcher.look()
    [rejected] = watcher.look(60)
    assert rejected.reason == "truncated: have 1200 of 1408 bytes, unchanged for 60 s"
    put("a.mrc")
    assert kinds(watcher.look(5)) == {"a.mrc": Waiting}
    assert kinds(watcher.look(5)) == {"a.mrc": Ready}


def test_finished_names_are_compared_in_turn_and_hinted_ones_at_once(root: Path, put) -> None:
    watcher = Watcher(root, rechecks_per_look=4)
    for index in range(10):
        put(f"{index}.mrc")
    watcher.look()
    watcher.look(5)
    assert len(watcher.known) == 10
    for index in range(10):
        os.utime(root / f"{index}.mrc", ns=(5, 5))
    assert kinds(watcher.look(1, hinted=("7.mrc",), full=False)) == {"7.mrc": Waiting}
    seen = [set(kinds(watcher.look())) for _ in range(3)]
    assert [len(names) for names in seen] == [4, 3, 2]
    assert set().union(*seen) == set(watcher.known) - {"7.mrc"}


def test_names_with_no_fingerprint_are_left_alone(watcher: Watcher, put) -> None:
    put("a.mrc")
    watcher.known["a.mrc"] = None
    assert watcher.look(0, hinted=("a.mrc",)) == []
    assert watcher.opened == []
    assert watcher.next_s() is None


def test_caller_can_take_a_waiting_name_into_its_hands(watcher: Watcher, put) -> None:
    put("a.mrc")
    watcher.look()
    watcher.known["a.mrc"] = None
    assert watcher.look(5) == []
    assert watcher.discovery.waiting == {}


def test_name_given_back_settles_again(watcher: Watcher, put) -> None:
    put("a.mrc")
    watcher.look()
    watcher.look(5)
    del watcher.known["a.mrc"]
    assert kinds(watcher.look(1)) == {"a.mrc": Waiting}
    assert kinds(watcher.look(5)) == {"a.mrc": Ready}


def test_deleted_files(watcher: Watcher, root: Path, put) -> None:
    put("finished.mrc")
    watcher.look()
    watcher.look(5)
    put("waiting.mrc")
    watcher.look(1)
    (root / "waiting.mrc").unlink()
    (root / "finished.mrc").unlink()
    assert watcher.look(1) == [Gone("waiting.mrc")]
    assert watcher.look(1) == [Gone("finished.mrc")]  # seen to be gone twice
    assert watcher.look(100) == []
    put("waiting.mrc")
    assert kinds(watcher.look(1)) == {"waiting.mrc": Waiting}


def test_finished_files_that_are_gone_are_told_once_and_when_they_are_back(
    watcher: Watcher, root: Path, put
) -> None:
    put("grid/a.mrc")
    put("b.mrc")
    watcher.look()
    watcher.look(5)
    (root / "grid").rename(root / ".grid")
    assert watcher.look(1) == []  # it may be that it is being replaced
    (root / ".grid").rename(root / "grid")
    assert watcher.look(1) == []
    (root / "grid").rename(root / ".grid")
    assert [watcher.look(1) for _ in range(3)] == [[], [Gone("grid/a.mrc")], []]
    (root / ".grid").rename(root / "grid")
    assert [watcher.look(1) for _ in range(2)] == [[Back("grid/a.mrc")], []]


def test_names_below_a_directory_that_cannot_be_read_are_not_gone(watcher: Watcher, root: Path, put) -> None:
    put("closed/a.mrc")
    put("b.mrc")
    watcher.look()
    watcher.look(5)
    (root / "closed").chmod(0)
    try:
        with unprivileged():
            assert [watcher.look(1) for _ in range(3)] == [[], [], []]
            assert len(watcher.discovery.problems) == 1
    finally:
        (root / "closed").chmod(0o755)
    assert watcher.look(1) == []


def test_nothing_is_concluded_from_a_directory_that_was_never_seen_to_hold_anything(
    root: Path, put, whole_bytes: bytes
) -> None:
    """Its file system may not be mounted yet, after a restart."""
    path = put("a.mrc")
    put("short.mrc", whole_bytes[:1200])
    before = Watcher(root)
    before.look()
    before.look(5)
    for name in ("a.mrc", "short.mrc"):
        (root / name).rename(root / f".{name}")
    watcher = Watcher(root)
    watcher.known = before.known
    watcher.discovery.recall(before.discovery.waiting)
    assert not any(isinstance(event, Gone) for _ in range(3) for event in watcher.look(1))
    assert set(watcher.discovery.waiting) == {"short.mrc"}
    assert watcher.discovery.problems == (
        f"{root}: the watch directory is empty, and was not before: if it is not mounted, mount it",
    )
    for name in ("a.mrc", "short.mrc"):
        (root / f".{name}").rename(root / name)
    assert kinds(watcher.look(1)) == {"short.mrc": Waiting}
    assert watcher.discovery.problems == ()
    path.unlink()
    assert [watcher.look(1) for _ in range(2)] == [[], [Gone("a.mrc")]]


def test_what_was_told_to_be_gone_in_an_earlier_life_is_not_told_again(
    watcher: Watcher, root: Path, put
) -> None:
    put("a.mrc")
    put("b.mrc")
    watcher.look()
    watcher.look(5)
    (root / "a.mrc").rename(root / ".a")
    watcher.discovery.recall({}, {"a.mrc"})
    assert [watcher.look(1) for _ in range(3)] == [[], [], []]
    (root / ".a").rename(root / "a.mrc")
    assert watcher.look(1) == [Back("a.mrc")]


def test_of_two_siblings_the_preferred_is_taken_whichever_comes_first(root: Path, put) -> None:
    watcher = Watcher(root, prefer="dose-weighted")
    put("a.mrc")
    put("b_DW.mrc")
    assert kinds(watcher.look()) == {"a.mrc": Waiting, "b_DW.mrc": Waiting}
    put("a_DW.mrc")
    put("b.mrc")
    assert watcher.look(1) == [LeftOut("a.mrc"), Waiting("a_DW.mrc", SETTLING, 1001)]
    assert kinds(watcher.look(5)) == {"a_DW.mrc": Ready, "b_DW.mrc": Ready}
    assert watcher.look(100) == []
    (root / "a_DW.mrc").unlink()  # then there is only one
    assert kinds(watcher.look(1)) == {"a.mrc": Waiting}


def test_a_preferred_sibling_that_comes_late_takes_the_place_of_what_was_picked(root: Path, put) -> None:
    watcher = Watcher(root, prefer="dose-weighted")
    put("a.mrc")
    watcher.look()
    assert kinds(watcher.look(5)) == {"a.mrc": Ready}
    put("a_DW.mrc")
    assert kinds(watcher.look(5)) == {"a.mrc": LeftOut, "a_DW.mrc": Waiting}
    del watcher.known["a.mrc"]
    assert kinds(watcher.look(5)) == {"a_DW.mrc": Ready}
    assert watcher.look(5) == []


def test_a_hinted_sibling_is_left_out_without_a_full_look(root: Path, put) -> None:
    watcher = Watcher(root, prefer="dose-weighted")
    put("a.mrc")
    put("a_DW.mrc")
    both = ("a.mrc", "a_DW.mrc")
    assert kinds(watcher.look(0, both, full=False)) == {"a.mrc": Waiting, "a_DW.mrc": Waiting}
    assert kinds(watcher.look(5, full=False)) == {"a.mrc": LeftOut, "a_DW.mrc": Ready}


def test_rsync_is_found_under_its_final_name_only(watcher: Watcher, root: Path, put, whole_bytes) -> None:
    put(".a.mrc.Xk29sT", whole_bytes[:1200])
    assert watcher.look() == []
    (root / ".a.mrc.Xk29sT").write_bytes(whole_bytes)
    os.utime(root / ".a.mrc.Xk29sT", (1, 1))  # rsync -t keeps the time of the source
    (root / ".a.mrc.Xk29sT").rename(root / "a.mrc")
    assert kinds(watcher.look(1)) == {"a.mrc": Waiting}
    assert kinds(watcher.look(5)) == {"a.mrc": Ready}


def test_times_in_the_future_do_not_matter(watcher: Watcher, put) -> None:
    os.utime(put("a.mrc"), (4e9, 4e9))
    watcher.look()
    assert kinds(watcher.look(5)) == {"a.mrc": Ready}


def test_root_that_is_missing_and_comes_back(root: Path, put) -> None:
    watcher = Watcher(root / "later")
    with pytest.raises(ScanFailed, match="waiting for it"):
        watcher.look()
    assert watcher.next_s() is None
    put("later/a.mrc")
    watcher.look(1)
    (root / "later").rename(root / "away")
    for _ in range(2):
        with pytest.raises(ScanFailed):
            watcher.look(30)
        assert watcher.next_s() is None  # a due name must not make the caller spin
    assert set(watcher.discovery.waiting) == {"a.mrc"}
    (root / "away").rename(root / "later")
    assert kinds(watcher.look(1)) == {"a.mrc": Ready}  # same file, seen 61 s apart


@dataclass(frozen=True)
class Mount:
    """A link to the root, which becomes one to an empty directory on another file system."""

    path: Path
    bare: Path

    def undo(self) -> None:
        self.path.unlink()
        self.path.symlink_to(self.bare)


@pytest.fixture
def mount(root: Path, tmp_path: Path) -> Iterator[Mount]:
    bare = Path("/dev/shm")
    if not bare.is_dir() or bare.stat().st_dev == root.stat().st_dev:
        pytest.skip("needs a second file system")
    link = tmp_path / "mount"
    link.symlink_to(root)
    with tempfile.TemporaryDirectory(dir=bare) as empty:
        yield Mount(link, Path(empty))


def test_unmounted_root_is_not_an_empty_one(mount: Mount, put) -> None:
    put("a.mrc")
    watcher = Watcher(mount.path)
    watcher.look()
    mount.undo()
    with pytest.raises(ScanFailed, match="seems to be unmounted"):
        watcher.look(5)
    assert set(watcher.discovery.waiting) == {"a.mrc"}


def test_unmounted_root_whose_names_came_by_hints_alone_is_not_an_empty_one(mount: Mount, put) -> None:
    watcher = Watcher(mount.path)
    assert watcher.look() == []
    for name in ("a.mrc", "b.mrc"):
        put(name)
    watcher.look(1, ("a.mrc",), full=False)
    assert kinds(watcher.look(5, full=False)) == {"a.mrc": Ready}
    watcher.look(0, ("b.mrc",), full=False)
    mount.undo()
    for _ in range(3):
        with pytest.raises(ScanFailed, match="seems to be unmounted"):
            watcher.look(5)
    assert set(watcher.discovery.waiting) == {"b.mrc"}


def test_directory_that_becomes_unreadable_keeps_its_names(watcher: Watcher, root: Path, put) -> None:
    put("closed/a.mrc", b"")
    watcher.look()
    (root / "closed").chmod(0)
    try:
        with unprivileged():
            events = watcher.look(1)
            assert watcher.discovery.problems == (f"{root}/closed: cannot be read (permission denied)",)
    finally:
        (root / "closed").chmod(0o755)
    assert [event.reason for event in events] == ["cannot be opened now: Permission denied"]
    watcher.look(1)
    assert watcher.discovery.problems == ()
    assert set(watcher.discovery.waiting) == {"closed/a.mrc"}


def test_hint_brings_a_look_forward_and_is_credited(watcher: Watcher, put) -> None:
    put("hinted.mrc")
    put("scanned.mrc")
    put("ignored_PS.mrc")
    hinted = ("hinted.mrc", "ignored_PS.mrc", "never/there.mrc")
    assert kinds(watcher.look(0, hinted, full=False)) == {"hinted.mrc": Waiting, "never/there.mrc": Waiting}
    assert [event.name for event in watcher.look(1)] == ["never/there.mrc", "scanned.mrc"]
    assert watcher.next_s() == 4
    [ready] = watcher.look(4, full=False)
    assert (ready.name, ready.found_by) == ("hinted.mrc", "hint")
    [ready] = watcher.look(1, full=False)
    assert (ready.name, ready.found_by) == ("scanned.mrc", "scan")
    assert watcher.next_s() is None


def test_settling_files_are_opened_only_when_due_or_hinted(watcher: Watcher, put, whole_bytes) -> None:
    put("a.mrc")
    put("b.mrc", whole_bytes[:1200])
    for after_s in (0, 1, 1, 1):
        watcher.look(after_s)
    assert watcher.opened.count("a.mrc") == 1
    assert watcher.opened.count("b.mrc") == 4
    watcher.look(0, ("a.mrc",), full=False)
    assert watcher.opened.count("a.mrc") == 2
    assert watcher.opened.count("b.mrc") == 4


def test_next_look_is_when_the_first_settle_time_ends(watcher: Watcher, put) -> None:
    assert watcher.next_s() is None
    put("a.mrc")
    watcher.look()
    put("b.mrc")
    watcher.look(2)
    assert watcher.next_s() == 3
    assert kinds(watcher.look(3, full=False)) == {"a.mrc": Ready}
    assert watcher.next_s() == 2
    watcher.now_s += 50
    assert watcher.next_s() == 0


def test_large_backlog_is_spread_over_looks_without_losing_any(root: Path, put) -> None:
    watcher = Watcher(root, probes_per_look=7)
    for index in range(20):
        put(f"{index:02d}.mrc")
    put("zz_short.mrc", b"")
    looks = 0
    ready: set[str] = set()
    while len(ready) < 20 and looks < 50:
        ready |= {event.name for event in watcher.look(watcher.next_s() or 0) if isinstance(event, Ready)}
        looks += 1
    assert ready == {f"{index:02d}.mrc" for index in range(20)}
    assert max(watcher.opened.count(name) for name in ready) == 2
    assert looks < 12


def test_names_that_never_settle_take_turns_within_the_limit(root: Path, put) -> None:
    watcher = Watcher(root, probes_per_look=3)
    for index in range(7):
        put(f"{index}.mrc", b"")
    for _ in range(3):
        watcher.look()
    watcher.opened.clear()
    for _ in range(7):
        watcher.look(0.1)
    assert min(watcher.opened.count(f"{index}.mrc") for index in range(7)) >= 2


def test_a_look_with_20000_finished_names_is_fast_and_asks_for_few_of_them(
    crowded_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = Watcher(crowded_root)
    paths = crowded_root.glob("*/*.mrc")
    watcher.known = {path.relative_to(crowded_root).as_posix(): fingerprint(path.stat()) for path in paths}
    assert len(watcher.known) == 20_000
    assert best_cpu_s(watcher.look) < 0.2
    assert watcher.opened == []
    asked: list[str] = []

    def counted(root: Path, name: str) -> Sighting:
        asked.append(name)
        return sight(root, name)

    monkeypatch.setattr(discovery, "sight", counted)
    for _ in range(40):
        watcher.look()
    assert len(asked) == 20_000  # each once, 500 in a look
    assert set(asked) == set(watcher.known)
