from pathlib import Path

from drpwatch.config import Session
from drpwatch.micrograph import PickParams
from drpwatch.service.clock import Clock
from drpwatch.service.idleness import Idleness
from drpwatch.service.metrics import Metrics
from drpwatch.service.publish import Publisher
from drpwatch.session.journal import Journal
from drpwatch.session.lifecycle import WATCHING, Verb
from drpwatch.session.records import SessionSpec


class World:
    """Two sessions, and time that passes when the test says so."""

    def __init__(self, root: Path, config: Session) -> None:
        self.now_s, self.jump_s = 1000.0, 0.0
        self.journal = Journal(root / "journal.db")
        for name in ("a", "b"):
            self.journal.add_session(
                SessionSpec(name, Path("/in"), Path("/out") / name, PickParams(150.0)), 0.0
            )
            self.journal.advance(name, Verb.START, 0.0)
        clock = Clock(lambda: self.now_s, lambda: self.now_s + self.jump_s)
        self.idleness = Idleness(self.journal, config, Publisher(Metrics(), clock), clock)
        self.look()

    def look(self, after_s: float = 0.0) -> bool:
        self.now_s += after_s
        return self.idleness.look(self.journal.sessions(WATCHING))

    def new(self, session_id: int, name: str) -> None:
        self.journal.note_waiting(session_id, name, "settling", self.now_s)

    def state(self, name: str) -> str:
        return self.journal.session(name).state


def test_a_session_without_news_is_idle_until_there_are_some(tmp_path: Path) -> None:
    world = World(tmp_path, Session(idle_after_s=60))
    world.look(59)
    assert not world.idleness.is_idle("a")
    world.new(2, "new.mrc")
    world.look(2)
    assert (world.idleness.is_idle("a"), world.idleness.is_idle("b")) == (True, False)
    world.look(10_000_000)
    assert world.state("a") == "waiting"  # it is completed only where that is configured


def test_a_session_without_news_completes_by_itself(tmp_path: Path) -> None:
    world = World(tmp_path, Session(auto_complete_after_s=7200))
    world.journal.advance("b", Verb.PAUSE, 1.0)  # somebody means to go on with it
    assert not world.look(7199)
    assert world.look(2)
    assert (world.state("a"), world.state("b")) == ("draining", "paused")
    assert world.journal.session("a").reason == "stopped by itself: no new micrograph for 2 h"


def test_a_clock_that_jumps_completes_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, Session(auto_complete_after_s=7200))
    world.jump_s = 1e7
    assert not world.look(10)
    assert world.state("a") == "waiting"


def test_a_reopened_session_has_its_time_again(tmp_path: Path) -> None:
    world = World(tmp_path, Session(auto_complete_after_s=7200))
    world.look(7201)
    world.journal.advance("a", Verb.DRAINED, world.now_s)
    world.look(10)
    world.journal.advance("a", Verb.REOPEN, world.now_s)
    assert not world.look(7000)
    assert world.look(7201)
