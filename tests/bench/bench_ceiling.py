"""How well the detector could do on labelled data sets, had it been trained on them: an upper bound, nothing to ship.

    python -m tests.bench.bench_ceiling --suite DIR
    python -m tests.bench.bench_ceiling --suite DIR --model own.safetensors --steps 400

The shipped detector is trained on with every other micrograph of a set and its labels, and tested on the rest.
The table has the best F over all thresholds of the peaks' height, without the second network, before and after.
What lies between the two is the distance between simulation and this set; what is above neither the detector
nor these labels can give.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np

from drpwatch.assess.datasets import DataSet, find_data_sets, read_data_set
from drpwatch.assess.suite import Measured, measure
from drpwatch.pick.networks import Detector
from drpwatch.pick.picker import Picker
from drpwatch.pick.weights import Calibration, Weights
from drpwatch.train.fit import Fit, Mixture, Schedule, detector_loss
from drpwatch.train.owned import OwnMicrograph, own_examples
from tests.bench.options import suite_options, table

CROP_PX = 160
RATE = 5e-4


def detector_alone(picker: Picker, detector: Detector) -> Picker:
    """Return a picker whose scores are the heights of the peaks, spread over 0 to 1."""
    info = replace(
        picker.info, classifier=None, field_judge=None, calibration=Calibration(offset=-3.0, height=20.0)
    )
    return Picker(Weights(info, detector, None, None, ""), picker.device)


def trained_on(picker: Picker, data_set: DataSet, steps: int) -> Detector:
    """Return the picker's detector, trained on with a labelled data set."""
    assert data_set.truth is not None
    own = [
        OwnMicrograph(path, data_set.params, data_set.truth[name].yx_px)
        for name, path in data_set.micrographs.items()
        if path is not None
    ]
    examples = own_examples(own, picker.info.preprocessing, picker.info.peaks, CROP_PX, lambda done: None)
    network = copy.deepcopy(picker.weights.detector).requires_grad_(True)
    fit = Fit(network.to(picker.device), Schedule(steps, 8, RATE, CROP_PX, averaging=0.98), seed=1)
    loss = detector_loss(Mixture(examples))
    while not fit.done:
        fit.descend(loss)
    return fit.finish()


def every_other(data_set: DataSet, first: int) -> DataSet:
    """Return half of a data set."""
    assert data_set.truth is not None
    names = list(data_set.micrographs)[first::2]
    return replace(
        data_set,
        micrographs={name: data_set.micrographs[name] for name in names},
        truth={name: data_set.truth[name] for name in names},
    )


def figures(found: Measured) -> list[str]:
    """Return the best F and the error there, in diameters."""
    assert found.best is not None
    pooled = found.best.pooled
    return [f"{pooled.f:.3f}", f"{np.median(pooled.distance_px) / found.diameter_px:.3f}"]


def main() -> None:
    """Run the bench and print its table."""
    parser = suite_options(__doc__)
    parser.add_argument("--steps", type=int, default=400)
    given = parser.parse_args()
    picker = Picker.load(given.model, given.device, given.threads)
    rows = []
    for folder in find_data_sets(given.suite):
        data_set = read_data_set(folder, None)
        if data_set.truth is None:
            continue
        known, unseen = every_other(data_set, 0), every_other(data_set, 1)
        before = measure(detector_alone(picker, copy.deepcopy(picker.weights.detector)), unseen)
        after = measure(detector_alone(picker, trained_on(picker, known, given.steps)), unseen)
        rows.append([data_set.name, str(len(unseen.micrographs)), *figures(before), *figures(after)])
    header = ["set", "tested on", "best F", "error", "trained on the rest: best F", "error"]
    print(table(header, rows))


if __name__ == "__main__":
    main()
