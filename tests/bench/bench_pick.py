"""How long one micrograph takes, stage by stage and end to end, with the model loaded and the file in the page cache.

    python -m tests.bench.bench_pick
    python -m tests.bench.bench_pick --repeats 9 --threads 1 2 4 --device cpu --json pick.json

Two kinds: 4096x4096 float32 and 5760x4092 float16. The stages are those of `drpwatch pick`, one micrograph at a
time with nothing beside it; `draw` makes the pictures of the page, which only the daemon has; `alone` is from the
opened file to durable rows. `in a row` is the time from one micrograph to the next while the next is read ahead.
Medians over repeats, in turns over kinds and numbers of threads, so that other work on the machine slows all of them.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from drpwatch.cores import usable_cores
from drpwatch.formats import mrc
from drpwatch.micrograph import PickParams
from drpwatch.pick.picker import Picker
from drpwatch.service.batch import Batch, Done
from drpwatch.service.inputs import find_inputs
from tests.bench.options import keep, machine, options, table, told
from tests.bench.scenes import DIAMETER_ANGSTROM, write_different

KINDS = {"4096x4096 float32": ((4096, 4096), "float32"), "5760x4092 float16": ((4092, 5760), "float16")}
STAGES = ("read", "prepare", "detect", "choose", "record", "draw", "alone", "in a row")
IN_A_ROW = 4

Seconds = dict[str, list[float]]


def picked(picker: Picker, files: list[Path], params: PickParams) -> tuple[list[Done], list[float]]:
    """Pick files as `drpwatch pick` does, and return when each was durable, from the start on."""
    with tempfile.TemporaryDirectory(dir=files[0].parent.parent) as out:
        with Batch(find_inputs(files), Path(out), params, picker.weights_sha256) as batch:
            started = time.perf_counter()
            done, ends = [], []
            for one in batch.run(picker):
                done.append(one)
                ends.append(time.perf_counter() - started)
        return done, ends


def draw_s(picker: Picker, path: Path, params: PickParams) -> float:
    """Return how long the pictures of a micrograph take."""
    header = mrc.read_header(path)
    pixels = mrc.read_pixels(path, header)
    uploaded = picker.upload(pixels)
    prepared = picker.prepare(uploaded, params.pixel_size_yx(header), params)
    started = time.perf_counter()
    picker.draw(uploaded, prepared)
    return time.perf_counter() - started


def once(picker: Picker, files: list[Path], seconds: Seconds) -> int:
    """Add the times of one repeat to the others, and return the number of picks."""
    params = PickParams(DIAMETER_ANGSTROM)
    (one,), (alone,) = picked(picker, files[:1], params)
    _, ends = picked(picker, files, params)
    for stage, value in one.seconds.items():
        seconds[stage].append(value)
    seconds["draw"].append(draw_s(picker, files[0], params))
    seconds["alone"].append(alone)
    seconds["in a row"].extend(after - before for before, after in itertools.pairwise(ends))
    assert one.n_picks is not None, one.failure
    return one.n_picks


def measure(
    folder: Path,
    kinds: dict[str, tuple[tuple[int, int], str]],
    threads: list[int],
    repeats: int,
    model: str,
    device: str,
) -> dict[str, Any]:
    """Return the medians, by kind and number of threads."""
    started = time.perf_counter()
    picker = Picker.load(model, device)
    load_s = time.perf_counter() - started
    files = {
        kind: write_different(folder / kind.replace(" ", "_"), IN_A_ROW, shape_yx, dtype)
        for kind, (shape_yx, dtype) in kinds.items()
    }
    seconds: dict[tuple[str, int], Seconds] = defaultdict(lambda: defaultdict(list))
    picks = {}
    for repeat in range(repeats + 1):  # the first one warms up
        for kind, count in itertools.product(kinds, threads):
            torch.set_num_threads(count)
            picks[kind] = once(
                picker, files[kind], defaultdict(list) if repeat == 0 else seconds[kind, count]
            )
    return {
        "load_s": round(load_s, 2),
        "device": str(picker.device),
        "repeats": repeats,
        "picks": picks,
        "seconds": {
            kind: {
                str(count): {
                    stage: round(statistics.median(values), 4)
                    for stage, values in seconds[kind, count].items()
                }
                for count in threads
            }
            for kind in kinds
        },
    }


def main() -> None:
    """Run the bench and print its table."""
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, usable_cores()}))
    parser.add_argument("--model", default="general")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), KINDS, given.threads, given.repeats, given.model, given.device)
    result["machine"] = machine()
    rows = [
        [kind, threads, *(f"{seconds[stage]:.3f}" for stage in STAGES)]
        for kind, by_threads in result["seconds"].items()
        for threads, seconds in by_threads.items()
    ]
    print(table(["micrograph", "threads", *STAGES], rows))
    print(f"\nmedians of {given.repeats}, seconds; on {result['device']}; {told(result['machine'])}")
    keep(result, given.json)


if __name__ == "__main__":
    main()
