"""A session on faulty ground, and the independent check of all that it left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from drpwatch.errors import OutputError
from drpwatch.formats import star
from drpwatch.micrograph import Fingerprint, ImageHeader, Outcome, PickParams, Picks, ReadyMicrograph
from drpwatch.session.lifecycle import Verb
from drpwatch.session.outputs import SessionOutputs
from drpwatch.session.records import MicrographState, PinnedWeights, SessionSpec
from tests.session.faults import Died, Faults, FaultyJournal

HEADER = ImageHeader((100, 120), np.dtype("<f4"), 1024, (1.5, 1.5))


WEIGHTS = PinnedWeights("f" * 64, 0.5)


def picks_of(name: str, version: int, threshold: float = 0.5, diameter_angstrom: float = 150.0) -> Picks:
    """Candidates that follow from name, version and diameter alone; some micrographs have no picks."""
    random = np.random.default_rng([version, int(diameter_angstrom), *name.encode()])
    n = 0 if version % 5 == 4 else int(random.integers(2, 7))
    score = np.sort(random.random(n).astype(np.float32))[::-1].copy()
    score[:1] = 0.9
    return Picks(random.random((n, 2)).astype(np.float32) * 100, score, threshold, WEIGHTS.sha256)


class Bench:
    """One session; `files` is what the world holds: name -> version, negative for one that fails."""

    def __init__(self, root: Path, pixel_size_angstrom: float | None = None) -> None:
        self.root = root
        self.faults = Faults()
        self.files: dict[str, int] = {}
        self.diameters: dict[str, float] = {}  # that each recorded micrograph was picked with
        self.cuts: dict[str, float] = {}  # where its candidates are cut
        self.now = 1000.0
        self.params = PickParams(150.0, pixel_size_angstrom=pixel_size_angstrom)
        self.open()
        spec = SessionSpec("s1", root / "in", root / "out", self.params)
        self.journal.add_session(spec, self.now, WEIGHTS)
        self.journal.advance("s1", Verb.START, self.now)
        self.open_outputs()

    def open(self) -> None:
        self.journal = FaultyJournal(self.root / "journal.db", self.faults)

    def open_outputs(self) -> None:
        self.session = self.journal.session("s1")
        self.outputs = SessionOutputs(self.session, self.journal)
        self.outputs.complete()

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

    def set(self, **values: float | None) -> None:
        """Somebody changes parameters."""
        self.params = replace(self.params, **values)
        self.journal.set_params("s1", self.params, WEIGHTS, self.now)

    def rethreshold(self, threshold: float) -> None:
        """Somebody moves the threshold of everything."""
        self.journal.rethreshold("s1", threshold, self.now)
        self.params = replace(self.params, threshold=threshold)
        self.cuts = dict.fromkeys(self.cuts, threshold)

    def repick(self, names: Iterable[str]) -> None:
        """Somebody wants micrographs picked again; what was junk is still junk."""
        _, waiting = self.journal.pick_again(self.session.id, names, self.now)
        for name in waiting:
            self.reject(name)

    @property
    def threshold(self) -> float:
        """The threshold in force."""
        return WEIGHTS.threshold if self.params.threshold is None else self.params.threshold

    def take(self) -> ReadyMicrograph | None:
        return self.journal.next_ready(self.journal.session("s1"), frozenset(), newest_first_beyond=0)

    def outcome(self, ready: ReadyMicrograph) -> Outcome:
        version, params = ready.fingerprint.mtime_ns, ready.params
        if version % 7 == 6:
            return Outcome(ready, None, failure="blank")
        threshold = WEIGHTS.threshold if params.threshold is None else params.threshold
        picks = picks_of(ready.name, version, threshold, params.diameter_angstrom)
        return Outcome(ready, picks, seconds={"read": 0.25})

    def record(self, ready: ReadyMicrograph) -> bool:
        self.now += 1
        recorded = self.outputs.record(self.outcome(ready), self.now)
        if recorded is not None:
            self.note_recorded(ready)
        self.outputs.complete()
        return recorded is not None

    def record_with_fault(self, ready: ReadyMicrograph, at: int, mode: str) -> bool:
        """Record while the call number `at` goes wrong; return whether it came so far."""
        self.faults.arm(at, mode)
        try:
            self.record(ready)
        except Died:
            self.reopen()
            struck = True
        except OutputError:
            self.check_readable()
            struck = True
        else:
            struck = self.faults.struck
        self.faults.disarm()
        if not self.journal.awaits(ready):
            self.note_recorded(ready)
        return struck

    def note_recorded(self, ready: ReadyMicrograph) -> None:
        """Keep what must be in the outputs of a micrograph that was recorded just now."""
        self.diameters[ready.name] = ready.params.diameter_angstrom
        self.cuts[ready.name] = self.threshold

    def drain(self) -> None:
        while (ready := self.take()) is not None:
            assert self.record(ready)
        self.outputs.complete()

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
            name: picks_of(name, version, self.cuts[name], self.diameters[name])
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
                if s >= np.float32(self.cuts[name])
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
        outdated = 0
        for record in self.journal.micrographs(self.session.id, [MicrographState.PICKED]):
            assert record.weights_sha256 == WEIGHTS.sha256
            now = (self.params.diameter_angstrom, self.threshold)
            assert record.outdated == ((self.diameters[record.name], self.cuts[record.name]) != now)
            outdated += record.outdated
        assert self.journal.count_outdated(self.session.id) == outdated

    def check_rebuild(self) -> None:
        """A rebuild changes no byte."""
        before = self.contents()
        self.outputs.rebuild()
        assert self.contents() == before

    def contents(self) -> dict[str, bytes]:
        out = self.root / "out"
        return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*.star") if p.name[0] != "."}


__all__ = ["Bench", "Died", "picks_of"]
