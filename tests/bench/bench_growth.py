"""What grows with what: the stages with image size and with picks, a look at the watched tree with known files.

    python -m tests.bench.bench_growth --plot growth.svg
    python -m tests.bench.bench_growth --sides 1024 2048 4096 8192 --candidates 100 1000 3000 --known 1000 100000

Image size: square float32 micrographs, equally crowded. Candidates: one 4096x4096 micrograph and a particle of 60 Å,
for which the least height of a peak is set so that so many are left to be judged and recorded (threshold 0). Known
files: one look at a tree of finished files, as `bench_scan` times it, CPU seconds, and the begin of a session on it.
`power` is how a column grows from the last but one row to the last: 1 with the quantity, 0 not at all. Medians over
repeats, in turns over the rows. The plot (SVG or PNG, by its name) has logarithmic axes.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drpwatch.cores import usable_cores
from drpwatch.formats.mrc import write_mrc
from drpwatch.micrograph import PickParams
from drpwatch.pick.picker import Picker
from tests.bench import bench_scan
from tests.bench.bench_pick import picked
from tests.bench.options import keep, machine, options, table, told
from tests.bench.scenes import DIAMETER_ANGSTROM, PIXEL_SIZE_ANGSTROM, Pixels, micrograph

STAGES = ("read", "prepare", "detect", "choose", "record")
SMALL_ANGSTROM = 60.0
DIRECTORIES = 50

Rows = list[dict[str, float]]


@dataclass(frozen=True)
class Case:
    """What is picked, and by whom."""

    picker: Picker
    file: Path


def time_stages(cases: dict[int, Case], params: PickParams, repeats: int) -> Rows:
    """Return the median seconds of each stage, by a number that tells the cases apart."""
    seconds: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for repeat in range(repeats + 1):  # the first one warms up
        for number, case in cases.items():
            (done,), _ = picked(case.picker, [case.file], params)
            assert done.n_picks is not None, done.failure
            for stage in STAGES if repeat else ():
                seconds[number][stage].append(done.seconds[stage])
    return [
        {"of": number, **{stage: statistics.median(seconds[number][stage]) for stage in STAGES}}
        for number in cases
    ]


def written(folder: Path, pixels: Pixels) -> Path:
    """Write a micrograph into a directory of its own."""
    folder.mkdir(parents=True)
    write_mrc(folder / "one.mrc", pixels, PIXEL_SIZE_ANGSTROM)
    return folder / "one.mrc"


def by_size(folder: Path, picker: Picker, sides: list[int], repeats: int) -> Rows:
    """Return what stages take, by the number of pixels."""
    cases = {
        side**2: Case(picker, written(folder / str(side), micrograph(1, (side, side)))) for side in sides
    }
    return time_stages(cases, PickParams(DIAMETER_ANGSTROM), repeats)


def by_candidates(folder: Path, picker: Picker, counts: list[int], side: int, repeats: int) -> Rows:
    """Return what stages take, by the number of candidates."""
    pixels = micrograph(1, (side, side))
    file, params = written(folder / "crowded", pixels), PickParams(SMALL_ANGSTROM, threshold=0.0)
    prepared = picker.prepare(picker.upload(pixels), (PIXEL_SIZE_ANGSTROM, PIXEL_SIZE_ANGSTROM), params)
    height = np.sort(picker.candidates(picker.detect(prepared, params)).height)[::-1]
    within = [count for count in counts if count <= len(height)]
    cases = {count: Case(at_least(picker, float(height[count - 1])), file) for count in within}
    return time_stages(cases, params, repeats)


def at_least(picker: Picker, height: float) -> Picker:
    """Return a picker that leaves out lower peaks."""
    info = replace(picker.info, peaks=replace(picker.info.peaks, least_height=height))
    return Picker(replace(picker.weights, info=info), picker.device, picker.precision)


def by_known(known: list[int], looks: int) -> Rows:
    """Return what a look costs, and how long a session takes to begin, by the number of known files."""
    found = [bench_scan.measure(files, DIRECTORIES, looks) for files in known]
    return [{"of": one["files"], "look": one["cpu_s"], "begin": one["begin_s"]} for one in found]


def power(rows: Rows, column: str) -> float:
    """Return the exponent with which a column grows from the last but one row to the last."""
    before, last = rows[-2:]
    if min(before["of"], before[column], last[column]) <= 0:
        return math.nan
    return math.log(last[column] / before[column]) / math.log(last["of"] / before["of"])


def grown(what: str, rows: Rows) -> str:
    """Return the table of one quantity."""
    columns = [column for column in rows[0] if column != "of"]
    lines = [[f"{row['of']:,}", *(f"{row[column]:.4f}" for column in columns)] for row in rows]
    return table([what, *columns], [*lines, ["power", *(f"{power(rows, column):.2f}" for column in columns)]])


def plot(parts: dict[str, Rows], file: Path) -> None:
    """Draw all quantities."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(parts), figsize=(4 * len(parts), 3.2), layout="constrained")
    for axis, (what, rows) in zip(axes, parts.items(), strict=True):
        for column in (column for column in rows[0] if column != "of"):
            axis.plot([row["of"] for row in rows], [row[column] for row in rows], marker="o", label=column)
        axis.set(xscale="log", yscale="log", xlabel=what, ylabel="seconds")
        axis.legend(fontsize="small")
    figure.savefig(file)
    pyplot.close(figure)


def main() -> None:
    """Run the bench and print its tables."""
    parser = options(__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 2048, 4096, 8192])
    parser.add_argument("--candidates", type=int, nargs="+", default=[30, 300, 3000])
    parser.add_argument("--known", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", default="general")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--plot", type=Path, metavar="FILE")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        picker = Picker.load(given.model, given.device, given.threads)
        parts = {
            "pixels": by_size(folder / "size", picker, given.sides, given.repeats),
            "candidates": by_candidates(folder, picker, given.candidates, 4096, given.repeats),
            "known files": by_known(given.known, given.repeats),
        }
    result: dict[str, Any] = {"parts": parts, "threads": torch.get_num_threads(), "machine": machine()}
    print("\n\n".join(grown(what, rows) for what, rows in parts.items()))
    print(f"\nseconds, medians of {given.repeats}, {result['threads']} threads; {told(result['machine'])}")
    if given.plot is not None:
        plot(parts, given.plot)
    keep(result, given.json)


if __name__ == "__main__":
    main()
