"""What the second network adds: F and picks without it, with the general one, and adapted to each data set.

    python -m tests.bench.bench_stage2 --suite DIR
    python -m tests.bench.bench_stage2 --suite DIR --model own.safetensors --limit 5 --threads 1 --device cpu

The suite is a folder as `drpwatch evaluate --suite` takes it. Prints a Markdown table, at the default
threshold of each variant. Without the second network, scores and threshold are calibrated anew on simulated
scenes, as the recipe does it. The adapted one is that of `drpwatch train classifier`, with the set's own
micrographs and no labels; where that refuses to adapt, the general one counts. Sets without a truth show the
median number of picks.
"""

from __future__ import annotations

import copy
import math
import threading
import time
from dataclasses import replace

from drpwatch.assess.datasets import DataSet, find_data_sets, read_data_set
from drpwatch.assess.suite import measure
from drpwatch.cli.adapting import spread
from drpwatch.errors import UsageError
from drpwatch.pick.picker import Picker
from drpwatch.pick.weights import Weights
from drpwatch.train.adapt import Adaptation, adapt, look
from drpwatch.train.calibrate import calibrate
from drpwatch.train.judge import features, judge
from drpwatch.train.scenes import Studio, make_all
from tests.bench.options import suite_options, table

SCENES = range(40_000, 40_120)


def without(picker: Picker) -> Picker:
    """Return the same picker without its second network, calibrated for that."""
    info = picker.info
    studio = Studio((), 40, 1, info.preprocessing, true_ice=True)
    scenes = make_all(studio, studio.species(), SCENES, 0, threading.Event(), lambda done: None)
    judged = list(judge(picker.weights.detector.to(picker.device), scenes, info.peaks))
    found = calibrate([features(None, one) for one in judged], judged)
    info = replace(
        info, classifier=None, field_judge=None, calibration=found.calibration, threshold=found.threshold
    )
    return Picker(Weights(info, copy.deepcopy(picker.weights.detector), None, None, ""), picker.device)


def adapted(picker: Picker, data_set: DataSet) -> Picker:
    """Return the picker with its second network adapted to a data set."""
    stop = threading.Event()
    paths = spread([path for path in data_set.micrographs.values() if path is not None], 20)
    seen = look(picker, paths, data_set.params, lambda problem: None, stop)
    classifier, found = adapt(picker, seen, Adaptation(), lambda *_: None, stop)
    info = replace(picker.info, calibration=found.calibration)
    return Picker(
        Weights(info, copy.deepcopy(picker.weights.detector), classifier, picker.weights.field_judge, ""),
        picker.device,
    )


def figure(picker: Picker, data_set: DataSet) -> str:
    """Return F, or the median number of picks where no truth is known."""
    found = measure(picker, data_set)
    if found.result is None:
        return f"{found.median_picks:g} picks"
    f = found.result.pooled.f
    return "-" if math.isnan(f) else f"{f:.3f}"


def main() -> None:
    """Run the bench and print its table."""
    parser = suite_options(__doc__)
    parser.add_argument("--limit", type=int, help="only so many micrographs of each set")
    given = parser.parse_args()
    picker = Picker.load(given.model, given.device, given.threads)
    bare = without(picker)
    rows = []
    for folder in find_data_sets(given.suite):
        data_set = read_data_set(folder, given.limit)
        row = [data_set.name, figure(bare, data_set), figure(picker, data_set)]
        started = time.monotonic()
        try:
            own = adapted(picker, data_set)
        except UsageError as error:
            rows.append([*row, row[-1], f"not adapted: {error}"])
        else:
            seconds = time.monotonic() - started
            rows.append([*row, figure(own, data_set), f"{seconds:.0f} s"])
    print(table(["set", "without", "general", "adapted", "adapting"], rows))


if __name__ == "__main__":
    main()
