import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from drpwatch.errors import SessionError, UsageError
from drpwatch.micrograph import PickParams
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


def test_how_much_larger_particles_are_is_that_of_the_newest_with_the_parameters_in_force(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(scratch)
    assert bench.journal.enlargement(bench.session.id) == 1.0

    def pick(name: str, enlargement: float) -> None:
        bench.appear(name, 1)
        ready = bench.take()
        assert ready is not None
        outcome = bench.outcome(ready)
        assert outcome.picks is not None
        outcome = replace(outcome, picks=replace(outcome.picks, enlargement=enlargement))
        monkeypatch.setattr(bench, "outcome", lambda _: outcome)
        assert bench.record(ready)
        monkeypatch.undo()

    for n in range(10):
        pick(f"{n}.mrc", 1.0)
    for n in range(10, 30):
        pick(f"{n}.mrc", 1.35 if n % 3 else 1.0)
    assert bench.journal.enlargement(bench.session.id) == 1.35
    bench.journal.set_params("s1", PickParams(200.0), PinnedWeights("e" * 64, 0.5), now=11.0)
    assert bench.journal.enlargement(bench.session.id) == 1.0  # of the new diameter nothing is known
    bench.close()


def test_a_micrograph_costs_the_same_in_a_large_session(scratch: Path) -> None:
    """In steps of SQLite's machine, so that a busy computer makes no difference."""
    bench = Bench(scratch, 1.5)

    def steps() -> int:
        """Let a micrograph come and be picked, and be asked for again."""
        count = 0
        bench.drain()
        name = f"{len(bench.files)}.mrc"

        def step() -> int:
            nonlocal count
            count += 1
            return 0

        bench.journal._db.set_progress_handler(step, 1)
        bench.appear(name, 1)
        bench.journal.ready(bench.session, name)
        bench.drain()
        bench.repick([name])
        bench.journal._db.set_progress_handler(None, 0)
        return count

    steps()
    small = steps()
    fields = [
        row["name"] for row in bench.journal._all("SELECT name FROM pragma_table_info('micrograph')", ())
    ]
    rest = ", ".join(name for name in fields if name not in ("id", "name", "generation", "record_seq"))
    bench.journal._db.execute(
        f"INSERT INTO micrograph (name, generation, record_seq, {rest})"
        f" WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)"
        f" SELECT 'known ' || i, 1, -i, {rest} FROM n JOIN micrograph ON micrograph.name = '0.mrc'"
        " AND published = 1"
    )
    steps()
    assert steps() < 1.5 * small
    bench.close()
