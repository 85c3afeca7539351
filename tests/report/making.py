"""A session in a journal, without a daemon: a microscope's days in a moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from drpwatch.formats.mrc import write_mrc
from drpwatch.micrograph import Fingerprint, ImageHeader, Outcome, PickParams, Picks
from drpwatch.session.journal import Journal
from drpwatch.session.lifecycle import Verb
from drpwatch.session.records import PinnedWeights, SessionSpec

SHAPE = (240, 320)
HEADER = ImageHeader(SHAPE, np.dtype("<f4"), 1024, (3.0, 3.0))
WEIGHTS = PinnedWeights("f" * 64, 0.3)
BEGIN, EVERY_S = 1_790_000_000.0, 12.0
EMPTY, JUNK = "empty", "junk"


class Session:
    """Files are `in/NAME` below the root; names with "empty" have no picks, those with "junk" fail."""

    def __init__(self, root: Path, name: str = "s1", watched: str = "in") -> None:
        self.root, self.name = root, name
        self.path = root / "journal.sqlite"
        self.journal = Journal(self.path)
        params = PickParams(120.0, model="general")
        spec = SessionSpec(name, root / watched, root / "out", params, micrograph_prefix="MotionCorr/job002/")
        self.id = self.journal.add_session(spec, BEGIN, WEIGHTS).id
        for verb in (Verb.START, Verb.FOUND):
            self.journal.advance(name, verb, BEGIN)
        self.count = 0

    def add(self, names: list[str], most_picks: int = 60) -> None:
        """Record micrographs, a few seconds apart."""
        with self.journal.transaction():
            for name in names:
                self._add(name, most_picks)

    def _add(self, name: str, most_picks: int) -> None:
        self.count += 1
        now = BEGIN + EVERY_S * self.count
        random = np.random.default_rng(self.count)
        mark = Fingerprint(1024 + HEADER.data_bytes, int(now * 1e9), self.count)
        if JUNK in name:
            return self.journal.note_failed(self.id, name, "not an MRC file", mark, now)
        self.journal.note_ready(self.id, name, HEADER, mark, now)
        n = 0 if EMPTY in name else int(random.integers(1, most_picks + 1))
        yx = (random.random((n, 2)) * np.array(SHAPE)).astype(np.float32)
        score = np.sort(random.beta(2, 1, n).astype(np.float32))[::-1].copy()
        score[:1] = 0.9
        ready = self.journal.ready(self.journal.session(self.name), name)
        seconds = {"read": 0.1, "detect": 0.5}
        outcome = Outcome(ready, Picks(yx, score, 0.3, WEIGHTS.sha256), seconds=seconds)
        latency_s = 1.0 + float(random.exponential(0.7))
        self.journal.record(outcome, {}, now + latency_s, self.journal.revision(self.id))

    def write(self, name: str) -> None:
        """Write the file of a micrograph."""
        path = self.root / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mrc(path, np.random.default_rng(1).standard_normal(SHAPE, np.float32), 3.0)

    def end(self) -> None:
        for verb in (Verb.STOP, Verb.DRAINED):
            self.journal.advance(self.name, verb, BEGIN + EVERY_S * (self.count + 1))
