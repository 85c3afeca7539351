"""The checker can fail: each way in which a session can be wrong is one that it finds."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from drpwatch.formats import mrc
from drpwatch.micrograph import Fingerprint, Outcome, PickParams
from drpwatch.session.journal import Journal
from drpwatch.session.lifecycle import Verb
from drpwatch.session.outputs import SessionOutputs
from drpwatch.session.records import PinnedWeights, SessionSpec
from tests.campaign.checker import Cut, check
from tests.campaign.microscope import header
from tests.campaign.supervisor import ROOT
from tests.daemon.fake_picker import SHA256, picks_of
from tests.daemon.rule import SHAPE, image

CUT = Cut(frozenset({150.0}), frozenset({None}))
GENERATIONS = {  # name -> seeds, one after the other
    "square/mic_000.mrc": [1],
    "square/mic_001.mrc": [2, 3],
    "square/mic_002.mrc": [4],
    "other/mic_000.mrc": [5],
}
BAD = "square/mic_003.mrc"


class Left:
    """What a session left, made by the daemon's own journal and writer, and the log that goes with it."""

    def __init__(self, root: Path) -> None:
        self.root, self.out, self.log = root, root / "out", root / "log.jsonl"
        self.journal = root / "journal.db"
        params = PickParams(150.0)
        spec = SessionSpec("s1", root / "in", self.out, params, micrograph_prefix="p/")
        journal = Journal(self.journal)
        session = journal.add_session(spec, 1.0, PinnedWeights(SHA256, 0.5))
        journal.advance("s1", Verb.START, 2.0)
        outputs = SessionOutputs(journal.session("s1"), journal)
        for version in range(2):
            for name, seeds in GENERATIONS.items():
                if version < len(seeds):
                    fingerprint = Fingerprint(1, seeds[version], 1)
                    journal.note_ready(session.id, name, mrc.parse_header(header(*SHAPE)), fingerprint, 3.0)
                    ready = journal.next_ready(journal.session("s1"), frozenset(), 0)
                    assert ready is not None
                    outputs.record(Outcome(ready, picks_of(image(seeds[version]), params)), 4.0)
                    outputs.complete()
                    self.note(name, "good", seed=seeds[version])
        journal.note_failed(session.id, BAD, "it is a movie", Fingerprint(1, 1, 1), 5.0)
        self.note(BAD, "bad", why="a movie")
        outputs.complete()
        journal.close()

    def note(self, name: str, what: str, **more: object) -> None:
        with self.log.open("a") as log:
            log.write(json.dumps({"session": "s1", "name": name, "is": what, **more}) + "\n")

    def found(self, cut: Cut = CUT) -> dict[str, int]:
        return dict(check(self.journal, self.log, {"s1": cut}, {"s1": "p/"}).counts())

    def edit(self, table: str, change: Callable[[list[str]], list[str]]) -> None:
        """Change the lines of a file, so that its length is what the journal says."""
        path = self.out / table
        path.write_text("".join(change(path.read_text().splitlines(keepends=True))))
        self.sql("UPDATE output SET length_bytes = ? WHERE file = ?", path.stat().st_size, table)

    def sql(self, statement: str, *values: object) -> None:
        database = sqlite3.connect(self.journal)
        with database:
            database.execute(statement, values)
        database.close()


@pytest.fixture
def left(tmp_path: Path) -> Left:
    return Left(tmp_path)


def of(name: str) -> Callable[[str], bool]:
    return lambda line: f"p/{name}" in line


def test_what_the_daemon_writes_is_right(left: Left) -> None:
    assert left.found() == {}
    report = check(left.journal, left.log, {"s1": CUT}, {"s1": "p/"})
    assert (report.good, report.bad) == (4, 1)
    assert report.rows > 4


def test_a_lost_micrograph(left: Left) -> None:
    name = "square/mic_002.mrc"
    for table in ("particles.star", "autopick.star"):
        left.edit(table, lambda lines: [line for line in lines if not of(name)(line)])
    left.sql("DELETE FROM candidates WHERE micrograph_id = (SELECT id FROM micrograph WHERE name = ?)", name)
    left.sql("DELETE FROM micrograph WHERE name = ?", name)
    (left.out / "square/mic_002_autopick.star").unlink()
    assert left.found() == {"lost": 1}


def test_a_micrograph_that_was_never_picked(left: Left) -> None:
    left.note("square/mic_009.mrc", "good", seed=9)
    assert left.found() == {"lost": 1}


def test_one_lost_row(left: Left) -> None:
    left.edit("particles.star", lambda lines: lines[:-1])
    found = left.found()
    assert found["journal"] >= 1
    assert found["wrong rows"] + found.get("lost", 0) == 1


def test_doubled_rows(left: Left) -> None:
    name = "square/mic_000.mrc"
    left.edit("particles.star", lambda lines: [*lines, *filter(of(name), lines)])
    found = left.found()
    assert found["doubled"] == 1
    assert found["journal"] == 1


def test_one_row_twice_in_its_place(left: Left) -> None:
    left.edit("particles.star", lambda lines: [*lines, lines[-1]])
    assert left.found()["doubled"] == 1


def test_a_micrograph_listed_twice(left: Left) -> None:
    left.edit("autopick.star", lambda lines: [*lines, lines[-1]])
    assert left.found() == {"doubled": 1}


@pytest.mark.parametrize("table", ["particles.star", "autopick.star"])
def test_a_torn_row(left: Left, table: str) -> None:
    left.edit(table, lambda lines: [*lines[:-1], lines[-1].rsplit(" ", 1)[0]])
    assert left.found()["torn"] == 1


def test_rows_of_an_old_generation(left: Left) -> None:
    """The microscope wrote a micrograph anew, and nobody looked."""
    left.note("square/mic_000.mrc", "good", seed=7)
    assert left.found() == {"old generation": 1}


def test_rows_of_a_file_that_is_junk_now(left: Left) -> None:
    left.note("square/mic_000.mrc", "bad", why="truncated")
    assert left.found() == {"old generation": 1, "no reason": 1}


def test_a_bad_file_without_a_reason(left: Left) -> None:
    left.sql("UPDATE micrograph SET reason = '' WHERE name = ?", BAD)
    assert left.found() == {"no reason": 1}


def test_a_bad_file_that_nobody_saw(left: Left) -> None:
    left.note("square/mic_008.mrc", "bad", why="text")
    assert left.found() == {"no reason": 1}


def test_a_micrograph_that_is_none(left: Left) -> None:
    left.log.write_text(left.log.read_text().replace("other/mic_000.mrc", "other/mic_009.mrc"))
    assert left.found() == {"lost": 1, "stranger": 1}


def test_a_file_of_its_own_that_is_missing_or_too_much(left: Left) -> None:
    (left.out / "other/mic_000_autopick.star").rename(left.out / "other/mic_005_autopick.star")
    assert left.found() == {"lost": 2, "stranger": 1}


def test_a_file_that_moved_and_kept_its_rows(left: Left) -> None:
    left.note("other/mic_000.mrc", "moved")
    assert left.found() == {"doubled": 1}


def test_parameters_that_nobody_set(left: Left) -> None:
    left.sql("UPDATE params SET json = replace(json, '150.0', '170.0')")
    assert left.found() == {"wrong parameters": 4}


def test_what_is_gone_keeps_the_parameters_of_its_time(left: Left) -> None:
    later = Cut(frozenset({180.0}), frozenset({None}))
    assert left.found(later) == {"wrong parameters": 4}
    left.note("other/mic_000.mrc", "gone", seed=5)
    assert left.found(later) == {"wrong parameters": 3}


def test_a_journal_that_differs_from_the_files(left: Left) -> None:
    left.sql("UPDATE output SET length_bytes = length_bytes + 1 WHERE file = 'particles.star'")
    assert left.found() == {"journal": 1}


def test_a_doubled_publication(left: Left) -> None:
    left.sql("UPDATE micrograph SET published = 1 WHERE name = 'square/mic_001.mrc'")
    assert left.found()["doubled"] == 1


def test_the_checker_and_the_reader_have_no_line_of_the_daemon() -> None:
    told = "import sys, tests.campaign.{0}; print(sorted(m for m in sys.modules if 'drpwatch' in m))"
    for module in ("checker", "reader", "microscope"):
        command = [sys.executable, "-c", told.format(module)]
        assert subprocess.check_output(command, cwd=ROOT, text=True).strip() == "[]"


# ---- the reader ---------------------------------------------------------------------------------


def complaints(left: Left) -> list[str]:
    """Return what the reader says after one look at all files."""
    command = [sys.executable, "-m", "tests.campaign.reader", str(left.out), str(left.root / "not there")]
    said = json.loads(subprocess.check_output(command, cwd=ROOT, stdin=subprocess.DEVNULL))
    assert (said["reads"], said["missing"]) == (2, 2)
    return [complaint["wrong"] for complaint in said["complaints"]]


def test_a_reader_has_no_complaint_of_what_the_daemon_writes(left: Left) -> None:
    assert complaints(left) == []


@pytest.mark.parametrize(
    ("cut_bytes", "words"), [(30, "gemmi refuses it"), (1, None), (2, "rlnOriginYAngst is '0.00000'")]
)
def test_a_reader_sees_half_a_row(left: Left, cut_bytes: int, words: str | None) -> None:
    path = left.out / "particles.star"
    os.truncate(path, path.stat().st_size - cut_bytes)
    found = complaints(left)
    assert len(found) == (words is not None)
    assert words is None or re.search(words, found[0])


def test_a_reader_sees_a_micrograph_in_two_places(left: Left) -> None:
    left.edit("particles.star", lambda lines: [*lines, *filter(of("square/mic_000.mrc"), lines)])
    (found,) = complaints(left)
    assert "rows in two places: p/square/mic_000.mrc" in found
