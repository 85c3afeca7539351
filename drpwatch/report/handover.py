"""What to do with a session's files in RELION and cryoSPARC, as commands to copy."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass

# A box of one and a half diameters leaves room for the CTF's delocalisation; RELION measures the
# background outside a circle of 75 % of the box.
_BOX_DIAMETERS = 1.5
_BACKGROUND_RADIUS_BOXES = 0.375

REPORT = "report.html"
"""The report of a completed session, in its output directory."""

MICROGRAPHS_STAR = "CtfFind/job003/micrographs_ctf.star"


@dataclass(frozen=True, slots=True)
class Handover:
    """What the commands follow from."""

    out_dir: str
    watch_root: str
    micrograph_prefix: str
    diameter_angstrom: float
    pixel_size_angstrom: float | None  # None: no micrograph has told it yet
    negative_stain: bool


@dataclass(frozen=True, slots=True)
class Step:
    """What to do in one program."""

    program: str
    where: str  # in words; may be empty
    command: str | None  # for a shell; None where the program has none


def steps(of: Handover) -> tuple[Step, ...]:
    """Return what extracts the particles in RELION 4 and 5, RELION 3.1 and cryoSPARC."""
    project = _project(of)
    out = of.out_dir.rstrip("/")
    within = out.removeprefix(f"{project}/") if project else out  # RELION likes paths below its project
    return (
        Step(
            "RELION 4 and 5",
            f"in the project's directory{project and f', {project}'}"
            " (in the GUI: Extract, Input coordinates = the autopick.star)",
            _relion(of, f"--coord_list {shlex.quote(f'{within}/autopick.star')}"),
        ),
        Step(
            "RELION 3.1",
            "in the same directory",
            _relion(of, f"--coord_dir {shlex.quote(f'{within}/')} --coord_suffix _autopick.star"),
        ),
        Step(
            "cryoSPARC",
            f"Import Particle Stack with Particle meta path = {out}/particles.star,\n"
            'your micrographs as Source exposures, "Ignore raw data" and "Ignore pose data" on, and\n'
            '"Remove leading UID in input micrograph path" on unless cryoSPARC made the micrographs;\n'
            "then Extract From Micrographs.",
            None,
        ),
    )


def extraction_commands(of: Handover) -> str:
    """Return all steps as text for a terminal."""
    text = ["To extract the particles (put your own micrographs STAR and job numbers):"]
    for step in steps(of):
        if step.command is None:
            text.append(f"  {step.program}: " + step.where.replace("\n", "\n    "))
        else:
            text.append(f"  {step.program}{step.where and ', '}{step.where}:")
            text.append("    " + step.command.replace("\n", "\n    "))
    return "\n".join([*text, names_note(of)])


def names_note(of: Handover) -> str:
    """Return what the micrographs are called in the files: RELION drops the ones that it does not find."""
    prefix = of.micrograph_prefix
    if prefix:
        return (
            f"Micrographs are called {prefix}NAME in these files, NAME being the path below "
            f"{of.watch_root};\nrlnMicrographName in your micrographs STAR must be the same."
        )
    return (
        f"Micrographs are called by their path below {of.watch_root} in these files; "
        "rlnMicrographName in your\nmicrographs STAR must be the same. If it has more in front, such as "
        "MotionCorr/job002/, start the session\nwith --micrograph-prefix MotionCorr/job002/"
    )


def _project(of: Handover) -> str:
    """Return the directory that names in the files begin in; empty where it cannot be told."""
    root, prefix = of.watch_root.rstrip("/"), of.micrograph_prefix.strip("/")
    return root.removesuffix(f"/{prefix}") if prefix and root.endswith(f"/{prefix}") else ""


def _relion(of: Handover, coordinates: str) -> str:
    # RELION wants white particles; those of negative stain are.
    invert = "" if of.negative_stain else " --invert_contrast"
    return (
        f"relion_preprocess --i {MICROGRAPHS_STAR} \\\n"
        f"  {coordinates} \\\n"
        "  --part_star Extract/job005/particles.star --part_dir Extract/job005/ \\\n"
        f"  --extract {_box_options(of)} --norm --white_dust -1 --black_dust -1{invert}"
    )


def _box_options(of: Handover) -> str:
    """Return box size and background radius, as words where no pixel size is known yet."""
    if of.pixel_size_angstrom is None:
        return "--extract_size BOX_PX --bg_radius BACKGROUND_RADIUS_PX"
    box_px = 2 * math.ceil(_BOX_DIAMETERS * of.diameter_angstrom / of.pixel_size_angstrom / 2)
    return f"--extract_size {box_px} --bg_radius {round(_BACKGROUND_RADIUS_BOXES * box_px)}"
