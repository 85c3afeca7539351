"""One watched session, look by look, with a clock of our own and nothing behind the journal."""

import gzip
import os
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import structlog

from drpwatch.config import Watch
from drpwatch.micrograph import PickParams
from drpwatch.service.clock import Clock
from drpwatch.service.metrics import Metrics
from drpwatch.service.publish import Publisher
from drpwatch.service.watching import DRAIN_GRACE_S, SessionWatch
from drpwatch.session.journal import Journal
from drpwatch.session.lifecycle import SessionState, Verb
from drpwatch.session.records import MicrographRecord, MicrographState, SessionSpec
from tests.daemon.rig import write_image

SETTLE_S = 5.0
INCOMPLETE_AFTER_S = 600.0


@dataclass
class Watcher:
    """The watch of one session, whose time passes when the test says so."""

    root: Path
    now_s: float = 1000.0
    journal: Journal = field(init=False)
    watch: SessionWatch = field(init=False)

    def __post_init__(self) -> None:
        self.mics = self.root / "mics"
        self.mics.mkdir()
        self.journal = Journal(self.root / "journal.db")
        self.journal.add_session(SessionSpec("s1", self.mics, self.root / "out", PickParams(150.0)), 0.0)
        self.journal.advance("s1", Verb.START, 0.0)
        self.begin()

    def begin(self) -> None:
        """Begin to watch, as after a restart of the daemon."""
        clock = Clock(lambda: self.now_s, lambda: self.now_s)
        config = Watch(
            poll_interval_s=1, settle_s=SETTLE_S, incomplete_after_s=INCOMPLETE_AFTER_S, hints=False
        )
        wake, publisher = threading.Event(), Publisher(Metrics(), clock)
        self.watch = SessionWatch(
            self.journal.session("s1"), self.journal, config, publisher, clock, wake, after_restart=False
        )

    @property
    def state(self) -> SessionState:
        return self.journal.session("s1").state

    def look(self, after_s: float = 1.0) -> int:
        self.now_s += after_s
        return self.watch.look(self.journal.session("s1"))

    def looks(self, for_s: float) -> None:
        for _ in range(int(for_s)):
            if self.state is not SessionState.COMPLETED:
                self.look()

    def settle(self) -> None:
        self.look()
        self.look(SETTLE_S)

    def micrograph(self, name: str) -> MicrographRecord:
        (found,) = (one for one in self.journal.micrographs(1, list(MicrographState)) if one.name == name)
        return found

    def put_back(self, reason: str) -> None:
        """Do what the scanner does when a loader could not read the next micrograph."""
        ready = self.journal.next_ready(self.journal.session("s1"), frozenset(), 0)
        assert ready is not None
        self.journal.put_back(ready.micrograph_id, reason)
        self.watch.settle_again(ready, reason)


@pytest.fixture
def watcher(tmp_path: Path):
    made = Watcher(tmp_path)
    yield made
    made.watch.close()
    made.journal.close()


def truncated(path: Path) -> None:
    write_image(path, 1)
    os.truncate(path, 5000)


def truncated_gzip(path: Path) -> None:
    """A compressed file that looks whole until it is read."""
    write_image(path, 1)
    content = gzip.compress(path.read_bytes())
    path.write_bytes(content[: len(content) // 2])


def test_a_session_paused_while_its_first_file_was_looked_at(watcher: Watcher) -> None:
    write_image(watcher.mics / "a.mrc", 1)
    before = watcher.journal.session("s1")
    watcher.journal.advance("s1", Verb.PAUSE, watcher.now_s)
    watcher.watch.look(before)
    assert watcher.micrograph("a.mrc").state == "waiting"
    assert watcher.state == "paused"


def test_what_was_rewritten_is_told_of_each(watcher: Watcher) -> None:
    write_image(watcher.mics / "b.mrc", 1)
    watcher.settle()
    write_image(watcher.mics / "b.mrc", 2)
    write_image(watcher.mics / "a.mrc", 3)
    with structlog.testing.capture_logs() as events:
        watcher.settle()
    told = {one["micrograph"]: one["rewritten"] for one in events if one["event"] == "micrograph_ready"}
    assert told == {"a.mrc": False, "b.mrc": True}


def test_a_file_that_went_while_nobody_looked_is_gone(watcher: Watcher) -> None:
    truncated(watcher.mics / "a.mrc")
    truncated(watcher.mics / "b.mrc")
    watcher.look()
    (watcher.mics / "a.mrc").unlink()
    watcher.begin()
    watcher.look()
    assert watcher.micrograph("a.mrc").reason == "gone: it was there, and is not any more"
    assert watcher.micrograph("b.mrc").reason == "have 5000 of 13312 bytes"
    write_image(watcher.mics / "a.mrc", 1)
    watcher.settle()
    assert watcher.micrograph("a.mrc").state == "ready"


def test_what_looks_whole_and_cannot_be_read_is_given_up_in_the_end(watcher: Watcher) -> None:
    truncated_gzip(watcher.mics / "a.mrc")
    reads = 0
    while watcher.now_s < 1000 + INCOMPLETE_AFTER_S + 3 * SETTLE_S:
        if watcher.look():
            reads += 1
            watcher.put_back("the compressed file is not whole")
    assert reads > 10
    record = watcher.micrograph("a.mrc")
    assert (record.state, record.generation) == ("failed", 1)
    assert record.reason is not None
    assert record.reason.startswith("the compressed file is not whole, unchanged for 60")
    write_image(watcher.mics / "a.mrc", 1)
    watcher.settle()
    assert watcher.micrograph("a.mrc").state == "ready"


def test_a_stopped_session_does_not_wait_for_what_cannot_be_read(watcher: Watcher) -> None:
    truncated_gzip(watcher.mics / "a.mrc")
    watcher.settle()
    watcher.journal.advance("s1", Verb.STOP, watcher.now_s)
    for _ in range(100):
        if watcher.micrograph("a.mrc").state == "ready":
            watcher.put_back("the compressed file is not whole")
        if watcher.state is SessionState.DRAINING:
            watcher.look()
    assert watcher.state == "completed"
    assert watcher.micrograph("a.mrc").state == "failed"


def test_a_stopped_session_gives_up_on_a_file_once(watcher: Watcher) -> None:
    """Though it goes on for long, as another micrograph is still to be picked."""
    write_image(watcher.mics / "good.mrc", 1)
    watcher.settle()
    truncated(watcher.mics / "a.mrc")
    watcher.journal.advance("s1", Verb.STOP, watcher.now_s)
    watcher.looks(10 * (SETTLE_S + DRAIN_GRACE_S))
    record = watcher.micrograph("a.mrc")
    assert (record.state, record.generation) == ("failed", 1)
    assert watcher.state == "draining"


def test_a_ready_micrograph_that_changes_in_a_stopped_session_is_not_left_out(watcher: Watcher) -> None:
    write_image(watcher.mics / "a.mrc", 1)
    watcher.settle()
    watcher.journal.advance("s1", Verb.STOP, watcher.now_s)
    watcher.looks(100)
    write_image(watcher.mics / "a.mrc", 2)
    watcher.put_back("the file changed after it was found complete")
    watcher.looks(2 + SETTLE_S)
    assert watcher.micrograph("a.mrc").state == "ready"


def test_a_session_whose_disk_was_taken_away_can_be_stopped(watcher: Watcher) -> None:
    truncated(watcher.mics / "a.mrc")
    watcher.look()
    shutil.rmtree(watcher.mics)
    watcher.journal.advance("s1", Verb.STOP, watcher.now_s)
    watcher.looks(SETTLE_S)
    assert watcher.state == "draining"
    watcher.looks(DRAIN_GRACE_S + 2)
    assert watcher.state == "completed"
    assert watcher.micrograph("a.mrc").state == "failed"
