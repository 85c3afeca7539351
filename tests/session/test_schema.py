"""Opening a journal: damage, other versions and bad disks are told apart, and nothing is overwritten."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from drpwatch.errors import JournalDamaged, JournalError, OutputError
from drpwatch.micrograph import PickParams
from drpwatch.session import schema
from drpwatch.session.journal import Journal
from drpwatch.session.records import MicrographState, PinnedWeights
from tests.session.bench import Bench

SCHEMAS = Path(__file__).parent / "schemas"
RELEASED = sorted(int(path.stem) for path in SCHEMAS.glob("*.sql"))


def old_journal(version: int, path: Path) -> Path:
    """A journal as that version wrote it."""
    database = sqlite3.connect(path)
    database.executescript((SCHEMAS / f"{version}.sql").read_text())
    database.close()
    return path


def tables(path: Path) -> dict[str, list[tuple]]:
    """Columns and indices of each table: name, type, whether NULL is allowed, default."""
    database = sqlite3.connect(path)
    names = [name for (name,) in database.execute("SELECT name FROM sqlite_master ORDER BY name")]
    found = {name: database.execute(f"PRAGMA table_xinfo({name})").fetchall() for name in names}
    database.close()
    return found


# ---- versions -----------------------------------------------------------------------------------


def test_each_schema_has_its_journal() -> None:
    assert list(range(1, len(schema.MIGRATIONS) + 1)) == RELEASED


@pytest.mark.parametrize("version", RELEASED)
def test_journals_of_every_released_schema_are_brought_to_this_one(version: int, scratch: Path) -> None:
    path = old_journal(version, scratch / "journal.db")
    journal = Journal(path)
    assert [(one.spec.name, one.state) for one in journal.sessions()] == [
        ("s1", "running"),
        ("old", "failed"),
    ]
    session = journal.session("s1")
    assert (session.spec.micrograph_prefix, session.pixel_size_angstrom) == ("MotionCorr/job002/", 1.5)
    totals = journal.totals(1)
    assert (totals.waiting, totals.ready, totals.picked, totals.failed, totals.picks) == (1, 1, 2, 1, 1)
    newest, empty = journal.micrographs(1, [MicrographState.PICKED])
    assert (newest.name, newest.generation, newest.n_picks, newest.seconds) == (
        "grid/a.mrc",
        2,
        1,
        {"read": 0.25},
    )
    assert (empty.name, empty.n_picks) == ("empty.mrc", 0)
    assert [rows.name for rows in journal.published(1)] == ["empty.mrc", "grid/a.mrc"]
    assert journal.outputs(1)["particles.star"].length_bytes == 500
    assert set(journal.passed_over(1)) == ({"before.mrc"} if version >= 2 else set())
    enlargements = sqlite3.connect(path).execute("SELECT enlargement FROM micrograph WHERE published = 1")
    assert enlargements.fetchall() == [(1.25 if version >= 6 else None,)] * 2

    journal.rethreshold("s1", 0.25, now=10.0)
    assert journal.totals(1).picks == 2
    journal.set_params("s1", PickParams(160.0), PinnedWeights("e" * 64, 0.5), now=11.0)
    assert journal.count_outdated(1) == 2
    assert journal.pick_again(1, ["grid/a.mrc"], now=12.0) == (["grid/a.mrc"], [])
    ready = journal.ready(journal.session("s1"), "grid/a.mrc")
    assert (ready.generation, ready.params, ready.weights_sha256) == (3, PickParams(160.0), "e" * 64)
    journal.close()

    assert Journal(path).session("s1").params.version == session.params.version + 2
    Journal(scratch / "new.db").close()
    assert tables(path) == tables(scratch / "new.db")


def test_a_migration_that_fails_changes_nothing(scratch: Path, monkeypatch) -> None:
    path = old_journal(1, scratch / "journal.db")
    before = tables(path)
    broken = schema.MIGRATIONS[1] + "INSERT INTO nowhere VALUES (1);"
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (schema.MIGRATIONS[0], broken))
        with pytest.raises(JournalDamaged, match="no such table: nowhere"):
            Journal(path)
    assert tables(path) == before
    assert Journal(path).session("s1").state == "running"


def test_a_journal_of_a_newer_drpwatch_is_refused(scratch: Path) -> None:
    path = scratch / "journal.db"
    Journal(path).close()
    sqlite3.connect(path).execute("PRAGMA user_version = 99").close()
    before = path.read_bytes()
    with pytest.raises(JournalError, match=r"newer drpwatch \(schema 99.*install that version again"):
        Journal(path)
    assert path.read_bytes() == before


def test_commits_survive_a_pulled_plug(scratch: Path) -> None:
    journal = Journal(scratch / "journal.db")
    for setting, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)):
        assert journal._all(f"PRAGMA {setting}", ())[0][0] == value


# ---- damage -------------------------------------------------------------------------------------


def living(scratch: Path, n: int = 300) -> Path:
    """The journal of a daemon that was killed: a part of it is still in the write-ahead log."""
    bench = Bench(scratch)
    for number in range(n):
        bench.appear(f"m{number}.mrc", number)
    bench.journal._db.execute("PRAGMA wal_checkpoint")
    bench.appear("last.mrc", 1)
    for path in list(scratch.glob("journal.db*")):
        path.with_name(f"killed{path.name}").write_bytes(path.read_bytes())
    bench.close()
    assert (scratch / "killedjournal.db-wal").stat().st_size > 0
    return scratch / "killedjournal.db"


def refused(path: Path) -> None:
    """It is refused with one sentence, and every byte is as it was."""

    def files() -> dict[str, bytes]:
        # The shared memory beside it is SQLite's scratch paper.
        return {
            one.name: one.read_bytes() for one in path.parent.glob(f"{path.name}*") if one.suffix != ".db-shm"
        }

    before = files()
    with pytest.raises(JournalDamaged, match=r"journal .*: damaged \(.*\); it was left as it is") as refusal:
        Journal(path)
    assert "\n" not in str(refusal.value)
    assert files() == before


def test_what_is_no_database_is_refused(scratch: Path) -> None:
    path = scratch / "journal.db"
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    refused(path)
    path.write_bytes(b"no database at all" * 100)
    refused(path)


@pytest.mark.parametrize("what", ["overwritten", "cut", "empty", "gone"])
def test_damage_is_found_at_opening(what: str, scratch: Path) -> None:
    path = living(scratch)
    content = bytearray(path.read_bytes())
    if what == "overwritten":
        content[len(content) // 2 :] = b"\x0d" * (len(content) - len(content) // 2)
    elif what == "cut":
        del content[len(content) // 2 :]
    elif what == "empty":
        content.clear()
    path.write_bytes(content)
    if what == "gone":
        path.unlink()
    refused(path)


def test_a_journal_that_cannot_be_made_says_where(scratch: Path) -> None:
    with pytest.raises(JournalError, match=r"nowhere/journal\.db"):
        Journal(scratch / "nowhere" / "journal.db")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_FULL, OutputError),
        (sqlite3.SQLITE_IOERR_FSYNC, OutputError),
        (sqlite3.SQLITE_READONLY_DIRECTORY, JournalError),
        (sqlite3.SQLITE_CORRUPT_INDEX, JournalDamaged),
    ],
)
def test_a_bad_disk_is_no_damage(code: int, kind: type[Exception], scratch: Path, monkeypatch) -> None:
    def fail(_: Path) -> None:
        error = sqlite3.DatabaseError("as the test wants it")
        error.sqlite_errorcode = code
        raise error

    monkeypatch.setattr(schema, "_check", fail)
    with pytest.raises(kind, match=r"journal\.db: .*as the test wants it") as caught:
        Journal(scratch / "journal.db")
    assert type(caught.value) is kind
