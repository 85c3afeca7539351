"""What came of a demo: is everything there, how fast was it, how good are the picks."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from drpwatch.assess.coordinates import read_coordinates
from drpwatch.assess.detection import Agreement, evaluate
from drpwatch.cli.client import Json
from drpwatch.cli.demo.daemon import SETTLE_S
from drpwatch.cli.demo.screen import micrographs
from drpwatch.cli.tables import print_fields
from drpwatch.cli.views import handover
from drpwatch.errors import DrpwatchError
from drpwatch.formats import star
from drpwatch.report.handover import REPORT, extraction_commands
from drpwatch.train.microscope import PIXEL_SIZE_ANGSTROM, Microscope

_TRUTH = "truth.star"


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a demo."""

    view: Json  # the session as it ended
    folder: Path
    agreement: Agreement
    elapsed_s: float  # from the start of the daemon to the last record
    per_minute: float  # micrographs, from the first that was whole to the last record
    picking_s: tuple[float, ...]  # of each micrograph, all stages together
    latency_s: tuple[float, ...]  # of each micrograph, from its last byte to its rows on disk


def examine(view: Json, microscope: Microscope, folder: Path, started_at: float) -> Report:
    """Check that everything is as it should be, and measure it.

    Raises
    ------
    DrpwatchError
        Something is not; the text says what.
    """
    particles = Path(view["out_dir"], "particles.star")
    _check(view, microscope, particles)
    truth = folder / _TRUTH
    truth.write_bytes(_truth(view["micrograph_prefix"], microscope))
    radius_px = view["params"]["diameter_angstrom"] / PIXEL_SIZE_ANGSTROM / 2
    picked = [one for one in micrographs(view) if one["state"] == "picked"]
    finished = {name: exposure.finished_at for name, exposure in microscope.exposures.items()}
    last = max(one["recorded_at"] for one in picked)
    return Report(
        view=view,
        folder=folder,
        agreement=evaluate(read_coordinates(particles), read_coordinates(truth), radius_px).pooled,
        elapsed_s=last - started_at,
        per_minute=60 * len(picked) / (last - min(finished.values())),
        picking_s=tuple(sum(one["seconds"].values()) for one in picked),
        latency_s=tuple(one["recorded_at"] - finished[one["name"]] for one in picked),
    )


def _check(view: Json, microscope: Microscope, particles: Path) -> None:
    """Hold the session against what the microscope did."""
    known = {one["name"]: one for one in micrographs(view)}
    wrong = [
        f"{name} is {known[name]['state']} ({known[name]['reason']})"
        for name in microscope.names
        if known[name]["state"] != "picked"
    ]
    if known[microscope.junk_name]["state"] != "failed":
        wrong.append(f"{microscope.junk_name}, which is no micrograph, was not refused")
    if known[microscope.rewritten_name]["generation"] != 2:
        wrong.append(f"{microscope.rewritten_name} was rewritten, and that was not noticed")
    if strangers := set(known) - {*microscope.names, microscope.junk_name}:
        wrong.append(f"nobody wrote {', '.join(sorted(strangers))}")
    rows = Counter(star.read(particles)["particles"].column("rlnMicrographName"))
    prefix = view["micrograph_prefix"]
    expected = Counter({prefix + name: one["picks"] for name, one in known.items() if one["picks"]})
    if rows != expected:
        wrong.append(f"{particles} has {rows.total()} rows for {expected.total()} picks")
    if wrong:
        raise DrpwatchError("not as it should be: " + "; ".join(wrong))


def _truth(prefix: str, microscope: Microscope) -> bytes:
    """Return the simulated particles as a particle STAR."""
    text = star.particles_header(star.Optics(PIXEL_SIZE_ANGSTROM))
    for exposure in microscope.exposures.values():
        ones = np.ones(len(exposure.truth_yx))
        text += star.particles_rows(prefix + exposure.name, exposure.truth_yx, ones)
    return text


def print_report(report: Report, kept: bool) -> None:
    """Print it for people."""
    view, agreement = report.view, report.agreement
    counts = view["micrographs"]
    print()
    print_fields(
        [
            ("micrographs", f"{counts['picked']} picked, {counts['failed']} failed (the file that is none)"),
            ("picks", str(view["picks"])),
            (
                "agreement",
                f"F {agreement.f:.2f} with the simulated truth (recall {agreement.recall:.2f}, "
                f"precision {agreement.precision:.2f}, {agreement.n_truth} particles)",
            ),
            (
                "rate",
                f"{report.per_minute:.0f} micrographs a minute, as the microscope wrote them; "
                f"{median(report.picking_s):.2f} s of work for each",
            ),
            (
                "latency",
                f"{median(report.latency_s):.1f} s from a file's last byte to its rows on disk (at most "
                f"{max(report.latency_s):.1f} s), {SETTLE_S:g} s of it to see that it no longer changes",
            ),
            ("in all", f"{report.elapsed_s:.0f} s"),
        ]
    )
    if not kept:
        return
    diameter = f"{view['params']['diameter_angstrom']:g}"
    wrote = [*view["outputs"], str(Path(view["out_dir"], REPORT))]
    print_fields([("writes" if i == 0 else "", path) for i, path in enumerate(wrote)])
    print(f"\ncd {shlex.quote(str(report.folder))}")
    print(f"drpwatch evaluate {view['out_dir']}/particles.star {_TRUTH} --diameter-angstrom {diameter}\n")
    print(extraction_commands(handover(view)))
    print(f"\nWhen you have seen enough: rm -r {shlex.quote(str(report.folder))}")


def as_values(report: Report) -> dict[str, Any]:
    """Return plain JSON values."""
    return {
        "folder": str(report.folder),
        "outputs": report.view["outputs"],
        "micrographs": report.view["micrographs"],
        "picks": report.view["picks"],
        "truth": report.agreement.n_truth,
        "recall": report.agreement.recall,
        "precision": report.agreement.precision,
        "f": report.agreement.f,
        "micrographs_per_minute": report.per_minute,
        "picking_s_median": median(report.picking_s),
        "latency_s_median": median(report.latency_s),
        "latency_s_max": max(report.latency_s),
        "settle_s": SETTLE_S,
        "elapsed_s": report.elapsed_s,
    }
