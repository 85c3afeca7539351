"""Latency under load: from a micrograph being complete to its rows being durable, and the daemon's memory.

    python -m tests.bench.bench_latency
    python -m tests.bench.bench_latency --known 20000 --seconds 600 --settle-s 5 --poll-s 5 --dir /data/scratch

The real daemon, with a picker that takes no time, first picks so many tiny micrographs in 50 sub-directories.
Then one new micrograph comes each second, copied in as rsync does. A latency is counted from the rename that
completes the file to the daemon's log event, which follows the last fsync and the journal's commit. Prints JSON.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.daemon.rig import Rig, write_image
from tests.support import eventually

SUB_DIRECTORIES = 50
LIMIT_BEYOND_SETTLE_S = 3.0
_MIB = 1 << 20


def make_known(rig: Rig, count: int) -> float:
    """Have so many micrographs picked, and return in how many seconds."""
    for n in range(count):
        path = rig.watch_dir() / f"square_{n % SUB_DIRECTORIES}" / f"known_{n:06d}.mrc"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, n)
    begun = time.monotonic()
    rig.start()
    rig.start_session()
    eventually(lambda: time.sleep(1) or rig.counts()["picked"] >= count, 3600, f"{count} are picked")
    return time.monotonic() - begun


def expose(rig: Rig, seconds: int) -> tuple[dict[str, float], list[tuple[float, float]], list[float]]:
    """Write a micrograph a second.

    Returns
    -------
    tuple
        When each was complete (unix seconds), (seconds, MiB) of the daemon's memory, and load averages.
    """
    assert rig.process is not None
    status = Path(f"/proc/{rig.process.pid}/status")
    complete, memory, load = {}, [], []
    begun = time.monotonic()
    for n in range(seconds):
        time.sleep(max(0.0, begun + n - time.monotonic()))
        name = f"square_{n % SUB_DIRECTORIES}/new_{n:06d}.mrc"
        path = rig.watch_dir() / name
        beside = path.with_name(f".{path.name}.Xy12Zw")
        write_image(beside, 10_000_000 + n)
        beside.rename(path)
        complete[name] = time.time()
        resident = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
        memory.append((time.monotonic() - begun, int(resident.split()[1]) / 1024))
        load.append(os.getloadavg()[0])
    return complete, memory, load


def durable(rig: Rig) -> dict[str, float]:
    """Return when each micrograph was recorded, in unix seconds."""
    return {
        event["micrograph"]: datetime.datetime.fromisoformat(event["timestamp"]).timestamp()
        for event in rig.events("micrograph_picked")
    }


def measure(folder: Path, known: int, seconds: int, settle_s: float, poll_s: float) -> dict[str, Any]:
    """Return the figures."""
    rig = Rig(folder, settle_s=settle_s, poll_interval_s=poll_s)
    try:
        known_s = make_known(rig, known)
        complete, memory, load = expose(rig, seconds)
        rig.picked(known + seconds, within_s=settle_s + 60)
        ends = durable(rig)
        cpu = os.sysconf("SC_CLK_TCK")
        assert rig.process is not None
        fields = Path(f"/proc/{rig.process.pid}/stat").read_text().rpartition(")")[2].split()
        cpu_s = (int(fields[11]) + int(fields[12])) / cpu
    finally:
        rig.close()
    latencies = sorted(ends[name] - at for name, at in complete.items())
    third = max(1, len(memory) // 3)
    first, last = (statistics.median(mib for _, mib in part) for part in (memory[:third], memory[-third:]))
    percentile = {q: latencies[min(len(latencies) - 1, int(len(latencies) * q / 100))] for q in (50, 90, 99)}
    return {
        "known": known,
        "known_picked_in_s": round(known_s, 1),
        "new": len(latencies),
        "settle_s": settle_s,
        "poll_interval_s": poll_s,
        "latency_s": {f"p{q}": round(value, 3) for q, value in percentile.items()}
        | {"max": round(latencies[-1], 3)},
        "p99_beyond_settle_s": round(percentile[99] - settle_s, 3),
        "within_limit": percentile[99] < settle_s + LIMIT_BEYOND_SETTLE_S,
        "memory_mib": {"first_third": round(first, 1), "last_third": round(last, 1)},
        "daemon_cpu_s": round(cpu_s, 1),
        "load_average": round(statistics.mean(load), 2),
    }


def main() -> int:
    """Run the bench and print its result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--known", type=int, default=20_000)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--settle-s", type=float, default=5.0)
    parser.add_argument("--poll-s", type=float, default=5.0)
    parser.add_argument("--dir", type=Path, help="where the files go; else where temporary ones do")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.dir) as folder:
        result = measure(Path(folder), given.known, given.seconds, given.settle_s, given.poll_s)
    result |= {"cores": os.cpu_count(), "python": platform.python_version()}
    print(json.dumps(result, indent=2))
    return 0 if result["within_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
