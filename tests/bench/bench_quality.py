"""How the picks on real micrographs change with what should not matter, as Markdown tables.

    python -m tests.bench.bench_quality                 # the real micrographs beside the repository
    python -m tests.bench.bench_quality --suite DIR --model own.safetensors --limit 3 --threads 1

The suite is a folder as `drpwatch evaluate --suite` takes it; data sets without a truth are left out. F is at
the default threshold. "20 % too small" tells the picker a wrong diameter; right is what is right by the true
one. The same picks: of the first micrograph of each set, the share that is within 1 px of the float32
version's, of the larger number of the two.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from drpwatch.assess.datasets import DataSet, find_data_sets, read_data_set
from drpwatch.assess.suite import measure, read_pixels
from drpwatch.pick.picker import Picker
from tests.bench.options import suite_options, table
from tests.real import making, robustness

FACTORS = {"exact": 1.0, "20 % too small": 0.8, "20 % too large": 1.2}


def quality(picker: Picker, data_sets: list[DataSet]) -> str:
    """Return F by the diameter that is told, and how far right picks are off."""
    rows = []
    for data_set in data_sets:
        found = [measure(picker, data_set, diameter_factor=factor) for factor in FACTORS.values()]
        exact = found[0]
        assert exact.result is not None
        f = [one.result.pooled.f for one in found if one.result is not None]
        rows.append(
            [
                data_set.name,
                str(len(exact.micrographs)),
                *(f"{value:.3f}" for value in f),
                f"{100 * (f[0] - min(f)):.1f}",
                f"{exact.result.pooled.recall:.3f}",
                f"{exact.result.pooled.precision:.3f}",
                f"{exact.median_error_diameters:.3f}",
            ]
        )
    header = ["set", "micrographs", *(f"F, {name}" for name in FACTORS), "falls by, points"]
    return table([*header, "recall", "precision", "error/diameter"], rows)


def same_picks(picker: Picker, data_sets: list[DataSet]) -> str:
    """Return the shares of picks that versions of one micrograph have in common."""
    rows = []
    header = ["set"]
    for data_set in data_sets:
        name, path = next((name, path) for name, path in data_set.micrographs.items() if path is not None)
        params = data_set.params
        if params.pixel_size_angstrom is None:
            diameter_px = measure(picker, replace(data_set, micrographs={name: path}, truth=None)).diameter_px
            params = replace(params, pixel_size_angstrom=params.diameter_angstrom / diameter_px)
        found = dict(robustness.shares(picker, read_pixels(path), params))
        header = ["set", *found]
        rows.append([data_set.name, *(f"{share:.3f}" for share in found.values())])
    return table(header, rows)


def main() -> None:
    """Run the bench and print its tables."""
    parser = suite_options(__doc__, required=False)
    parser.add_argument("--limit", type=int, help="only so many micrographs of each set")
    given = parser.parse_args()
    if given.suite is None and not making.available():
        sys.exit(f"{making.DATA} does not have the real micrographs: give --suite")
    with tempfile.TemporaryDirectory() as made:
        suite = given.suite or making.make_suite(Path(made))
        data_sets = [read_data_set(folder, given.limit) for folder in find_data_sets(suite)]
        labelled = [one for one in data_sets if one.truth is not None]
        picker = Picker.load(given.model, given.device, given.threads)
        print(f"model {picker.info.name}, sha256 {picker.weights_sha256[:12]}, on {picker.device}\n")
        print(same_picks(picker, labelled), end="\n\n", flush=True)
        print(quality(picker, labelled))


if __name__ == "__main__":
    main()
