"""What the journal concludes from crashes."""

from __future__ import annotations

from pathlib import Path

import pytest

from drpwatch.formats import star
from drpwatch.session.journal import MOST_KILLS
from drpwatch.session.records import Crash, CrashKind, MicrographState, Suspect
from tests.session.bench import Bench

NOW = 2000.0


def crash(bench: Bench, kind: CrashKind = CrashKind.SIGNAL, name: str = "a.mrc") -> tuple[str, str] | None:
    ready = bench.take()
    assert ready is not None
    suspect = Suspect(ready.micrograph_id, name)
    return bench.journal.note_crash(Crash(kind, "segmentation fault", (suspect,)), NOW)


@pytest.fixture
def bench(scratch: Path) -> Bench:
    made = Bench(scratch)
    made.appear("a.mrc", 1)
    return made


@pytest.mark.parametrize("second", [CrashKind.SIGNAL, CrashKind.DEVICE, CrashKind.TIME_LIMIT])
def test_a_micrograph_is_quarantined_at_the_second_crash(bench: Bench, second: CrashKind) -> None:
    assert crash(bench) is None
    quarantined = crash(bench, second)
    assert quarantined is not None
    session, reason = quarantined
    assert session == "s1"
    assert reason == (
        "quarantined: drpwatch ended twice while it picked this file (segmentation fault);"
        " 'drpwatch session retry s1' tries it again"
    )
    assert bench.take() is None
    (record,) = bench.journal.micrographs(1, [MicrographState.FAILED])
    assert (record.name, record.reason, record.recorded_at) == ("a.mrc", reason, NOW)
    assert bench.journal.crashes().total() == 2


def test_retry_takes_it_out_and_counts_anew(bench: Bench) -> None:
    crash(bench)
    crash(bench)
    assert bench.journal.pick_again(1, ["a.mrc"], NOW) == (["a.mrc"], [])
    assert crash(bench) is None
    assert crash(bench) is not None


def test_its_earlier_rows_do_not_stand_for_it_any_more(bench: Bench) -> None:
    ready = bench.take()
    assert ready is not None
    bench.record(ready)
    table = bench.root / "out/particles.star"
    assert star.read(table)["particles"].rows
    bench.repick(["a.mrc"])
    crash(bench)
    assert crash(bench) is not None
    bench.outputs.complete()
    assert not table.exists() or not star.read(table)["particles"].rows


def test_kills_are_mostly_not_its_fault(bench: Bench) -> None:
    for _ in range(MOST_KILLS - 1):
        assert crash(bench, CrashKind.KILLED) is None
    assert crash(bench) is None  # one crash, and some kills
    quarantined = crash(bench, CrashKind.KILLED)
    assert quarantined is not None
    assert f"ended {MOST_KILLS} times" in quarantined[1]


def test_what_is_recorded_or_another_by_now_is_not_blamed(bench: Bench) -> None:
    ready = bench.take()
    assert ready is not None
    for _ in range(3):
        assert crash(bench, name="b.mrc") is None  # the journal is another one than that of the mark
    bench.record(ready)
    for _ in range(3):
        told = Crash(CrashKind.SIGNAL, "segmentation fault", (Suspect(ready.micrograph_id, "a.mrc"),))
        assert bench.journal.note_crash(told, NOW) is None
        assert bench.journal.note_crash(Crash(CrashKind.CANARY, "picks moved"), NOW) is None
    assert bench.journal.totals(1).picked == 1
    assert bench.journal.crashes() == {CrashKind.SIGNAL: 6, CrashKind.CANARY: 3}


def test_nothing_is_quarantined_by_a_crash_that_another_may_have_caused(bench: Bench) -> None:
    bench.appear("b.mrc", 1)
    both = tuple(
        Suspect(record.id, record.name) for record in bench.journal.micrographs(1, [MicrographState.READY])
    )
    shared = Crash(CrashKind.SIGNAL, "segmentation fault", both)
    assert len(both) == 2
    for _ in range(3):
        assert bench.journal.note_crash(shared, NOW) is None
    assert bench.journal.crashes() == {CrashKind.SIGNAL: 3}
    assert bench.journal.suspects() == {suspect.micrograph_id for suspect in both}
    # Alone on a device, and it was in another crash before: this one did it.
    (a,) = (suspect for suspect in both if suspect.name == "a.mrc")
    assert bench.journal.note_crash(Crash(CrashKind.SIGNAL, "segmentation fault", (a,)), NOW) is not None
    assert bench.journal.count_quarantined(1) == 1
    assert bench.journal.suspects() == {suspect.micrograph_id for suspect in both} - {a.micrograph_id}
    b = bench.take()
    assert b is not None
    bench.record(b)
    assert bench.journal.suspects() == frozenset()
