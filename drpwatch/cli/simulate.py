"""`drpwatch simulate`: micrographs with known particles."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from drpwatch.errors import UsageError


def simulate(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Directory of the micrographs.", show_default=False)
    ],
    count: Annotated[int, typer.Option(min=1, help="Number of micrographs.")] = 10,
    shape: Annotated[str, typer.Option(help="Height and width in pixels, as HxW.")] = "2048x2048",
    pixel_size_angstrom: Annotated[float, typer.Option(help="Pixel size in Å.")] = 1.5,
    maps: Annotated[
        list[Path] | None,
        typer.Option("--map", help="Density map (.mrc, .map, .gz), or a folder of them; may be repeated."),
    ] = None,
    diameter_angstrom: Annotated[
        float | None,
        typer.Option(help="Size of the shape that is invented; of several maps, the closest is taken."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same micrographs.")] = 1,
    difficulty: Annotated[
        str, typer.Option(help="clear: a good session; any: from easy to hopeless, as for training.")
    ] = "clear",
    dtype: Annotated[str, typer.Option(help="float32, float16, int8, int16 or uint16.")] = "float32",
) -> None:
    """Write simulated micrographs of one kind of particle, and truth.star with where the particles are.

    `drpwatch evaluate PICKS OUT/truth.star` compares picks with it.
    """
    from drpwatch.cli.progress import Bar
    from drpwatch.train.micrographs import TRUTH, Simulation, choose_species, write_micrographs

    wanted = Simulation(
        count=count,
        shape_yx=_shape(shape),
        pixel_size_angstrom=pixel_size_angstrom,
        maps=tuple(maps or ()),
        diameter_angstrom=diameter_angstrom,
        seed=seed,
        difficulty=difficulty,
        dtype=dtype,
    )
    species, others = choose_species(wanted)
    particles = 0
    with Bar("simulating", count) as bar:
        for written in write_micrographs(out, wanted, species, others):
            particles += written.n_particles
            bar.step(f"{written.name}: {written.n_particles} particles")
    print(
        f"{count} micrographs with {particles} particles of {species.name} in {out}, truth in {out / TRUTH}"
    )
    # A header that says 1.0 says nothing: see `formats.mrc`.
    unsaid = " --pixel-size-angstrom 1" if pixel_size_angstrom == 1 else ""
    print(f"pick them with --diameter-angstrom {species.diameter_angstrom:.0f}{unsaid}")


def _shape(text: str) -> tuple[int, int]:
    """Return height and width."""
    match = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", text)
    if match is None:
        raise UsageError(f"--shape {text}: give height and width in pixels, like 2048x2048")
    return int(match[1]), int(match[2])
