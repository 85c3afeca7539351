"""A journal with as many micrographs as a long session has."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from drpwatch.micrograph import Fingerprint, ImageHeader, Outcome, PickParams, Picks, Pictures
from drpwatch.session.journal import Journal
from drpwatch.session.lifecycle import Verb
from drpwatch.session.outputs import SessionOutputs
from drpwatch.session.records import PinnedWeights, SessionSpec
from drpwatch.session.thumbnails import Thumbnails
from tests.daemon.fake_picker import SHA256

HEADER = ImageHeader((4096, 4096), np.dtype("<f4"), 1024, (1.0, 1.0))
PER_SQUARE = 50
BAD_SQUARE = 7  # the carbon broke there


def long_session(root: Path, count: int, candidates: int, pictures: int = 24, name: str = "long") -> None:
    """Make `root/state/journal.db` with a completed session, and pictures of its newest micrographs."""
    (root / "state").mkdir(mode=0o750)
    (root / "mics").mkdir()
    out = root / "out"
    journal = Journal(root / "state" / "journal.db")
    weights = PinnedWeights(SHA256, 0.5)
    session = journal.add_session(
        SessionSpec(name, root / "mics", out, PickParams(150.0)), 1_790_000_000.0, weights
    )
    journal.advance(name, Verb.START, 1_790_000_000.0)
    random = np.random.default_rng(1)
    session = journal.session(name)
    with journal.transaction():
        for number in range(count):
            now = 1_790_000_000.0 + 12.0 * number
            square = number // PER_SQUARE
            micrograph = f"GridSquare_{square:03d}/m{number:05d}.mrc"
            stat = Fingerprint(HEADER.expected_bytes, int(now * 1e9), number + 1)
            if number % 97 == 5:
                journal.note_failed(session.id, micrograph, "blank: every pixel is 0", stat, now)
                continue
            journal.note_ready(session.id, micrograph, HEADER, stat, now)
            ready = journal.ready(session, micrograph)
            n = 0 if number % 31 == 3 else candidates // (8 if square == BAD_SQUARE else 1)
            score = np.sort(random.random(n).astype(np.float32))[::-1].copy()
            picks = Picks(random.random((n, 2)).astype(np.float32) * 4096, score, 0.5, SHA256)
            journal.record(Outcome(ready, picks, seconds={"detect": 0.5}), {}, now + 4.0, 0)
    journal.advance(name, Verb.STOP, now)
    SessionOutputs(journal.session(name), journal).recover()
    journal.advance(name, Verb.DRAINED, now)
    journal.close()
    grey = random.integers(0, 255, (512, 512), np.uint8)
    for number in range(count - pictures, count):
        album = Thumbnails(out, pictures, 10**9)
        album.write(
            f"GridSquare_{number // PER_SQUARE:03d}/m{number:05d}.mrc", Pictures(grey, grey[:256, :256])
        )
