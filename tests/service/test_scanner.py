"""The threads that look after sessions: one each, and one that keeps them."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drpwatch.config import Watch
from drpwatch.micrograph import PickParams
from drpwatch.service.clock import Clock
from drpwatch.service.dispatch import Dispatcher
from drpwatch.service.heartbeats import Heartbeats
from drpwatch.service.lookout import HANGS_AFTER_S
from drpwatch.service.metrics import Metrics
from drpwatch.service.publish import Publisher
from drpwatch.service.scanner import Scanner
from drpwatch.session.journal import Journal
from drpwatch.session.lifecycle import Verb
from drpwatch.session.records import SessionSpec
from drpwatch.watch import discovery
from tests.daemon.rig import write_image
from tests.support import PATIENCE, eventually


class Station:
    """A scanner on two sessions, and a root that can hang."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead_s = 0.0
        clock = Clock(monotonic=lambda: time.monotonic() + self.ahead_s)
        self.journal = Journal(root / "journal.db")
        self.roots = {name: root / name for name in ("s1", "s2")}
        for name, watch_root in self.roots.items():
            watch_root.mkdir()
            spec = SessionSpec(name, watch_root, root / "out" / name, PickParams(150.0))
            self.journal.add_session(spec, 0.0)
            self.journal.advance(name, Verb.START, 0.0)
        self.metrics, self.heartbeats = Metrics(), Heartbeats()
        self.answers = threading.Event()
        self.answers.set()
        real = discovery.scan

        def scan(watch_root: Path, *rest: object) -> object:
            if watch_root == self.roots["s1"]:
                assert self.answers.wait(300)
            return real(watch_root, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(discovery, "scan", scan)
        config = Watch(poll_interval_s=0.05, settle_s=0.05)
        publisher = Publisher(self.metrics, clock)
        self.dispatcher = Dispatcher(self.journal, 20)
        self.scanner = Scanner(self.journal, config, self.dispatcher, publisher, self.heartbeats, clock)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.scanner.run, args=(self.stop,))

    def ready(self, name: str) -> int:
        session = self.journal.session(name)
        return self.journal.totals(session.id).ready

    def readable(self, name: str) -> bool:
        return f'drpwatch_watch_root_readable{{session="{name}"}} 1.0' in self.metrics.render().decode()


@pytest.fixture
def idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Station]:
    """A station whose thread is still to be started."""
    made = Station(tmp_path, monkeypatch)
    yield made
    made.answers.set()
    made.stop.set()
    made.thread.join(PATIENCE * 10)
    assert not made.thread.is_alive()
    made.journal.close()


@pytest.fixture
def station(idle: Station) -> Station:
    idle.thread.start()
    return idle


@pytest.fixture
def lookouts() -> Callable[[], set[str]]:
    return lambda: {one.name for one in threading.enumerate() if one.name.startswith("lookout-")}


def test_a_root_that_hangs_is_told_of_and_the_others_go_on(station: Station) -> None:
    write_image(station.roots["s1"] / "a.mrc", 1)
    eventually(lambda: station.ready("s1") == 1, 5, "all is well")
    station.answers.clear()
    write_image(station.roots["s1"] / "b.mrc", 2)
    write_image(station.roots["s2"] / "a.mrc", 3)
    eventually(lambda: station.ready("s2") == 1, 5, "the other session goes on")
    assert station.scanner.problems("s1") == ()
    station.ahead_s = HANGS_AFTER_S + 10
    problem = eventually(lambda: station.scanner.unreadable("s1"), 5, "it is told")
    assert problem.startswith(
        f"{station.roots['s1']}: the watch directory's file server does not answer; waiting for it since"
    )
    assert station.scanner.problems("s1") == (station.scanner.unreadable("s1"),)
    eventually(lambda: not station.readable("s1"), 5, "the metric tells, too")
    assert station.readable("s2")
    assert station.scanner.problems("s2") == ()
    # Another process would hang there, too: no reason to restart this one.
    station.heartbeats._last["scanner"] -= 1000
    eventually(lambda: not station.heartbeats.stale(300), 5, "the scanner's loop beats")
    assert set(station.heartbeats.ages_s()) == {"scanner"}
    station.answers.set()
    eventually(lambda: station.ready("s1") == 2, 5, "it goes on")
    eventually(lambda: station.readable("s1") and station.scanner.problems("s1") == (), 5, "all is well")


def test_a_lookout_ends_with_its_session_and_begins_with_it_again(
    station: Station, lookouts: Callable[[], set[str]]
) -> None:
    eventually(lambda: lookouts() == {"lookout-s1", "lookout-s2"}, 5, "one for each session")
    station.journal.advance("s1", Verb.STOP, 0.0)
    station.scanner.wake()
    eventually(lambda: lookouts() == {"lookout-s2"}, 5, "the other one is left")
    station.journal.advance("s1", Verb.REOPEN, 0.0)
    station.scanner.wake()
    eventually(lambda: lookouts() == {"lookout-s1", "lookout-s2"}, 5, "both again")
    write_image(station.roots["s1"] / "a.mrc", 1)
    eventually(lambda: station.ready("s1") == 1, 5, "it is watched")


def test_what_is_put_back_of_a_session_that_ended_is_not_on_its_way_any_more(station: Station) -> None:
    write_image(station.roots["s1"] / "a.mrc", 1)
    eventually(lambda: station.ready("s1") == 1, 5, "ready")
    station.journal.advance("s2", Verb.PAUSE, 0.0)
    ready = station.dispatcher.take()
    assert ready is not None
    station.journal.advance("s1", Verb.FAIL, 0.0, "as the test wants it")
    eventually(lambda: "s1" not in station.scanner._lookouts, 5, "the lookout is gone")
    station.scanner.put_back(ready, "the file changed")
    eventually(lambda: station.dispatcher.on_way == 0, 5, "given back")
    assert station.journal.totals(1).waiting == 1


def test_the_scanner_stops_though_a_root_hangs(station: Station) -> None:
    station.answers.clear()
    write_image(station.roots["s2"] / "a.mrc", 3)
    eventually(lambda: station.ready("s2") == 1, 5, "the other session goes on")
    station.stop.set()
    station.scanner.wake()
    station.thread.join(PATIENCE * 5)
    assert not station.thread.is_alive()


def test_one_that_is_stopped_before_the_first_round_has_its_last_look(idle: Station) -> None:
    write_image(idle.roots["s2"] / "a.mrc", 1)
    idle.journal.advance("s2", Verb.STOP, 0.0)
    idle.thread.start()
    eventually(lambda: idle.ready("s2") == 1, 10, "what was there is found")
