"""What to do with a session's files in RELION and cryoSPARC, as commands to copy."""

from __future__ import annotations

import math
import shlex

from drpwatch.cli.client import Json

# A box of one and a half diameters leaves room for the CTF's delocalisation; RELION measures the
# background outside a circle of 75 % of the box.
_BOX_DIAMETERS = 1.5
_BACKGROUND_RADIUS_BOXES = 0.375

MICROGRAPHS_STAR = "CtfFind/job003/micrographs_ctf.star"


def extraction_commands(view: Json) -> str:
    """Return what extracts the particles of a session in RELION 4 and 5, RELION 3.1 and cryoSPARC."""
    out = str(view["out_dir"]).rstrip("/")
    extract = (
        f"--part_star Extract/job005/particles.star --part_dir Extract/job005/ \\\n"
        f"      --extract {_box_options(view)} --norm --white_dust -1 --black_dust -1"
        # RELION wants white particles; those of negative stain are.
        f"{'' if view['params']['negative_stain'] else ' --invert_contrast'}"
    )
    return f"""\
To extract the particles (put your own micrographs STAR and job numbers):
  RELION 4 and 5, in the project's directory (in the GUI: Extract, Input coordinates = the autopick.star):
    relion_preprocess --i {MICROGRAPHS_STAR} \\
      --coord_list {shlex.quote(f"{out}/autopick.star")} \\
      {extract}
  RELION 3.1:
    relion_preprocess --i {MICROGRAPHS_STAR} \\
      --coord_dir {shlex.quote(f"{out}/")} --coord_suffix _autopick.star \\
      {extract}
  cryoSPARC: Import Particle Stack with Particle meta path = {out}/particles.star,
    your micrographs as Source exposures, "Ignore raw data" and "Ignore pose data" on, and
    "Remove leading UID in input micrograph path" on unless cryoSPARC made the micrographs;
    then Extract From Micrographs.
{_names_note(view)}"""


def _box_options(view: Json) -> str:
    """Return box size and background radius, as words where no pixel size is known yet."""
    pixel_size_angstrom = view["pixel_size_angstrom"]
    if pixel_size_angstrom is None:
        return "--extract_size BOX_PX --bg_radius BACKGROUND_RADIUS_PX"
    diameter_px = view["params"]["diameter_angstrom"] / pixel_size_angstrom
    box_px = 2 * math.ceil(_BOX_DIAMETERS * diameter_px / 2)
    return f"--extract_size {box_px} --bg_radius {round(_BACKGROUND_RADIUS_BOXES * box_px)}"


def _names_note(view: Json) -> str:
    """Return what the micrographs are called in the files: RELION drops the ones that it does not find."""
    prefix = view["micrograph_prefix"]
    if prefix:
        return (
            f"Micrographs are called {prefix}NAME in these files, NAME being the path below "
            f"{view['watch_root']};\nrlnMicrographName in your micrographs STAR must be the same."
        )
    return (
        f"Micrographs are called by their path below {view['watch_root']} in these files; "
        "rlnMicrographName in your\nmicrographs STAR must be the same. If it has more in front, such as "
        "MotionCorr/job002/, start the session\nwith --micrograph-prefix MotionCorr/job002/"
    )
