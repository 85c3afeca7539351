"""kill -9 at random moments, and a disk that fills up: nothing is lost, nothing doubled."""

import random
import sqlite3
import threading
import time
from pathlib import Path

from drpwatch.errors import StarError
from drpwatch.formats import star
from tests.daemon.rig import Rig
from tests.support import eventually

KILLS = 30
MICROGRAPHS = 60


class Reader(threading.Thread):
    """Reads the session's files all the time, as RELION would; a torn row is an error."""

    def __init__(self, directory: Path) -> None:
        super().__init__(daemon=True)
        self.directory, self.reads, self.error = directory, 0, None
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.02):
            for name in ("particles.star", "autopick.star"):
                if not (self.directory / name).exists():
                    continue
                try:
                    star.read(self.directory / name)
                    self.reads += 1
                except StarError as error:
                    self.error = f"{name}: {error}"
                    return


def test_kill_9_at_random_moments(rig: Rig) -> None:
    draw = random.Random(2026)
    rig.start("--pick-s", "0.1")
    rig.start_session()
    reader = Reader(rig.out_dir())
    reader.start()
    seeds: dict[str, int] = {}
    names = iter([f"grid {n % 3}/mic_{n}.mrc" for n in range(MICROGRAPHS)])
    for kill in range(KILLS):
        for name in (next(names), next(names)):
            seeds[name] = len(seeds)
            rig.write(name, seeds[name])
        if kill % 5 == 4:  # now and then one is written anew
            name = draw.choice(sorted(seeds))
            seeds[name] += 1000
            rig.write(name, seeds[name])
        time.sleep(draw.uniform(0.05, 0.6))
        rig.kill()
        rig.start("--pick-s", "0.1", wait=kill % 3 > 0)  # some die while they start
    if not rig.answers():
        eventually(rig.answers, 20, "the last one answers")
    everything_is_recorded(rig)
    rig.check(seeds)
    reader.over.set()
    reader.join()
    assert reader.error is None
    assert reader.reads > 100
    assert rig.stop() == 0
    journal_agrees(rig, seeds)


def everything_is_recorded(rig: Rig) -> None:
    def quiet() -> bool:
        counts = rig.counts()
        return counts == {"waiting": 0, "ready": 0, "picked": MICROGRAPHS, "failed": 0}

    eventually(quiet, 30, "all are picked")
    time.sleep(1.0)  # a rewritten file is noticed by the next scan, and settles
    eventually(quiet, 30, "all are picked, the rewritten ones again")


def journal_agrees(rig: Rig, seeds: dict[str, int]) -> None:
    journal = sqlite3.connect(rig.root / "state/journal.db")
    rows = dict(journal.execute("SELECT name, n_picks FROM micrograph WHERE published = 1"))
    written = star.read(rig.out_dir() / "particles.star")["particles"].column("rlnMicrographName")
    assert rows == {name: written.count(name) for name in seeds}
    for name, length, dirty in journal.execute("SELECT file, length_bytes, dirty FROM output"):
        assert (length, dirty) == ((rig.out_dir() / name).stat().st_size, 0)


def test_outputs_that_cannot_be_written_are_waited_for(rig: Rig) -> None:
    """A file stands where the directory of the picks should be made."""
    rig.start()
    rig.start_session()
    rig.start_session("other")
    rig.write("a.mrc", 1)
    rig.picked(1)
    (rig.out_dir() / "grid").write_text("in the way")
    rig.write("grid/b.mrc", 2)
    eventually(
        lambda: "cannot write" in "".join(rig.control.session("s1")["problems"]), 10, "a problem is shown"
    )
    assert rig.get("/readyz")[0] == 503
    assert rig.counts()["ready"] == 1
    rig.write("c.mrc", 3, session="other")
    rig.picked(1, "other")
    (rig.out_dir() / "grid").unlink()
    rig.picked(2)
    rig.check({"a.mrc": 1, "grid/b.mrc": 2})
    eventually(lambda: rig.get("/readyz")[0] == 200, 5, "ready again")
