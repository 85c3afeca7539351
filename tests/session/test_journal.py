import json
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest

from drpwatch.errors import JournalError, SessionError, UsageError
from drpwatch.micrograph import PickParams
from drpwatch.session import schema
from drpwatch.session.journal import Journal
from drpwatch.session.lifecycle import SessionState, Verb
from drpwatch.session.records import MicrographState, PinnedWeights, SessionSpec
from tests.session.bench import HEADER, Bench


def spec(name: str = "s1") -> SessionSpec:
    params = PickParams(150.0, threshold=0.25, negative_stain=True)
    return SessionSpec(
        name, Path("/in"), Path("/out"), params, glob="*.mrc", micrograph_prefix="Micrographs/"
    )


def test_a_session_comes_back_as_it_was(scratch: Path) -> None:
    journal = Journal(scratch / "journal.db")
    journal.add_session(spec(), now=10.0)
    journal.advance("s1", Verb.START, now=11.0)
    journal.close()
    record = Journal(scratch / "journal.db").session("s1")
    assert record.spec == spec()
    assert (record.state, record.created_at, record.changed_at) == (SessionState.WAITING, 10.0, 11.0)


def test_each_step_of_a_session_is_kept(scratch: Path) -> None:
    journal = Journal(scratch / "journal.db")
    journal.add_session(spec(), now=1.0)
    journal.advance("s1", Verb.START, now=2.0)
    journal.advance("s1", Verb.FAIL, now=3.0, reason="weights are gone")
    with pytest.raises(SessionError, match="session s1: cannot pause a session that is failed"):
        journal.advance("s1", Verb.PAUSE, now=4.0)
    steps = sqlite3.connect(scratch / "journal.db").execute(
        "SELECT verb, to_state, reason, at FROM transition"
    )
    assert list(steps) == [("start", "waiting", None, 2.0), ("fail", "failed", "weights are gone", 3.0)]


def test_names_of_sessions_are_unique_and_harmless(scratch: Path) -> None:
    journal = Journal(scratch / "journal.db")
    journal.add_session(spec(), now=1.0)
    with pytest.raises(SessionError, match="s1 exists already"):
        journal.add_session(spec(), now=2.0)
    for name in ("", ".hidden", "../up", "a/b", "a" * 65, "ä", "a\n"):
        with pytest.raises(UsageError, match="session name"):
            spec(name)


def test_a_damaged_journal_is_refused_and_left_alone(scratch: Path) -> None:
    path = scratch / "journal.db"
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    before = path.read_bytes()
    with pytest.raises(JournalError, match=r"damaged or unreadable .* left as it is"):
        Journal(path)
    assert path.read_bytes() == before


def test_damage_inside_is_found_at_opening(scratch: Path) -> None:
    bench = Bench(scratch)
    for number in range(300):
        bench.appear(f"m{number}.mrc", number)
    bench.close()
    path = scratch / "journal.db"
    content = bytearray(path.read_bytes())
    content[8192:12288] = b"\x0d" * 4096
    path.write_bytes(content)
    with pytest.raises(JournalError, match="damaged"):
        Journal(path)


def test_the_first_released_schema_is_brought_to_this_one(scratch: Path) -> None:
    path = scratch / "journal.db"
    old = sqlite3.connect(path)
    old.executescript(schema.MIGRATIONS[0] + "PRAGMA user_version = 1;")
    old.execute(
        "INSERT INTO session VALUES (1, 's1', '/in', '/out', '*.mrc', '', 'running', NULL, NULL, 1.5, 1.0, 2.0)"
    )
    old.execute("INSERT INTO params VALUES (1, 1, 1, ?, 1.0)", (json.dumps(PickParams(150.0).as_dict()),))
    old.execute("UPDATE session SET params_id = 1")
    old.execute(
        "INSERT INTO micrograph (id, session_id, name, generation, published, state, size_bytes, mtime_ns, inode,"
        " height_px, width_px, dtype, data_offset_bytes, compressed, params_id, weights_sha256, n_picks,"
        " n_candidates, threshold, record_seq, first_seen_at, recorded_at)"
        " VALUES (1, 1, 'a.mrc', 1, 1, 'picked', 9, 9, 9, 4, 5, '<f4', 1024, 0, 1, ?, 1, 2, 0.5, 1, 3.0, 4.0)",
        ("f" * 64,),
    )
    old.execute("INSERT INTO candidates VALUES (1, ?)", (np.float32([[1, 2, 0.9], [3, 4, 0.3]]).tobytes(),))
    old.commit()
    old.close()
    journal = Journal(path)
    session = journal.session("s1")
    assert (session.state, session.params.version, session.params.weights) == ("running", 1, None)
    (record,) = journal.micrographs(1, [MicrographState.PICKED])
    assert (record.name, record.params_version, record.outdated) == ("a.mrc", 1, False)
    journal.rethreshold("s1", 0.2, now=5.0)
    (record,) = journal.micrographs(1, [MicrographState.PICKED])
    assert (record.n_picks, record.threshold, record.params_version) == (2, 0.2, 2)
    journal.set_params("s1", PickParams(160.0), PinnedWeights("e" * 64, 0.5), now=6.0)
    assert journal.count_outdated(1) == 1
    assert journal.pick_again(1, ["a.mrc"], now=7.0) == (["a.mrc"], [])
    ready = journal.ready(journal.session("s1"), "a.mrc")
    assert (ready.generation, ready.params, ready.weights_sha256) == (2, PickParams(160.0), "e" * 64)
    journal.close()
    assert Journal(path).session("s1").params.version == 3


def test_a_journal_of_a_newer_drpwatch_is_refused(scratch: Path) -> None:
    Journal(scratch / "journal.db").close()
    sqlite3.connect(scratch / "journal.db").execute("PRAGMA user_version = 99").close()
    with pytest.raises(JournalError, match=r"newer drpwatch \(schema 99.*upgrade"):
        Journal(scratch / "journal.db")


def test_a_journal_that_cannot_be_made_says_where(scratch: Path) -> None:
    with pytest.raises(JournalError, match=r"nowhere/journal\.db"):
        Journal(scratch / "nowhere" / "journal.db")


def test_the_newest_ready_micrograph_comes_first_and_none_twice(scratch: Path) -> None:
    bench = Bench(scratch)
    for name in ("old.mrc", "new.mrc"):
        bench.appear(name, 1)
    first = bench.take()
    assert first is not None
    assert (first.name, first.path, first.header) == ("new.mrc", scratch / "in" / "new.mrc", HEADER)
    second = bench.journal.next_ready(bench.session, frozenset({first.micrograph_id}), 0)
    assert second is not None
    assert second.name == "old.mrc"
    assert (
        bench.journal.next_ready(bench.session, frozenset({first.micrograph_id, second.micrograph_id}), 0)
        is None
    )


def test_a_micrograph_put_back_waits_with_its_reason(scratch: Path) -> None:
    bench = Bench(scratch)
    bench.appear("a.mrc", 1)
    ready = bench.take()
    assert ready is not None
    bench.journal.put_back(ready.micrograph_id, "changed")
    (record,) = bench.journal.micrographs(bench.session.id, [MicrographState.WAITING])
    assert (record.name, record.generation, record.reason) == ("a.mrc", 1, "changed")
    assert not bench.record(ready)


def test_all_threads_may_call(scratch: Path) -> None:
    bench = Bench(scratch)

    def note(thread: int) -> None:
        for number in range(50):
            bench.journal.note_waiting(bench.session.id, f"{thread}-{number}.mrc", "short", 1.0)

    threads = [threading.Thread(target=note, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bench.journal.totals(bench.session.id).waiting == 200


def test_medians_are_of_the_newest_and_of_all(scratch: Path) -> None:
    bench = Bench(scratch)
    assert bench.journal.median_picks(bench.session.id) is None
    counts = []
    for n in range(30):
        bench.appear(f"{n}.mrc", 1 if n < 12 else 4)  # the later ones are empty
        ready = bench.take()
        assert ready is not None
        assert bench.record(ready)
        counts.append(bench.outcome(ready).picks.count)
    medians = bench.journal.median_picks(bench.session.id)
    assert (medians.newest, medians.all) == (0, sorted(counts)[14])
    bench.close()
