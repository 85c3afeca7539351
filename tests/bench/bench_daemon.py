"""What the daemon keeps up with: files in the page cache, with scan, STAR files and journal in the loop.

    python -m tests.bench.bench_daemon
    python -m tests.bench.bench_daemon --files 200 --size 2048x2048 --dtype float32 --device cpu --json daemon.json

The real process with the real model finds all files at once. `seconds a micrograph` is from one durable micrograph
to the next, between the first and the last. What of it is not picking (prepare, detect, choose) is the price of all
the rest: waiting for a read, pictures for the page, Python. Scan, read, record and the journal's commits have
threads of their own; their seconds run beside, and on a busy machine hold up the picker by the cores that they take.
"""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.options import keep, machine, options, shape, table, told
from tests.bench.scenes import DIAMETER_ANGSTROM, write_different
from tests.daemon.rig import REAL, Rig, cpu_seconds, recorded_at
from tests.support import eventually

PICKING = ("prepare", "detect", "choose")
BESIDE = {
    "scan": "scan_seconds",
    "read": 'stage_seconds{stage="read"}',
    "record": 'stage_seconds{stage="record"}',
    "journal commits": "journal_commit_seconds",
}


def sum_of(metrics: str, name: str) -> float:
    """Return the sum of a histogram, over all of its series that match NAME or NAME{LABELS}."""
    name, _, labels = name.partition("{")
    pattern = rf"^drpwatch_{name}_sum(\{{.*\}})? (\S+)$"
    found = re.findall(pattern, metrics, re.M)
    return sum(float(value) for told_labels, value in found if labels.rstrip("}") in told_labels)


def measure(
    folder: Path, files: int, shape_yx: tuple[int, int], dtype: str, device: str, threads: int
) -> dict[str, Any]:
    """Return the figures."""
    folder.mkdir(exist_ok=True)
    rig = Rig(folder, program=REAL, pick={"device": device, "cpu_threads": threads})
    write_different(rig.watch_dir(), files, shape_yx, dtype)
    try:
        started = time.perf_counter()
        rig.start(wait=False)
        eventually(lambda: rig.answers() and rig.get("/readyz")[0] == 200, 300, "the daemon is ready")
        ready_s = time.perf_counter() - started
        cpu_s = -cpu_seconds(rig.pid)
        rig.start_session(diameter_angstrom=DIAMETER_ANGSTROM)
        rig.picked(files, within_s=60 * files)
        cpu_s += cpu_seconds(rig.pid)
        metrics = rig.get("/metrics")[1]
        ends = sorted(recorded_at(rig).values())
        picks = sum(event["picks"] for event in rig.events("micrograph_picked"))
    finally:
        rig.close()
    each_s = (ends[-1] - ends[0]) / (files - 1)
    stages = {stage: sum_of(metrics, f'stage_seconds{{stage="{stage}"}}') / files for stage in PICKING}
    picking_s = sum(stages.values())
    return {
        "files": files,
        "micrograph": f"{shape_yx[0]}x{shape_yx[1]} {dtype}",
        "picks": picks,
        "ready_s": round(ready_s, 2),
        "seconds_each": round(each_s, 4),
        "per_hour": round(3600 / each_s),
        "picking_seconds_each": {stage: round(value, 4) for stage, value in stages.items()},
        "share_not_picking": round(1 - picking_s / each_s, 4),
        "beside_seconds_each": {
            name: round(sum_of(metrics, metric) / files, 5) for name, metric in BESIDE.items()
        },
        "cpu_seconds_each": round(cpu_s / files, 4),
    }


def main() -> None:
    """Run the bench and print its table."""
    parser = options(__doc__)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--size", type=shape, default=(2048, 2048), metavar="HxW")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--dir", type=Path, help="where the files go; else where temporary ones do")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.dir) as folder:
        result = measure(Path(folder), given.files, given.size, given.dtype, given.device, given.threads)
    result["machine"] = machine()
    beside = ", ".join(f"{name} {value:.4f}" for name, value in result["beside_seconds_each"].items())
    header = ["micrograph", "files", "an hour", "seconds each", *PICKING, "not picking", "CPU seconds each"]
    row = [
        result["micrograph"],
        str(result["files"]),
        f"{result['per_hour']:,}",
        f"{result['seconds_each']:.3f}",
        *(f"{value:.3f}" for value in result["picking_seconds_each"].values()),
        f"{100 * result['share_not_picking']:.1f} %",
        f"{result['cpu_seconds_each']:.3f}",
    ]
    print(table(header, [row]))
    print(f"\nin threads beside, seconds each: {beside}\n{told(result['machine'])}")
    keep(result, given.json)


if __name__ == "__main__":
    main()
