"""`drpwatch evaluate`: picks held against known particles.

Owns: the command's options, and the form with PICKS and TRUTH. `cli.suite` has the one with --suite.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drpwatch.cli.tables import print_table
from drpwatch.errors import UsageError
from drpwatch.text import printable

if TYPE_CHECKING:
    from drpwatch.assess.coordinates import Coordinates
    from drpwatch.assess.detection import Agreement, Evaluation

_HEADER = ("micrograph", "truth", "picks", "matched", "recall", "precision", "F", "error px")
_SWEEP_HEADER = ("threshold", *_HEADER[1:], "")


def evaluate(
    picks: Annotated[
        Path | None,
        typer.Argument(
            help="particles.star, another STAR file, or a folder of *_autopick.star.", show_default=False
        ),
    ] = None,
    truth: Annotated[
        Path | None, typer.Argument(help="The known particles, in any of the same forms.", show_default=False)
    ] = None,
    diameter_angstrom: Annotated[
        float | None, typer.Option(help="Particle diameter in Å.", show_default=False)
    ] = None,
    diameter_px: Annotated[
        float | None, typer.Option(help="Particle diameter in pixels, instead of Å.", show_default=False)
    ] = None,
    pixel_size_angstrom: Annotated[
        float | None, typer.Option(help="Pixel size in Å; read from data_optics of PICKS unless given.")
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Also tell how higher thresholds would have done.")
    ] = False,
    pictures: Annotated[
        Path | None,
        typer.Option(
            help="Draw each micrograph there: right picks green, false ones red, missed particles yellow.",
            metavar="DIR",
        ),
    ] = None,
    micrographs: Annotated[
        Path | None, typer.Option(help="Where the micrographs are, for --pictures.", metavar="DIR")
    ] = None,
    suite: Annotated[
        Path | None,
        typer.Option(
            help="Instead of PICKS and TRUTH: a folder of data sets to pick and measure.", metavar="DIR"
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Of --suite: shipped weights, or a file. [default: general]")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Of --suite: auto, cpu, cuda or cuda:N. [default: auto]")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=0, max=1024, help="Of --suite: CPU threads. [default: all cores it may use]"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Of --suite: only so many micrographs of each set.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Compare picks with known particles: recall, precision and F.

    A pick is right when it is matched, one to one, to a particle within half a diameter. All
    micrographs that TRUTH names count; picks on other micrographs are told, not scored.

    With --suite, each folder in DIR that has a dataset.toml is picked at default settings and becomes one
    line of a table. The exit code is 1 if a data set cannot be used; the others are measured.
    """
    of_suite = {"--model": model, "--device": device, "--threads": threads, "--limit": limit}
    if suite is None:
        _refuse(of_suite, "is for --suite")
        _compare(
            picks,
            truth,
            diameter_angstrom,
            diameter_px,
            pixel_size_angstrom,
            sweep,
            pictures,
            micrographs,
            as_json,
        )
        return
    if picks is not None:
        raise UsageError("give PICKS and TRUTH, or --suite, not both")
    of_picks = {
        "--diameter-angstrom": diameter_angstrom,
        "--diameter-px": diameter_px,
        "--pixel-size-angstrom": pixel_size_angstrom,
        "--sweep": sweep or None,
        "--micrographs": micrographs,
    }
    _refuse(of_picks, "is for PICKS and TRUTH; what it would tell is in the dataset.toml of each set")
    from drpwatch.cli.suite import run_suite

    run_suite(suite, model or "general", device or "auto", threads or 0, limit, pictures, as_json)


def _refuse(options: Mapping[str, object], why: str) -> None:
    """Refuse options that mean nothing here."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{name} {why}")


def _compare(
    picks: Path | None,
    truth: Path | None,
    diameter_angstrom: float | None,
    diameter_px: float | None,
    pixel_size_angstrom: float | None,
    sweep: bool,
    pictures: Path | None,
    micrographs: Path | None,
    as_json: bool,
) -> None:
    """Hold one file of picks against one of known particles."""
    from drpwatch.assess.coordinates import read_coordinates, read_pixel_size_angstrom
    from drpwatch.assess.detection import evaluate as compare
    from drpwatch.assess.detection import sweep_thresholds

    if picks is None or truth is None:
        raise UsageError("give PICKS and TRUTH, or --suite with a folder of data sets")
    if (pictures is None) != (micrographs is None):
        raise UsageError("pictures need both --pictures and --micrographs")
    if (diameter_angstrom is None) == (diameter_px is None):
        raise UsageError("give the particle diameter, either --diameter-angstrom or --diameter-px")
    found, known = read_coordinates(picks), read_coordinates(truth)
    if diameter_px is None and diameter_angstrom is not None:
        size = pixel_size_angstrom
        if size is None:
            size = read_pixel_size_angstrom(picks) or read_pixel_size_angstrom(truth)
        if size is None:
            raise UsageError(f"{picks} has no data_optics with a pixel size: give --pixel-size-angstrom")
        if not (math.isfinite(size) and size > 0):
            raise UsageError(f"a pixel size of {size} Å is not positive")
        diameter_px = diameter_angstrom / size
    assert diameter_px is not None
    result = compare(found, known, diameter_px / 2, sweep_thresholds(found) if sweep else ())
    if as_json:
        print(json.dumps(_as_json(result), indent=2))
    else:
        _print(result)
    if pictures is not None and micrographs is not None:
        _draw(pictures, micrographs, found, known, diameter_px)


def _draw(
    pictures: Path,
    micrographs: Path,
    found: dict[str, Coordinates],
    known: dict[str, Coordinates],
    diameter_px: float,
) -> None:
    """Draw the micrographs that the truth names."""
    from drpwatch.assess.coordinates import Coordinates, pair_names
    from drpwatch.assess.datasets import find_micrographs
    from drpwatch.assess.pictures import marks
    from drpwatch.cli.suite import draw

    files = find_micrographs(micrographs)
    named, picked = pair_names(known, files), pair_names(known, found)
    if not named:
        raise UsageError(f"{micrographs} has none of the micrographs that the truth names")
    judged = {
        file: marks(found.get(picked.get(name, ""), Coordinates.none()), known[name], diameter_px / 2)
        for name, file in named.items()
    }
    draw(pictures, {file: files[file] for file in judged}, judged, diameter_px)
    for name in known:
        if name not in named:
            missing = printable(f"{name}: no such micrograph in {micrographs}")
            print(f"drpwatch: {missing}: no picture of it", file=sys.stderr)


def _print(result: Evaluation) -> None:
    """Print one line for each micrograph, their pool, and the sweep."""
    right = _HEADER[1:]
    rows = [(one.micrograph, *_cells(one)) for one in (*result.micrographs, result.pooled)]
    print_table(_HEADER, rows, right=right)
    print(f"\nright within {result.radius_px:.1f} px, half a particle diameter")
    if result.n_unscored_micrographs:
        print(
            f"not scored: {result.n_unscored_picks} picks on {result.n_unscored_micrographs} micrographs "
            "that the truth does not name"
        )
    if result.sweep:
        print()
        rows = [
            (f"{point.threshold:.4f}", *_cells(point.pooled), "best F" if point is result.best else "")
            for point in result.sweep
        ]
        print_table(_SWEEP_HEADER, rows, right=("threshold", *right))


def _cells(one: Agreement) -> tuple[str, ...]:
    """Return the figures of one line, with a dash for what has no value."""
    ratios = (one.recall, one.precision, one.f)
    return (
        str(one.n_truth),
        str(one.n_picks),
        str(one.n_matched),
        *("-" if math.isnan(ratio) else f"{ratio:.3f}" for ratio in ratios),
        "-" if math.isnan(one.median_error_px) else f"{one.median_error_px:.1f}",
    )


def _as_json(result: Evaluation) -> dict[str, Any]:
    """Return plain JSON values, with null for what has no value."""
    return {
        "radius_px": result.radius_px,
        "pooled": _figures(result.pooled),
        "micrographs": [{"micrograph": one.micrograph, **_figures(one)} for one in result.micrographs],
        "unscored": {"micrographs": result.n_unscored_micrographs, "picks": result.n_unscored_picks},
        "sweep": [{"threshold": point.threshold, **_figures(point.pooled)} for point in result.sweep],
        "best_threshold": result.best.threshold if result.best else None,
    }


def _figures(one: Agreement) -> dict[str, float | None]:
    """Return the figures of one micrograph or of the pool."""
    values = {
        "truth": one.n_truth,
        "picks": one.n_picks,
        "matched": one.n_matched,
        "recall": one.recall,
        "precision": one.precision,
        "f": one.f,
        "median_error_px": one.median_error_px,
    }
    return {name: None if math.isnan(value) else value for name, value in values.items()}
