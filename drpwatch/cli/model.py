"""`drpwatch model ...`: what a weights file is, and conversion of the published detector."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drpwatch.cli.card import reliability_rows, write_card
from drpwatch.cli.tables import print_fields, print_table
from drpwatch.text import printable

if TYPE_CHECKING:
    from drpwatch.pick.weights import Weights
    from drpwatch.train.calibrate import Reliability

app = typer.Typer(help="Weights files: what they are, and where they come from.", no_args_is_help=True)

_RELIABILITY = ("SCORE", "ARE PARTICLES", "CANDIDATES")

AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]


@app.command()
def info(
    model: Annotated[
        str | None,
        typer.Argument(help="Name of shipped weights, or a weights file; all that are shipped unless given."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell what a weights file is: networks, working scale, threshold, provenance, licence."""
    from drpwatch.pick.weights import find, load_weights, shipped

    paths = list(shipped().values()) if model is None else [find(model)]
    described = [_describe(path, load_weights(path)) for path in paths]
    if as_json:
        print(json.dumps({"models": described} if model is None else described[0], indent=2))
    elif model is None:
        rows = [
            (
                one["name"],
                one["detector"],
                one["classifier"] or "-",
                f"{one['threshold']:.3f}",
                one["licence"],
            )
            for one in described
        ]
        print_table(("NAME", "DETECTOR", "CLASSIFIER", "THRESHOLD", "LICENCE"), rows, right=("THRESHOLD",))
    else:
        _print(described[0])


@app.command()
def card(
    model: Annotated[str, typer.Argument(help="Name of shipped weights, or a weights file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory of the card.", show_default=False)],
) -> None:
    """Write a model card: README.md, and reliability.svg, which shows whether scores are probabilities."""
    from drpwatch.pick.weights import find, load_weights

    path = find(model)
    described = _describe(path, load_weights(path))
    for written in write_card(out, described, _reliability(described)):
        print(written)


@app.command("import-matlab")
def import_matlab(
    source: Annotated[Path, typer.Argument(help="The published detector, drpnet_cnet_1.mat or its like.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Weights file to write (.safetensors).")],
) -> None:
    """Convert the detector published with the DRPnet paper, whose licence stays with it."""
    from drpwatch.pick.matlab import import_matlab as convert

    made = convert(source, out)
    print(f"{out}: {made.name}, threshold {made.threshold:g}")
    print(f"licence: {made.licence}")


def _describe(path: Path, weights: Weights) -> dict[str, Any]:
    """Return all that is known of weights as plain JSON values."""
    networks = (weights.detector, weights.classifier)
    counts = [sum(p.numel() for p in net.parameters()) if net is not None else 0 for net in networks]
    return {
        **asdict(weights.info),
        "path": str(path),
        "size_bytes": path.stat().st_size,
        "sha256": weights.sha256,
        "detector_parameters": counts[0],
        "classifier_parameters": counts[1],
    }


def _print(one: dict[str, Any]) -> None:
    classifier = f"{one['classifier']}, {one['classifier_parameters']} parameters"
    preprocessing = one["preprocessing"]
    fields = [
        ("file", f"{one['path']} ({one['size_bytes']} bytes)"),
        ("sha256", one["sha256"]),
        ("detector", f"{one['detector']}, {one['detector_parameters']} parameters"),
        ("classifier", classifier if one["classifier"] else "none: the detector's peaks are scored"),
        ("sees a particle", f"{preprocessing['working_diameter_px']:g} px across"),
        ("preprocessing", _pairs(preprocessing)),
        ("peaks", _pairs(one["peaks"])),
        ("calibration", _pairs(one["calibration"])),
        ("threshold", f"{one['threshold']:g}"),
        ("licence", one["licence"]),
    ]
    origin = [(k, v) for k, v in one["provenance"].items() if k != "reliability"]
    fields += [("provenance" if i == 0 else "", f"{k}: {v}") for i, (k, v) in enumerate(origin)]
    print(printable(one["name"]))
    print_fields(fields)
    if (reliability := _reliability(one)) is not None:
        print("\nscores on simulated scenes that trained nothing:")
        print_table(_RELIABILITY, reliability_rows(reliability), right=_RELIABILITY)


def _reliability(one: dict[str, Any]) -> Reliability | None:
    """Return how scores agreed with the truth, None where the weights do not tell."""
    from drpwatch.train.calibrate import Reliability

    told = one["provenance"].get("reliability")
    return None if told is None else Reliability.from_dict(told)


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
