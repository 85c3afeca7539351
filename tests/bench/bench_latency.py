"""Latency under load: from a micrograph being complete to its rows being durable, and the daemon's memory.

    python -m tests.bench.bench_latency --real --json latency.json
    python -m tests.bench.bench_latency --known 20000 --per-hour 3600 --seconds 600 --settle-s 5 --poll-s 5
    python -m tests.bench.bench_latency --real --size 4096x4096 --device cuda --dir /data/scratch

The real daemon first finishes so many tiny micrographs in 50 sub-directories. Then new ones come, a thousand an
hour unless told otherwise, copied in as rsync does. A latency is counted from the rename that completes the file to
the daemon's log event, which follows the last fsync and the journal's commit. Without `--real` the micrographs are
tiny and the picker takes no time: what is left is drpwatch's own. With it they are full and the model picks them
(the tiny ones, too small for a particle, fail). Prints JSON; exits with 1 if 99 % take longer than the limit.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from drpwatch.formats.mrc import write_mrc
from tests.bench.options import keep, machine, options, shape
from tests.bench.scenes import PIXEL_SIZE_ANGSTROM, micrograph
from tests.daemon.rig import FAKE_PICKER, REAL, Rig, cpu_seconds, recorded_at, write_image
from tests.support import eventually

SUB_DIRECTORIES = 50
LIMIT_BEYOND_SETTLE_S = 3.0

Write = Callable[[Path, int], None]  # a micrograph that is like no other of another number


def real_images(shape_yx: tuple[int, int]) -> Write:
    """Return what writes full micrographs."""
    pixels = micrograph(1, shape_yx)
    return lambda path, n: write_mrc(path, np.roll(pixels, 16 * n, axis=(0, 1)), PIXEL_SIZE_ANGSTROM)


def tiny_images(path: Path, n: int) -> None:
    """Write one that takes no time, of the same pixel size: a session has one."""
    write_image(path, n, PIXEL_SIZE_ANGSTROM)


def finished(rig: Rig) -> int:
    """Return how many micrographs are over and done with."""
    counts = rig.counts()
    return counts["picked"] + counts["failed"]


def make_known(rig: Rig, count: int) -> float:
    """Have so many micrographs finished, and return in how many seconds."""
    for n in range(count):
        path = rig.watch_dir() / f"square_{n % SUB_DIRECTORIES}" / f"known_{n:06d}.mrc"
        path.parent.mkdir(parents=True, exist_ok=True)
        tiny_images(path, n)
    begun = time.monotonic()
    rig.start(wait=False)
    eventually(lambda: rig.answers() and rig.get("/readyz")[0] == 200, 300, "the daemon is ready")
    rig.start_session()
    eventually(lambda: time.sleep(1) or finished(rig) >= count, 3600, f"{count} are finished")
    return time.monotonic() - begun


def expose(
    rig: Rig, count: int, every_s: float, write: Write
) -> tuple[dict[str, float], list[float], list[float]]:
    """Write micrographs, one at a time.

    Returns
    -------
    tuple
        When each was complete (unix seconds), MiB of the daemon's memory, and load averages.
    """
    status = Path(f"/proc/{rig.pid}/status")
    complete, memory_mib, load = {}, [], []
    begun = time.monotonic()
    for n in range(count):
        time.sleep(max(0.0, begun + n * every_s - time.monotonic()))
        name = f"square_{n % SUB_DIRECTORIES}/new_{n:06d}.mrc"
        path = rig.watch_dir() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.Xy12Zw")
        write(beside, 10_000_000 + n)
        beside.rename(path)
        complete[name] = time.time()
        resident = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
        memory_mib.append(int(resident.split()[1]) / 1024)
        load.append(os.getloadavg()[0])
    return complete, memory_mib, load


def measure(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Return the figures."""
    rig = Rig(
        folder,
        given.settle_s,
        REAL if given.real else FAKE_PICKER,
        given.poll_s,
        pick={"device": given.device, "cpu_threads": given.threads},
    )
    write = real_images(given.size) if given.real else tiny_images
    new = max(1, round(given.seconds * given.per_hour / 3600))
    try:
        known_s = make_known(rig, given.known)
        complete, memory_mib, load = expose(rig, new, 3600 / given.per_hour, write)
        eventually(
            lambda: finished(rig) >= given.known + new, given.settle_s + 300, f"{new} more are finished"
        )
        ends = recorded_at(rig)
        cpu_s = cpu_seconds(rig.pid)
    finally:
        rig.close()
    assert complete.keys() <= ends.keys(), "some of the new ones were not picked"
    latencies = sorted(ends[name] - at for name, at in complete.items())
    third = max(1, len(memory_mib) // 3)
    percentile = {q: latencies[min(len(latencies) - 1, int(len(latencies) * q / 100))] for q in (50, 90, 99)}
    return {
        "micrograph": f"{given.size[0]}x{given.size[1]} float32"
        if given.real
        else "tiny, and a picker without work",
        "known": given.known,
        "known_finished_in_s": round(known_s, 1),
        "new": new,
        "per_hour": given.per_hour,
        "settle_s": given.settle_s,
        "poll_interval_s": given.poll_s,
        "latency_s": {f"p{q}": round(value, 3) for q, value in percentile.items()}
        | {"max": round(latencies[-1], 3)},
        "beyond_settle_s": {f"p{q}": round(value - given.settle_s, 3) for q, value in percentile.items()},
        "within_limit": percentile[99] < given.settle_s + LIMIT_BEYOND_SETTLE_S,
        "memory_mib": {
            "first_third": round(statistics.median(memory_mib[:third]), 1),
            "last_third": round(statistics.median(memory_mib[-third:]), 1),
        },
        "daemon_cpu_s": round(cpu_s, 1),
        "load_average": round(statistics.mean(load), 2),
    }


def main() -> int:
    """Run the bench and print its result."""
    parser = options(__doc__)
    parser.add_argument("--known", type=int, default=1000)
    parser.add_argument("--per-hour", type=float, default=1000.0)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--settle-s", type=float, default=5.0)
    parser.add_argument("--poll-s", type=float, default=5.0)
    parser.add_argument("--real", action="store_true", help="the real model, on full micrographs")
    parser.add_argument("--size", type=shape, default=(4096, 4096), metavar="HxW")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--dir", type=Path, help="where the files go; else where temporary ones do")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.dir) as folder:
        result = measure(Path(folder), given)
    result["machine"] = machine()
    print(json.dumps(result, indent=2))
    keep(result, given.json)
    return 0 if result["within_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
