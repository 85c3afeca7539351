"""`drpwatch evaluate`: picks held against known particles."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drpwatch.cli.tables import print_table
from drpwatch.errors import UsageError

if TYPE_CHECKING:
    from drpwatch.assess.detection import Agreement, Evaluation

_HEADER = ("micrograph", "truth", "picks", "matched", "recall", "precision", "F", "error px")
_SWEEP_HEADER = ("threshold", *_HEADER[1:], "")


def evaluate(
    picks: Annotated[
        Path, typer.Argument(help="particles.star, another STAR file, or a folder of *_autopick.star.")
    ],
    truth: Annotated[Path, typer.Argument(help="The known particles, in any of the same forms.")],
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
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Compare picks with known particles: recall, precision and F.

    A pick is right when it is matched, one to one, to a particle within half a diameter. All
    micrographs that TRUTH names count; picks on other micrographs are told, not scored.
    """
    from drpwatch.assess.coordinates import read_coordinates, read_pixel_size_angstrom
    from drpwatch.assess.detection import evaluate as compare
    from drpwatch.assess.detection import sweep_thresholds

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
