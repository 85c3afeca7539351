"""`drpwatch pick`: files picked once, without a daemon."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drpwatch.cli.remote import model_name
from drpwatch.errors import UsageError
from drpwatch.text import printable

if TYPE_CHECKING:
    from drpwatch.micrograph import PickParams
    from drpwatch.pick.picker import Picker
    from drpwatch.service.batch import Batch, Done

_INTERRUPTED = "interrupted: what is done is safe; the same command goes on from there"


def pick(
    files: Annotated[
        list[Path],
        typer.Argument(help="Micrographs (MRC), and directories that hold them.", show_default=False),
    ],
    diameter_angstrom: Annotated[float, typer.Option(help="Particle diameter in Å.", show_default=False)],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Directory of the STAR files.", show_default=False)
    ],
    pixel_size_angstrom: Annotated[
        float | None, typer.Option(help="Pixel size in Å; read from each header unless given.")
    ] = None,
    negative_stain: Annotated[bool, typer.Option("--negative-stain", help="Particles are bright.")] = False,
    threshold: Annotated[
        float | None, typer.Option(help="Least probability of a pick, 0 to 1; the weights have a default.")
    ] = None,
    model: Annotated[str, typer.Option(help="Name of shipped weights, or a weights file.")] = "general",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, max=1024, help="CPU threads; 0: all cores it may use.")] = 0,
    glob: Annotated[
        str, typer.Option(help="Which files, by path below a directory that is given.")
    ] = "**/*.mrc",
    micrograph_prefix: Annotated[
        str,
        typer.Option(help="Put before each name in the STAR files, such as MotionCorr/job002/", metavar="P"),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Pick particles in files and write the same STAR files as a session: OUT/particles.star and its kin.

    Names in the files are relative to the directory given, or to what all paths given have in common. A
    second run picks only what is new, has changed, or was picked with other parameters or weights. Files
    that cannot be picked are told on stderr, and the exit code is 1 if there are any.
    """
    from drpwatch.micrograph import PickParams
    from drpwatch.service.inputs import find_inputs
    from drpwatch.service.interrupts import Interrupts

    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", device):
        raise UsageError(f"--device {device}: allowed are auto, cpu, cuda and cuda:N")
    params = PickParams(diameter_angstrom, pixel_size_angstrom, negative_stain, threshold, model_name(model))
    inputs = find_inputs(files, glob)
    with Interrupts() as interrupts:
        try:
            from drpwatch.pick.picker import Picker
            from drpwatch.service.batch import Batch

            picker = Picker.load(params.model, device, threads)
            with Batch(inputs, out, params, picker.weights_sha256, micrograph_prefix) as batch:
                for what, why in inputs.problems:
                    print(printable(f"drpwatch: {what}: {why}"), file=sys.stderr)
                done = _run(batch, picker, interrupts)
                notes = _size_notes(done, params)
                for note in notes:
                    print(f"drpwatch: {note}", file=sys.stderr)
                summary = _summary(batch, picker, done, inputs.problems, notes)
        except KeyboardInterrupt:
            print(f"drpwatch: {_INTERRUPTED}", file=sys.stderr)
            raise
    if as_json:
        print(json.dumps(summary, indent=2))
    else:
        _print(summary)
    if summary["failures"]:
        raise typer.Exit(1)


def _run(batch: Batch, picker: Picker, interrupts: Any) -> list[Done]:
    """Pick, showing how far it is."""
    from drpwatch.cli.progress import Bar

    done: list[Done] = []
    with Bar("picking", len(batch.todo)) as bar:
        for note in batch.notes:
            bar.say(f"drpwatch: {note}")
        for one in batch.run(picker, interrupts.held):
            done.append(one)
            if one.failure is not None:
                bar.say(f"drpwatch: {one.name}: {one.failure}")
            bar.step("" if one.n_picks is None else f"{one.name}: {one.n_picks} picks")
    return done


def _summary(
    batch: Batch,
    picker: Picker,
    done: list[Done],
    problems: tuple[tuple[str, str], ...],
    notes: list[str],
) -> dict[str, Any]:
    """Return what was done, as plain JSON values; seconds are means over the micrographs that were picked."""
    from drpwatch.session.tables import PARTICLES

    picked = [one for one in done if one.n_picks is not None]
    stages = {stage for one in picked for stage in one.seconds}
    seconds = {stage: sum(one.seconds.get(stage, 0.0) for one in picked) / len(picked) for stage in stages}
    particles = batch.out_dir / PARTICLES
    return {
        "out_dir": str(batch.out_dir),
        "particles_star": str(particles) if particles in batch.files else None,
        "files": [str(path) for path in batch.files],
        "micrographs": {
            "picked": len(picked),
            "unchanged": batch.unchanged,
            "failed": len(done) - len(picked),
        },
        "picks": sum(one.n_picks or 0 for one in picked),
        "picks_in_particles_star": batch.total_picks,
        "seconds_per_micrograph": sum(s for stage, s in seconds.items() if stage != "read"),
        "stage_seconds": {stage: seconds[stage] for stage in sorted(stages)},
        "notes": [*batch.notes, *notes],
        "failures": [{"name": one.name, "reason": one.failure} for one in done if one.failure is not None]
        + [{"name": what, "reason": why} for what, why in problems],
        "model": picker.info.name,
        "weights_sha256": picker.weights_sha256,
        "device": str(picker.device),
    }


def _size_notes(done: list[Done], params: PickParams) -> list[str]:
    """Return what there is to say where the diameter given is clearly too small."""
    times = median_low([one.enlargement for one in done if one.n_picks is not None] or [1.0])
    seen_angstrom = params.seen_diameter_angstrom(times)
    if seen_angstrom is None:
        return []
    return [
        f"rings in the power spectra tell of particles of {seen_angstrom:.0f} Å rather than "
        f"{params.diameter_angstrom:g} Å, and so they were picked: boxes should be as large"
    ]


def _print(summary: dict[str, Any]) -> None:
    counts = summary["micrographs"]
    parts = [f"{counts['picked']} micrographs picked: {summary['picks']} particles"]
    if counts["picked"]:
        parts.append(f"{summary['seconds_per_micrograph']:.2f} s per micrograph on {summary['device']}")
    if counts["unchanged"]:
        parts.append(f"{counts['unchanged']} unchanged since an earlier run")
    if summary["failures"]:
        parts.append(f"{len(summary['failures'])} failed")
    print(", ".join(parts))
    if summary["particles_star"] is not None:
        print(printable(f"{summary['particles_star']}: {summary['picks_in_particles_star']} particles"))
