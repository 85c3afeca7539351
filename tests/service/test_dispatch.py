from pathlib import Path

import numpy as np

from drpwatch.micrograph import Fingerprint, ImageHeader, PickParams
from drpwatch.service.dispatch import Dispatcher
from drpwatch.session.journal import Journal
from drpwatch.session.lifecycle import Verb
from drpwatch.session.records import SessionSpec

HEADER = ImageHeader((4, 5), np.dtype("<f4"), 1024, (1.5, 1.5))


def journal_with(root: Path, counts: dict[str, int]) -> Journal:
    journal = Journal(root / "journal.db")
    for session, count in counts.items():
        spec = SessionSpec(session, Path("/in"), Path("/out") / session, PickParams(150.0))
        record = journal.add_session(spec, 1.0)
        journal.advance(session, Verb.START, 1.0)
        for n in range(count):
            journal.note_ready(record.id, f"{n}.mrc", HEADER, Fingerprint(1, 1, 1), 2.0 + n)
    return journal


def taken(dispatcher: Dispatcher, count: int) -> list[str]:
    found = [dispatcher.take() for _ in range(count)]
    return [f"{ready.session} {ready.name}" for ready in found if ready is not None]


def test_a_session_that_is_behind_has_its_newest_first_then_its_oldest(tmp_path: Path) -> None:
    journal = journal_with(tmp_path, {"a": 4})
    dispatcher = Dispatcher(journal, newest_first_beyond=2)
    assert taken(dispatcher, 1) == ["a 3.mrc"]
    for name in ("3.mrc", "2.mrc"):
        journal.note_failed(1, name, "recorded", None, 9.0)
    assert taken(dispatcher, 9) == ["a 0.mrc", "a 1.mrc"]


def test_sessions_take_turns_and_the_newest_comes_first(tmp_path: Path) -> None:
    dispatcher = Dispatcher(journal_with(tmp_path, {"a": 3, "b": 1, "c": 2}), 0)
    assert taken(dispatcher, 9) == ["a 2.mrc", "b 0.mrc", "c 1.mrc", "a 1.mrc", "c 0.mrc", "a 0.mrc"]
    assert dispatcher.on_way == 6


def test_what_is_given_up_comes_again(tmp_path: Path) -> None:
    dispatcher = Dispatcher(journal_with(tmp_path, {"a": 1}), 0)
    ready = dispatcher.take()
    assert ready is not None
    assert dispatcher.take() is None
    dispatcher.done(ready)
    assert dispatcher.take() == ready


def test_a_held_session_leaves_its_turn_to_others(tmp_path: Path) -> None:
    dispatcher = Dispatcher(journal_with(tmp_path, {"a": 2, "b": 2}), 0)
    dispatcher.hold("a")
    assert taken(dispatcher, 3) == ["b 1.mrc", "b 0.mrc"]
    dispatcher.release("a")
    assert taken(dispatcher, 3) == ["a 1.mrc", "a 0.mrc"]


def test_a_paused_session_is_not_picked(tmp_path: Path) -> None:
    journal = journal_with(tmp_path, {"a": 1})
    journal.advance("a", Verb.PAUSE, 3.0)
    assert Dispatcher(journal, 0).take() is None


def test_a_ring_between_looking_and_waiting_is_not_lost(tmp_path: Path) -> None:
    dispatcher = Dispatcher(journal_with(tmp_path, {}), 0)
    seen = dispatcher.wait(0, 0.0)
    dispatcher.ring()
    assert dispatcher.wait(seen, 30.0) == seen + 1
