"""What a look at a watched tree costs, by the number of files that are known: `python -m tests.bench.bench_scan`.

Times are of this thread: `cpu_s` is what the look costs the machine, `wall_s` what it takes, other work on the
machine included. `asked` counts how often a file itself was asked for, which on a network file system goes to
the server: the names come with the listing of a directory.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drpwatch.config import Watch
from drpwatch.formats.mrc import fingerprint
from drpwatch.micrograph import PickParams
from drpwatch.service.clock import Clock
from drpwatch.service.metrics import Metrics
from drpwatch.service.publish import Publisher
from drpwatch.service.watching import SessionWatch
from drpwatch.session.journal import Journal
from drpwatch.session.lifecycle import Verb
from drpwatch.session.records import SessionSpec
from drpwatch.watch import discovery
from drpwatch.watch.scan import NameFilter, scan, sight
from tests.bench.options import keep, machine, options


def plant(root: Path, files: int, directories: int) -> None:
    """Make a tree of empty files, as many in each directory."""
    for grid in range(directories):
        directory = root / f"GridSquare_{grid:03d}" / "Data"
        directory.mkdir(parents=True)
        for index in range(files // directories):
            path = directory / f"FoilHole_{grid:03d}{index:05d}_Data_frames_DW.mrc"
            os.close(os.open(path, os.O_CREAT))


def known_to(journal: Journal, root: Path) -> None:
    """Have a session of which every file is finished."""
    journal.add_session(SessionSpec("s1", root, root / "out", PickParams(150.0)), 0.0)
    journal.advance("s1", Verb.START, 0.0)
    with journal.transaction():
        for name in sorted(scan(root, NameFilter("**/*.mrc")).names):
            marks = fingerprint((root / name).stat())
            journal.note_failed(1, name, "an empty file of the benchmark", marks, 0.0)


@contextmanager
def counting() -> Iterator[list[str]]:
    """Note each file that is asked for."""
    asked: list[str] = []

    def counted(root: Path, name: str) -> object:
        asked.append(name)
        return sight(root, name)

    discovery.sight = counted  # type: ignore[assignment]
    try:
        yield asked
    finally:
        discovery.sight = sight


def measure(files: int, directories: int, looks: int) -> dict[str, float]:
    """Return what looks at a tree of finished files cost, in the middle of so many."""
    with tempfile.TemporaryDirectory(prefix="drpwatch-bench-") as folder:
        root = Path(folder) / "mics"
        plant(root, files, directories)
        journal = Journal(Path(folder) / "journal.db")
        known_to(journal, root)
        now_s = 0.0
        clock = Clock(monotonic=lambda: now_s)
        publisher = Publisher(Metrics(), clock)
        config = Watch(poll_interval_s=5, hints=False)
        started = time.perf_counter()
        watch = SessionWatch(
            journal.session("s1"), journal, config, publisher, clock, threading.Event(), after_restart=False
        )
        begin_s = time.perf_counter() - started
        cpu_s, wall_s = [], []
        with counting() as asked:
            for _ in range(looks):
                now_s += 5
                cpu, wall = time.thread_time(), time.perf_counter()
                watch.look(journal.session("s1"))
                cpu_s.append(time.thread_time() - cpu)
                wall_s.append(time.perf_counter() - wall)
        journal.close()
    return {
        "files": files,
        "directories": directories,
        "begin_s": round(begin_s, 3),
        "cpu_s": round(statistics.median(cpu_s), 4),
        "wall_s": round(statistics.median(wall_s), 4),
        "cpu_s_per_20000": round(statistics.median(cpu_s) * 20_000 / files, 4),
        "asked": len(asked) / looks,
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--files", type=int, nargs="+", default=[1000, 20_000, 100_000])
    parser.add_argument("--directories", type=int, default=50)
    parser.add_argument("--looks", type=int, default=7)
    given = parser.parse_args()
    found = []
    for files in given.files:
        found.append(measure(files, given.directories, given.looks))
        print(json.dumps(found[-1]), flush=True)
    keep({"looks": found, "machine": machine()}, given.json)


if __name__ == "__main__":
    main()
