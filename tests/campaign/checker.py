"""The independent checker: what a session left, against what the microscope did.

It has no line of the daemon: the journal is read with sqlite3, STAR files with gemmi, and what the picker
must have found follows from the microscope's log. Every finding is one sentence; none means that

- each good micrograph of the last generation is in every output exactly once, and nothing else is,
- every bad file has a reason, and no rows,
- journal and STAR files agree to the byte count.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

import gemmi
import numpy as np

from tests.daemon.rule import DEFAULT_THRESHOLD, candidates, image, sha256_of

_PICKS = ("_rlnCoordinateX", "_rlnCoordinateY", "_rlnAutopickFigureOfMerit")
_WEIGHTS = sha256_of("general")
_ROUNDED = np.array([5.1e-4, 5.1e-4, 5.1e-7])  # half of the last decimal of each

Row = tuple[float, float, float]
"""x, y and score as a STAR file has them."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: its kind, and a sentence."""

    kind: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Cut:
    """What a micrograph may have been picked with."""

    diameters_angstrom: frozenset[float]
    thresholds: frozenset[float | None]  # None: that of the weights


@dataclass(slots=True)
class Truth:
    """What the microscope's log says of one session."""

    good: dict[str, int] = field(default_factory=dict)  # name -> seed of its pixels
    bad: dict[str, str] = field(default_factory=dict)  # name -> what is wrong with it
    gone: dict[str, int | None] = field(default_factory=dict)  # name -> seed of what it was
    moved: set[str] = field(default_factory=set)  # names that files had, and have no more
    never: set[str] = field(default_factory=set)  # files that are no micrographs
    earlier: dict[str, set[int]] = field(default_factory=dict)  # seeds of generations before the last


@dataclass(slots=True)
class Report:
    """What a check found, and how much it looked at."""

    findings: list[Finding] = field(default_factory=list)
    good: int = 0
    rows: int = 0
    bad: int = 0

    def add(self, kind: str, sentence: str) -> None:
        self.findings.append(Finding(kind, sentence))

    def counts(self) -> Counter[str]:
        return Counter(finding.kind for finding in self.findings)


def truth(log: Path) -> dict[str, Truth]:
    """Return by session what is so after all that the log says."""
    sessions: dict[str, Truth] = {}
    for line in map(json.loads, log.read_text().splitlines()):
        of = sessions.setdefault(line["session"], Truth())
        name = line["name"]
        before = of.good.pop(name, None)
        if before is not None:
            of.earlier.setdefault(name, set()).add(before)
        of.bad.pop(name, None)
        if line["is"] == "good":
            of.good[name] = line["seed"]
        elif line["is"] == "bad":
            of.bad[name] = line["why"]
        elif line["is"] == "gone":
            of.gone[name] = line["seed"]
        elif line["is"] == "moved":
            of.moved.add(name)
        else:
            of.never.add(name)
    return sessions


def check(journal: Path, log: Path, cuts: Mapping[str, Cut], prefixes: Mapping[str, str]) -> Report:
    """Check all sessions of a journal.

    Parameters
    ----------
    cuts
        By session, what its micrographs may have been picked with.
    prefixes
        By session, what stands before names in the STAR files.
    """
    report = Report()
    truths = truth(log)
    database = sqlite3.connect(f"file:{journal}?mode=ro", uri=True)
    database.row_factory = sqlite3.Row
    try:
        for session in database.execute("SELECT id, name, out_dir FROM session ORDER BY id").fetchall():
            of = truths.pop(session["name"])
            _Session(database, session, of, cuts[session["name"]], prefixes[session["name"]], report).check()
    finally:
        database.close()
    for name in truths:
        report.add("lost", f"the journal has no session {name}")
    return report


class _Session:
    """The check of one session."""

    def __init__(
        self,
        database: sqlite3.Connection,
        session: sqlite3.Row,
        of: Truth,
        cut: Cut,
        prefix: str,
        report: Report,
    ) -> None:
        self._db = database
        self._id: int = session["id"]
        self._session: str = session["name"]
        self._out = Path(session["out_dir"])
        self._truth = of
        self._cut = cut
        self._prefix = prefix
        self._report = report
        records = database.execute(
            "SELECT m.*, p.json AS params FROM micrograph AS m LEFT JOIN params AS p ON p.id = m.params_id"
            " WHERE m.session_id = ?",
            (self._id,),
        ).fetchall()
        self._journal = {row["name"]: row for row in records if row["latest"]}
        self._published = {row["name"]: row for row in records if row["published"]}

    def check(self) -> None:
        runs = self._runs()
        rows = self._without_doubles(runs)
        for name, seed in self._truth.good.items():
            self._good(name, seed, rows.pop(name, []))
        for name, why in self._truth.bad.items():
            self._bad(name, why, rows.pop(name, []))
        for name, seed in self._truth.gone.items():
            self._gone(name, seed, rows.pop(name, []))
        for name in self._truth.moved:
            if rows.pop(name, []) or name in self._published:
                self._add("doubled", name, "still has rows or a picks file, but has another name now")
        for name in rows:
            self._add("stranger", name, "has rows, but the microscope wrote no such micrograph")
        for name in self._truth.never & self._journal.keys():
            self._add("stranger", name, "is in the journal, but is no micrograph")
        self._listed(runs)
        self._journal_is_star(runs)
        self._lengths()

    def _add(self, kind: str, name: str, what: str) -> None:
        self._report.add(kind, f"{self._session}: {name} {what}")

    # ---- micrographs ----------------------------------------------------------------------------

    def _good(self, name: str, seed: int, rows: list[Row]) -> None:
        """A good micrograph is picked, and its rows are those of its last generation."""
        self._report.good += 1
        self._report.rows += len(rows)
        record = self._journal.get(name)
        if record is None:
            return self._add("lost", name, "is not in the journal")
        if record["state"] != "picked":
            return self._add("lost", name, f"is {record['state']}: {record['reason']}")
        if not record["published"]:
            return self._add("lost", name, "is picked but not published")
        cut = self._cut_of(name, record)
        if cut is None:
            return None
        if not _same(rows, _expected(seed, *cut)):
            olds = [old for old in self._truth.earlier.get(name, ()) if _same(rows, _expected(old, *cut))]
            kind = "old generation" if olds else "wrong rows" if rows else "lost"
            return self._add(kind, name, f"has {len(rows)} rows, which are not those of its last generation")
        of_own = self._picks_file(name)
        if of_own is None:
            return self._add("lost", name, "has no picks file")
        if not _same(of_own, rows):
            return self._add("wrong rows", name, "has other rows in its picks file than in particles.star")
        return None

    def _cut_of(self, name: str, record: sqlite3.Row) -> tuple[float, float] | None:
        """Return diameter and threshold by which a micrograph is picked, if they may be so."""
        diameter_angstrom, threshold = _picked_with(record)
        thresholds = {DEFAULT_THRESHOLD if one is None else one for one in self._cut.thresholds}
        if diameter_angstrom not in self._cut.diameters_angstrom:
            self._add("wrong parameters", name, f"was picked for {diameter_angstrom} Å")
            return None
        if threshold not in thresholds:
            self._add("wrong parameters", name, f"is cut at {threshold}")
            return None
        return diameter_angstrom, threshold

    def _bad(self, name: str, why: str, rows: list[Row]) -> None:
        """A bad file has a reason, and no rows."""
        self._report.bad += 1
        record = self._journal.get(name)
        if rows or self._picks_file(name) is not None:
            self._add("old generation", name, f"has rows, but is {why} now")
        if record is None:
            self._add("no reason", name, f"is not in the journal; it is {why}")
        elif record["state"] != "failed" or not record["reason"]:
            self._add("no reason", name, f"is {record['state']} ({record['reason']}); it is {why}")

    def _gone(self, name: str, seed: int | None, rows: list[Row]) -> None:
        """Of a file that was deleted there are the rows of what it was, or none.

        It cannot be picked again, so it may be cut as was usual in its time.
        """
        record = self._published.get(name)
        if record is None:
            if rows:
                self._add("stranger", name, "has rows, but is not picked")
            return
        if seed is None:
            return self._add("stranger", name, "is picked, but never was a micrograph")
        if not _same(rows, _expected(seed, *_picked_with(record))):
            self._add("wrong rows", name, "was deleted, and its rows are not what it was")
        return None

    # ---- files ----------------------------------------------------------------------------------

    def _runs(self) -> list[tuple[str, list[Row]]]:
        """Return the rows of particles.star, those of one micrograph that follow each other together."""
        table = _table(self._out / "particles.star", "particles")
        if table is None:
            self._report.add("torn", f"{self._session}: particles.star is not there, or gemmi refuses it")
            return []
        names = map(gemmi.cif.as_string, table.find_values("_rlnMicrographName"))
        numbers = zip(*(map(float, table.find_values(label)) for label in _PICKS), strict=True)
        pairs = [(name, row) for name, row in zip(names, numbers, strict=True)]
        return [(name, [row for _, row in run]) for name, run in groupby(pairs, key=lambda pair: pair[0])]

    def _without_doubles(self, runs: list[tuple[str, list[Row]]]) -> dict[str, list[Row]]:
        """Return rows by name below the watch root, and report names that come in two places."""
        rows: dict[str, list[Row]] = {}
        for name, run in runs:
            inside = name.removeprefix(self._prefix)
            if not name.startswith(self._prefix):
                self._add("stranger", name, f"has not the prefix {self._prefix!r}")
            if inside in rows or len(set(run)) < len(run):
                self._add("doubled", inside, "has rows twice")
            rows[inside] = run
        return rows

    def _picks_file(self, name: str) -> list[Row] | None:
        """Return the rows of a micrograph's own file, None where there is none."""
        path = self._picks_path(name)
        if not path.exists():
            return None
        table = _table(path, "")
        if table is None:
            self._report.add("torn", f"{self._session}: gemmi refuses {path.name}")
            return None
        return list(zip(*(map(float, table.find_values(label)) for label in _PICKS), strict=True))

    def _picks_path(self, name: str) -> Path:
        path = PurePosixPath(name)
        return self._out / path.with_name(f"{path.stem}_autopick.star")

    def _listed(self, runs: list[tuple[str, list[Row]]]) -> None:
        """autopick.star lists each micrograph with rows once, and its own file; there are no others."""
        table = _table(self._out / "autopick.star", "coordinate_files")
        if table is None:
            return self._report.add(
                "torn", f"{self._session}: autopick.star is not there, or gemmi refuses it"
            )
        names = [*map(gemmi.cif.as_string, table.find_values("_rlnMicrographName"))]
        paths = [*map(gemmi.cif.as_string, table.find_values("_rlnMicrographCoordinates"))]
        for name, count in Counter(names).items():
            if count > 1:
                self._add("doubled", name, "is listed twice in autopick.star")
        with_rows = [name for name, _ in runs]
        for name in {*with_rows} ^ {*names}:
            self._add("lost" if name in with_rows else "stranger", name, "is only in one of the tables")
        for name, path in zip(names, paths, strict=True):
            if path != str(self._picks_path(name.removeprefix(self._prefix))):
                self._add("wrong rows", name, f"has its picks in {path}")
        written = {*self._out.rglob("*_autopick.star")} - {self._out / "coords_suffix_autopick.star"}
        wanted = {self._picks_path(name) for name in self._published}
        for path in written - wanted:
            self._report.add("stranger", f"{self._session}: {path} stands for no micrograph that is picked")
        for path in wanted - written:
            self._report.add("lost", f"{self._session}: {path} is not there")
        return None

    # ---- the journal ----------------------------------------------------------------------------

    def _journal_is_star(self, runs: list[tuple[str, list[Row]]]) -> None:
        """What the journal has is what particles.star has, in the same order."""
        found = self._db.execute(
            "SELECT name, threshold, n_picks, latest, yx_score FROM micrograph"
            " JOIN candidates ON micrograph_id = id WHERE session_id = ? AND published = 1 ORDER BY record_seq",
            (self._id,),
        ).fetchall()
        for name, count in Counter(row["name"] for row in found).items():
            if count > 1:
                self._add("doubled", name, "is published in two generations")
        journalled = [(self._prefix + row["name"], rows) for row in found if (rows := list(_chosen(row)))]
        if [name for name, _ in journalled] != [name for name, _ in runs]:
            self._report.add(
                "journal", f"{self._session}: journal and particles.star differ in what they list"
            )
        for (name, rows), (_, run) in zip(journalled, runs, strict=False):
            if not _same(run, rows):
                self._add("journal", name, "has other rows in the journal than in particles.star")
        for row in found:
            if row["n_picks"] != len(list(_chosen(row))):
                self._add("journal", row["name"], "has another number of picks than candidates that reach it")

    def _lengths(self) -> None:
        """The journal knows how long each table is, and that it is up to date."""
        for row in self._db.execute("SELECT * FROM output WHERE session_id = ?", (self._id,)):
            path = self._out / row["file"]
            length = path.stat().st_size if path.exists() else None
            if row["dirty"] or length != row["length_bytes"]:
                self._report.add(
                    "journal", f"{path} has {length} bytes, of which the journal knows {row['length_bytes']}"
                )


def _table(path: Path, block: str) -> gemmi.cif.Block | None:
    """Return a block of a STAR file; None where gemmi refuses it or there is none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        document = gemmi.cif.read_string(content)
    except ValueError:
        return None
    return document.find_block(block) if block else document[0] if len(document) == 1 else None


def _picked_with(record: sqlite3.Row) -> tuple[float, float]:
    """Return the diameter and the threshold by which a micrograph was picked."""
    return json.loads(record["params"])["diameter_angstrom"], record["threshold"]


def _expected(seed: int, diameter_angstrom: float, threshold: float) -> list[Row]:
    """Return the rows that the picks of an image are."""
    yx, score = candidates(image(seed), diameter_angstrom, _WEIGHTS)
    keep = score >= np.float32(threshold)
    return [(float(x), float(y), float(s)) for (y, x), s in zip(yx[keep], score[keep], strict=True)]


def _chosen(row: sqlite3.Row) -> Iterator[Row]:
    """Yield the rows that a micrograph's candidates are in the journal."""
    table: Any = np.frombuffer(row["yx_score"], "<f4").reshape(-1, 3)
    for y, x, score in table[table[:, 2] >= np.float32(row["threshold"])].tolist():
        yield x, y, score


def _same(rows: list[Row], others: list[Row]) -> bool:
    """Tell whether two lists are the same rows, up to rounding."""
    if len(rows) != len(others):
        return False
    return not rows or bool((np.abs(np.array(rows) - np.array(others)) <= 2 * _ROUNDED).all())
