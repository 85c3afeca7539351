"""A session on faulty ground, and the independent check of all that it left."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from drpwatch.formats import star
from drpwatch.micrograph import Fingerprint, ImageHeader, Outcome, PickParams, Picks, ReadyMicrograph
from drpwatch.session.lifecycle import Verb
from drpwatch.session.outputs import SessionOutputs
from drpwatch.session.records import MicrographState, SessionSpec
from tests.session.faults import Died, Faults, FaultyJournal

HEADER = ImageHeader((100, 120), np.dtype("<f4"), 1024, (1.5, 1.5))


def picks_of(name: str, version: int, threshold: float = 0.5) -> Picks:
    """Candidates that follow from name and version alone; some micrographs have no picks."""
    random = np.random.default_rng([version, *name.encode()])
    n = 0 if version % 5 == 4 else int(random.integers(2, 7))
    score = np.sort(random.random(n).astype(np.float32))[::-1].copy()
    score[:1] = 0.9
    return Picks(random.random((n, 2)).astype(np.float32) * 100, score, threshold, "f" * 64)


class Bench:
    """One session; `files` is what the world holds: name -> version, negative for one that fails."""

    def __init__(self, root: Path, threshold: float = 0.5, pixel_size_angstrom: float | None = None) -> None:
        self.root, self.threshold = root, threshold
        self.faults = Faults()
        self.files: dict[str, int] = {}
        self.now = 1000.0
        self.params = PickParams(150.0, pixel_size_angstrom=pixel_size_angstrom)
        self.open()
        self.journal.add_session(SessionSpec("s1", root / "in", root / "out", self.params), self.now)
        self.journal.advance("s1", Verb.START, self.now)
        self.open_outputs()

    def open(self) -> None:
        self.journal = FaultyJournal(self.root / "journal.db", self.faults)

    def open_outputs(self) -> None:
        self.session = self.journal.session("s1")
        self.outputs = SessionOutputs(self.session, self.journal)
        self.outputs.recover()

    def reopen(self) -> None:
        """Start again after the process died."""
        self.faults.disarm()
        self.journal.close()
        self.open()
        self.open_outputs()

    def close(self) -> None:
        self.faults.disarm()
        self.journal.close()

    def appear(self, name: str, version: int) -> None:
        """A file is found whole, or found again with another content."""
        self.now += 1
        self.files[name] = version
        self.journal.note_ready(self.session.id, name, HEADER, self._fingerprint(version), self.now)

    def reject(self, name: str) -> None:
        """A file settles as junk."""
        self.now += 1
        self.files[name] = -1
        self.journal.note_failed(self.session.id, name, "junk", Fingerprint(1, int(self.now), 1), self.now)

    def take(self) -> ReadyMicrograph | None:
        return self.journal.next_ready(self.session, frozenset())

    def outcome(self, ready: ReadyMicrograph) -> Outcome:
        version = ready.fingerprint.mtime_ns
        if version % 7 == 6:
            return Outcome(ready, None, failure="blank")
        return Outcome(ready, picks_of(ready.name, version, self.threshold), seconds={"read": 0.25})

    def record(self, ready: ReadyMicrograph) -> bool:
        self.now += 1
        return self.outputs.record(self.outcome(ready), self.now)

    def drain(self) -> None:
        while (ready := self.take()) is not None:
            assert self.record(ready)
        self.outputs.recover()

    def die(self) -> None:
        """The process is gone, whatever it was doing."""
        self.faults.dead = True

    @staticmethod
    def _fingerprint(version: int) -> Fingerprint:
        return Fingerprint(HEADER.expected_bytes, version, 1)

    # ---- what must be true ----------------------------------------------------------------------

    def check_readable(self) -> None:
        """What there is parses strictly, with at most one generation of each micrograph."""
        for name in ("particles.star", "autopick.star"):
            path = self.root / "out" / name
            if path.exists():
                star.read(path)

    def check_complete(self) -> None:
        """Each micrograph of the world is in the outputs exactly once, by its last version."""
        expected = {
            name: picks_of(name, version, self.threshold)
            for name, version in self.files.items()
            if version >= 0 and version % 7 != 6
        }
        rows: dict[str, list[tuple[float, float, float]]] = {}
        path = self.root / "out" / "particles.star"
        if expected:
            block = star.read(path)["particles"]
            for x, y, score, name, *_ in block.rows:
                rows.setdefault(name, []).append((float(y), float(x), float(score)))
        want = {}
        for name, picks in expected.items():
            chosen = [
                (round(float(y), 3), round(float(x), 3), round(float(s), 6))
                for (y, x), s in zip(picks.yx_px, picks.score, strict=True)
                if s >= np.float32(self.threshold)
            ]
            if chosen:
                want[name] = chosen
            (block,) = star.read(self.root / "out" / name.replace(".mrc", "_autopick.star")).values()
            assert len(block.rows) == len(chosen)
        left = {path for path in self.contents() if path.endswith("_autopick.star")}
        assert left - {"coords_suffix_autopick.star"} == {
            name.replace(".mrc", "_autopick.star") for name in expected
        }
        assert rows == want
        listed = star.read(self.root / "out" / "autopick.star")["coordinate_files"].column(
            "rlnMicrographName"
        )
        assert sorted(listed) == sorted(want)
        self._check_journal(want, expected)

    def _check_journal(self, want: dict, expected: dict) -> None:
        totals = self.journal.totals(self.session.id)
        assert (totals.waiting, totals.ready) == (0, 0)
        assert totals.picked == len(expected)
        assert totals.failed == len(self.files) - len(expected)
        assert totals.picks == sum(map(len, want.values()))
        for name, state in self.journal.outputs(self.session.id).items():
            assert not state.dirty
            assert state.length_bytes == (self.root / "out" / name).stat().st_size
        for record in self.journal.micrographs(self.session.id, [MicrographState.PICKED]):
            assert record.weights_sha256 == "f" * 64

    def check_rebuild(self) -> None:
        """A rebuild changes no byte."""
        before = self.contents()
        self.outputs.rebuild()
        assert self.contents() == before

    def contents(self) -> dict[str, bytes]:
        out = self.root / "out"
        return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*.star") if p.name[0] != "."}


__all__ = ["Bench", "Died", "picks_of"]
