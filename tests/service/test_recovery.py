"""What comes back of a session whose journal is gone, and what does not."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from drpwatch.errors import JournalError, SessionError, UsageError
from drpwatch.formats import star
from drpwatch.micrograph import Fingerprint
from drpwatch.service.recovery import recover
from drpwatch.service.state import StateDirectory
from drpwatch.session.journal import Journal
from drpwatch.session.outputs import SessionOutputs
from drpwatch.session.records import MicrographState, PinnedWeights
from tests.session.bench import WEIGHTS, Bench

NAMES = ("a.mrc", "grid 1/b.mrc", "grid 2/b.mrc", "grid 2/c.mrc", "none.mrc")  # the last has no picks


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A session of which all micrographs are picked, and their files there."""
    made = Bench(tmp_path, pixel_size_angstrom=1 / 3)
    made.set(threshold=1 / 3)
    for number, name in enumerate(NAMES):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"pixels")
        os.utime(path, (1000 + number, 1000 + number))
        made.appear(name, 4 if name == "none.mrc" else number)
    made.drain()
    yield made
    made.close()


def recovered(bench: Bench, *directories: Path) -> Journal:
    """The journal after the one of the bench was lost."""
    bench.close()
    recover(bench.root / "state", directories or [bench.root / "out"])
    return Journal(bench.root / "state/journal.db")


def brought_up(journal: Journal) -> SessionOutputs:
    outputs = SessionOutputs(journal.session("s1"), journal)
    outputs.complete()
    return outputs


def test_the_files_stay_as_they_are_to_the_byte(bench: Bench) -> None:
    before = bench.contents()
    journal = recovered(bench)
    brought_up(journal).rebuild()
    assert bench.contents() == before
    journal.close()


def test_the_session_is_what_it_was(bench: Bench) -> None:
    bench.journal.pass_over(1, "new-only", {"old.mrc": Fingerprint(1, 2, 3)})
    bench.journal.set_expected_end("s1", 9000.0)
    bench.reopen()  # each process tells once
    before = bench.journal.session("s1")
    journal = recovered(bench)
    after = journal.session("s1")
    assert after.spec == before.spec
    assert (after.params.weights, after.created_at, after.backfill) == (
        WEIGHTS,
        before.created_at,
        "new-only",
    )
    assert (after.pixel_size_angstrom, after.expected_end_at) == (pytest.approx(1 / 3), 9000.0)
    assert journal.passed_over(1) == {"old.mrc": Fingerprint(1, 2, 3)}
    assert (after.state, "reopen" in (after.reason or "")) == ("completed", True)
    journal.close()


def test_micrographs_are_known_and_outdated(bench: Bench) -> None:
    journal = recovered(bench)
    records = {record.name: record for record in journal.micrographs(1, [MicrographState.PICKED])}
    assert set(records) == set(NAMES)
    for name, record in records.items():
        marks = os.stat(bench.root / "in" / name)
        assert record.fingerprint == Fingerprint(marks.st_size, marks.st_mtime_ns, marks.st_ino)
        assert (record.weights_sha256, record.outdated) == (None, True)
    assert records["none.mrc"].n_picks == 0
    assert journal.count_outdated(1) == len(NAMES)
    journal.rethreshold("s1", 0.8, now=1.0)  # it can rise, and what is below stays lost
    assert journal.count_outdated(1) == len(NAMES)
    assert journal.totals(1).picks == sum(
        (picks.score >= np.float32(0.8)).sum() for picks in journal.published(1)
    )
    journal.close()


def test_one_that_is_newer_than_its_picks_is_picked_again(bench: Bench) -> None:
    later = time.time() + 60
    os.utime(bench.root / "in" / "grid 1/b.mrc", (later, later))
    journal = recovered(bench)
    (waiting,) = journal.micrographs(1, [MicrographState.WAITING])
    assert (waiting.name, waiting.generation) == ("grid 1/b.mrc", 2)
    before = bench.contents()
    brought_up(journal)
    assert bench.contents() == before  # its rows stay until then
    journal.close()


def test_without_the_micrographs_their_picks_come_back(bench: Bench) -> None:
    (bench.root / "in").rename(bench.root / "unmounted")
    bench.close()
    (session,) = recover(bench.root / "state", [bench.root / "out"]).sessions
    assert (session.micrographs, session.changed) == (len(NAMES) - 1, 0)
    assert "in: cannot be read" in session.problems[0]
    assert "none_autopick.star: the micrograph that it belongs to is not there" in session.problems[1]
    journal = Journal(bench.root / "state/journal.db")
    assert {record.fingerprint for record in journal.micrographs(1, [MicrographState.PICKED])} == {None}
    journal.close()


def test_picks_that_only_the_table_has(bench: Bench) -> None:
    (bench.root / "out/grid 1/b_autopick.star").unlink()
    (bench.root / "out/a_autopick.star").write_bytes(b"\0" * 100)
    before = bench.journal.totals(1).picks
    journal = recovered(bench)
    assert journal.totals(1).picks == before
    brought_up(journal)
    star.read(bench.root / "out/grid 1/b_autopick.star")
    star.read(bench.root / "out/a_autopick.star")
    journal.close()


@pytest.mark.parametrize("torn", [b"\0" * 3000, b"1.000 2.000 0.5", b"1.000 2.000 0.500000 a.mr"])
def test_a_torn_table(torn: bytes, bench: Bench) -> None:
    """A power cut left half an append: all that is in the micrographs' own files comes back."""
    before = bench.contents()
    with (bench.root / "out/particles.star").open("ab") as table:
        table.write(torn)
    journal = recovered(bench)
    assert journal.totals(1).picked == len(NAMES)
    brought_up(journal)
    after = bench.contents()
    assert sorted(after) == sorted(before)
    for name in ("particles.star", "autopick.star"):
        rows = [sorted(star.read(one[name]).popitem()[1].rows) for one in (before, after)]
        assert rows[0] == rows[1]
    journal.close()


def test_names_that_lead_out_are_left_out(bench: Bench) -> None:
    with (bench.root / "out/particles.star").open("ab") as table:
        table.write(b"1.000 2.000 0.500000 ../../evil.mrc 1 0.000000 0.000000\n")
        table.write(b"1.000 2.000 0.500000 /evil.mrc 1 0.000000 0.000000\n")
    journal = recovered(bench)
    assert {record.name for record in journal.micrographs(1, [MicrographState.PICKED])} == set(NAMES)
    journal.close()


def test_sessions_are_added_to_a_journal_that_began_since(bench: Bench) -> None:
    other = Bench(make(bench.root / "more"))
    other.appear("x.mrc", 1)
    other.drain()
    other.close()
    make(bench.root / "state")
    bench.close()
    os.rename(bench.root / "journal.db", bench.root / "state/journal.db")
    directory = bench.root / "more/out"
    with pytest.raises(SessionError, match="session s1 exists already"):
        recover(bench.root / "state", [directory])
    told = (directory / "session.json").read_text()
    (directory / "session.json").write_text(told.replace('"name": "s1"', '"name": "s2"'))
    done = recover(bench.root / "state", [directory])
    assert ([one.name for one in done.sessions], done.kept) == (["s2"], None)
    journal = Journal(bench.root / "state/journal.db")
    assert [one.spec.name for one in journal.sessions()] == ["s1", "s2"]
    journal.close()
    with pytest.raises(SessionError, match="session s2: the journal has it"):
        recover(bench.root / "state", [directory])


def test_a_damaged_journal_is_kept_with_all_that_belongs_to_it(bench: Bench) -> None:
    state = make(bench.root / "state")
    for part, content in (("", b"no database"), ("-wal", b"log"), ("-shm", b"memory")):
        (state / f"journal.db{part}").write_bytes(content)
    with pytest.raises(UsageError, match="does not tell any more where outputs are"):
        recover(state, [])
    kept = recover(state, [bench.root / "out"]).kept
    assert kept is not None
    assert [kept.with_name(kept.name + part).read_bytes() for part in ("", "-wal")] == [
        b"no database",
        b"log",
    ]
    assert sorted(path.name for path in state.iterdir() if not path.name.startswith(kept.name)) == [
        "journal.db",
        "lock",
    ]


def test_what_cannot_be_recovered_changes_nothing(bench: Bench) -> None:
    state = make(bench.root / "state")
    (state / "journal.db").write_bytes(b"no database")
    (bench.root / "out/session.json").write_text('{"name": "s1"}')
    for directory, sentence in (
        (bench.root / "out", "does not tell what the session is"),
        (bench.root / "in", "session.json: cannot be read"),
    ):
        with pytest.raises(UsageError, match=sentence):
            recover(state, [directory])
    assert (state / "journal.db").read_bytes() == b"no database"


def test_not_beside_a_daemon(bench: Bench) -> None:
    held = StateDirectory(bench.root / "state")
    with pytest.raises(JournalError, match=f"another daemon \\(pid {os.getpid()}\\)"):
        recover(bench.root / "state", [bench.root / "out"])
    held.close()


def test_a_new_model_is_told_beside_the_files(bench: Bench) -> None:
    bench.journal.set_params("s1", bench.params, PinnedWeights("e" * 64, 0.25), now=1.0)
    bench.outputs.recover()
    journal = recovered(bench)
    assert journal.session("s1").params.weights == PinnedWeights("e" * 64, 0.25)
    journal.close()


def make(path: Path) -> Path:
    path.mkdir()
    return path
