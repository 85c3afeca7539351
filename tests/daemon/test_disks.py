"""The real process on disks that are full, read-only or gone: nothing lost, nothing doubled, it goes on by itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.daemon.disks import SmallDisk, small_disk
from tests.daemon.rig import ROOT, Rig
from tests.support import PATIENCE, eventually

N = 12


def held_back(rig: Rig, sentence: str, session: str = "s1") -> None:
    """The daemon says what is wrong, wherever somebody may look, and keeps the queue."""
    eventually(lambda: sentence in "".join(rig.control.session(session)["problems"]), 20, sentence)
    status, text = rig.get("/readyz")
    assert (status, sentence in text) == (503, True), text
    eventually(lambda: rig.metric(f'drpwatch_output_writable{{session="{session}"}}') == 0.0, 5, "the metric")
    assert rig.get("/livez")[0] == 200


def at_work(rig: Rig) -> None:
    """All is well again, and all is written, without anybody's doing."""
    eventually(lambda: not rig.control.session("s1")["behind"], 30, "the files are as the journal says")
    eventually(lambda: rig.get("/readyz")[0] == 200, 30, f"ready again: {rig.get('/readyz')}")
    eventually(lambda: rig.metric('drpwatch_output_writable{session="s1"}') == 1.0, 5, "the metric")


def write(rig: Rig, first: int) -> dict[str, int]:
    seeds = {f"grid {n % 3}/mic_{n:03d}.mrc": n for n in range(first, first + N)}
    for name, seed in seeds.items():
        rig.write(name, seed)
    return seeds


@contextmanager
def reader(directory: Path) -> Iterator[None]:
    """Another program reads the tables with gemmi, as fast as it can, and finds nothing to complain of."""
    command = [sys.executable, "-m", "tests.campaign.reader", str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield
        seen = json.loads(process.communicate(timeout=PATIENCE * 30)[0])
    assert seen["complaints"] == []
    assert seen["reads"] > 100


def full(rig: Rig, disk: SmallDisk) -> Iterator[str]:
    disk.fill()
    yield "no space left on device"
    rig.kill()  # the queue outlives the process
    rig.start()
    yield "no space left on device"
    disk.free()


def read_only(rig: Rig, disk: SmallDisk) -> Iterator[str]:
    disk.read_only(on=True)
    yield "read-only file system"
    disk.read_only(on=False)


def unmounted(rig: Rig, disk: SmallDisk) -> Iterator[str]:
    disk.hide(rig.out_dir())
    yield "it seems to be unmounted"
    assert list(rig.out_dir().rglob("*.star")) == []
    disk.show_at(rig.out_dir())


def test_output_on_a_disk_of_its_own(rig: Rig, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk, reader(rig.out_dir()):
        disk.show_at(rig.out_dir())
        rig.start()
        rig.start_session()
        seeds = write(rig, 0)
        rig.picked(len(seeds))
        for fault in (full, read_only, unmounted):
            picked = len(seeds)
            sentences = fault(rig, disk)
            sentence = next(sentences)
            seeds |= write(rig, picked)
            held_back(rig, sentence)
            for sentence in sentences:
                held_back(rig, sentence)
            rig.picked(len(seeds))
            at_work(rig)
            rig.check(seeds)
        rig.close()
        disk.hide(rig.out_dir())


def test_a_full_disk_of_the_journal(rig: Rig) -> None:
    with small_disk(rig.root / "state", size_kib=8192) as disk:
        rig.start()
        rig.start_session()
        seeds = write(rig, 0)
        rig.picked(N)
        disk.fill()
        seeds |= write(rig, N)
        held_back(rig, "database or disk is full")
        rig.kill()
        rig.start()
        held_back(rig, "database or disk is full")
        disk.free()
        rig.picked(2 * N)
        at_work(rig)
        rig.check(seeds)
        assert rig.stop() == 0
        disk.fill()
        rig.start(wait=False)
        eventually(lambda: rig.events("journal_waited_for"), 20, "it waits for its journal")
        seeds |= write(rig, 2 * N)
        disk.free()
        eventually(rig.answers, 20, "it goes on")
        rig.picked(3 * N)
        rig.check(seeds)
        rig.close()


def take_away(directory: Path) -> None:
    """Delete all of it at once; else the daemon puts back what is still being deleted."""
    shutil.rmtree(directory.rename(directory.with_name("gone")))


def test_outputs_that_somebody_takes_away(rig: Rig) -> None:
    rig.start()
    rig.start_session()
    seeds = write(rig, 0)
    rig.picked(N)
    take_away(rig.out_dir())
    eventually(lambda: (rig.out_dir() / "particles.star").exists(), 10, "they come back")
    seeds |= write(rig, N)
    rig.picked(2 * N)
    at_work(rig)
    rig.check(seeds)
    take_away(rig.out_dir())
    rig.out_dir().write_text("in the way")
    seeds |= write(rig, 2 * N)
    held_back(rig, "not a directory")
    rig.out_dir().unlink()
    rig.picked(3 * N)
    at_work(rig)
    rig.check(seeds)
