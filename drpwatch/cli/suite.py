"""`drpwatch evaluate --suite`: data sets that are picked and measured, one line of a table each."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from drpwatch.cli.progress import Bar
from drpwatch.cli.tables import print_table
from drpwatch.errors import DrpwatchError, UsageError
from drpwatch.text import printable

if TYPE_CHECKING:
    from drpwatch.assess.datasets import DataSet
    from drpwatch.assess.pictures import Marks
    from drpwatch.assess.suite import Measured, Picked
    from drpwatch.pick.picker import Picker

_HEADER = (
    *("set", "micrographs", "recall", "precision", "F", "best F", "at"),
    *("error/diameter", "picks", "at most", "s"),
)
_EXPLAINED = (
    "picks: median of a micrograph; at most: what the set is expected to have; best F: had the threshold been\n"
    "that one, for information; error/diameter: median distance of right picks from their particles; s: median\n"
    "seconds of picking a micrograph"
)


def run_suite(
    suite: Path,
    model: str,
    device: str,
    threads: int,
    limit: int | None,
    pictures: Path | None,
    as_json: bool,
) -> None:
    """Pick and measure all data sets of a folder and print the table."""
    from drpwatch.assess.datasets import find_data_sets

    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", device):
        raise UsageError(f"--device {device}: allowed are auto, cpu, cuda and cuda:N")
    broken: dict[str, str] = {}
    data_sets = _readable(find_data_sets(suite), limit, broken)
    measured: list[Measured] = []
    from drpwatch.pick.picker import Picker

    picker = Picker.load(model, device, threads)
    with Bar("picking", sum(len(one.micrographs) for one in data_sets)) as bar:
        for data_set in data_sets:
            try:
                measured.append(_measure(picker, data_set, bar))
            except UsageError as error:
                broken[data_set.name] = str(error)
    if as_json:
        print(json.dumps(summary(picker, measured, broken), indent=2))
    else:
        _print(measured)
    if pictures is not None:
        for one in measured:
            _draw_set(pictures, one)
    for name, why in broken.items():
        print(f"drpwatch: error: {printable(f'{name}: {why}')}", file=sys.stderr)
    if broken:
        raise typer.Exit(1)


def summary(picker: Picker, measured: Sequence[Measured], broken: Mapping[str, str]) -> dict[str, Any]:
    """Return all figures as plain JSON values, with null for what has no value."""
    return {
        "model": picker.info.name,
        "weights_sha256": picker.weights_sha256,
        "threshold": picker.default_threshold,
        "device": str(picker.device),
        "sets": {one.data_set.name: _figures(one) for one in measured},
        "broken": dict(broken),
    }


def draw(folder: Path, files: Mapping[str, Path], judged: Mapping[str, Marks], diameter_px: float) -> None:
    """Draw micrographs with marks, telling which cannot be drawn, and where the pictures are."""
    from drpwatch.assess.pictures import write_pictures
    from drpwatch.assess.suite import read_pixels

    with Bar("drawing", len(files)) as bar:
        failures = write_pictures(folder, files, judged, diameter_px, read_pixels, bar.step)
        for name, why in failures.items():
            bar.say(f"drpwatch: {name}: no picture of it: {why}")
        bar.say(f"drpwatch: {len(files) - len(failures)} pictures in {folder}")


def _readable(folders: Sequence[Path], limit: int | None, broken: dict[str, str]) -> list[DataSet]:
    """Return the data sets that can be read; why the others cannot goes to `broken`."""
    from drpwatch.assess.datasets import read_data_set

    found = []
    for folder in folders:
        try:
            found.append(read_data_set(folder, limit))
        except DrpwatchError as error:
            broken[folder.resolve().name] = str(error)
    return found


def _measure(picker: Picker, data_set: DataSet, bar: Bar) -> Measured:
    """Measure one data set, showing how far it is."""
    from drpwatch.assess.suite import measure

    if data_set.not_in_truth:
        bar.say(
            f"drpwatch: {data_set.name}: {data_set.not_in_truth} micrographs that its truth does not name"
            " are left out"
        )

    def step(one: Picked) -> None:
        bar.step(f"{data_set.name}/{one.micrograph}: {len(one.picks.yx_px)} picks")

    return measure(picker, data_set, step)


def _draw_set(pictures: Path, one: Measured) -> None:
    """Draw the micrographs of one data set that were picked, in a folder of its name."""
    from drpwatch.assess.coordinates import Coordinates
    from drpwatch.assess.pictures import marks

    data_set = one.data_set
    empty = None if data_set.expected_picks_at_most is None else Coordinates.none()
    judged = {
        picked.micrograph: marks(
            picked.picks,
            empty if data_set.truth is None else data_set.truth[picked.micrograph],
            one.diameter_px / 2,
        )
        for picked in one.micrographs
        if picked.failure is None
    }
    files = {name: path for name, path in data_set.micrographs.items() if path is not None and name in judged}
    draw(pictures / data_set.name, files, judged, one.diameter_px)


def _figures(one: Measured) -> dict[str, Any]:
    """Return the figures of one data set."""
    pooled = None if one.result is None else one.result.pooled
    values: dict[str, float | None] = {
        "recall": None if pooled is None else pooled.recall,
        "precision": None if pooled is None else pooled.precision,
        "f": None if pooled is None else pooled.f,
        "best_f": None if one.best is None else one.best.pooled.f,
        "best_threshold": None if one.best is None else one.best.threshold,
        "median_error_diameters": one.median_error_diameters,
        "median_picks": one.median_picks,
        "seconds_per_micrograph": one.seconds,
    }
    return {
        "micrographs": len(one.micrographs),
        "particles": None if pooled is None else pooled.n_truth,
        "diameter_angstrom": one.data_set.params.diameter_angstrom,
        "diameter_px": one.diameter_px,
        **{name: None if value is None or math.isnan(value) else value for name, value in values.items()},
        "expected_picks_at_most": one.data_set.expected_picks_at_most,
        "note": one.data_set.note,
        "failures": one.failures,
        "picks": {picked.micrograph: len(picked.picks.yx_px) for picked in one.micrographs},
    }


def _print(measured: Sequence[Measured]) -> None:
    """Print the table of data sets, and that of micrographs that could not be picked."""
    if not measured:
        return
    print_table(_HEADER, [_cells(one) for one in measured], right=_HEADER[1:])
    print(f"\n{_EXPLAINED}")
    failed = [(one.data_set.name, name, why) for one in measured for name, why in one.failures.items()]
    if failed:
        print("\nnot picked, which counts as no picks:")
        print_table(("set", "micrograph", "reason"), failed)


def _cells(one: Measured) -> tuple[str, ...]:
    """Return one line of the table, with a dash for what has no value."""
    figures = _figures(one)
    formats = {
        "recall": ".3f",
        "precision": ".3f",
        "f": ".3f",
        "best_f": ".3f",
        "best_threshold": ".2f",
        "median_error_diameters": ".3f",
        "median_picks": "g",
        "expected_picks_at_most": "d",
        "seconds_per_micrograph": ".2f",
    }
    cells = ("-" if figures[name] is None else format(figures[name], how) for name, how in formats.items())
    return (one.data_set.name, str(len(one.micrographs)), *cells)
