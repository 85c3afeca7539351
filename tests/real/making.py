"""The real micrographs beside the repository as a suite of data sets for `drpwatch evaluate --suite`.

    python -m tests.real.making OUT

The images and their labels are converted by the script that belongs to the data; here is only what each
data set is.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parents[3] / "shared" / "data"


@dataclass(frozen=True)
class Source:
    """Which images make a data set, and what its `dataset.toml` says."""

    folders: tuple[str, ...]
    pixel_size_angstrom: float
    diameter_angstrom: float
    known: str  # a line of TOML
    note: str
    dtype: str = "float32"


MICASSESS = "MicAssess, screening images"
SOURCES = {
    # Its images are of 8 bits, which int16 keeps at half the size of float32.
    "empiar-10017": Source(
        ("empiar-10017",), 1.77, 191.0, 'truth = "truth.star"', "beta-galactosidase", "int16"
    ),
    "empiar-10059": Source(("empiar-10059",), 4.5, 158.0, 'truth = "truth.star"', "TRPV1, dense"),
    "empiar-10146": Source(("empiar-10146",), 1.7, 123.0, 'truth = "truth.star"', "apoferritin, very noisy"),
    "micassess-empty": Source(
        ("micassess/3Empty_no_ice", "micassess/5Empty_ice_no_particles_but_vitreous_ice"),
        8.0,
        200.0,
        "expected_picks_at_most = 2",
        f"{MICASSESS}: empty",
    ),
    "micassess-junk": Source(
        (
            "micassess/2Contamination_Aggregate_Crack_Breaking_Drifting",
            "micassess/4Crystalline_ice",
        ),
        8.0,
        200.0,
        "expected_picks_at_most = 5",
        f"{MICASSESS}: contamination, crystalline ice",
    ),
    "micassess-good": Source(
        ("micassess/0Great", "micassess/1Decent"), 8.0, 200.0, "", f"{MICASSESS}: with particles, unlabelled"
    ),
}


def available() -> bool:
    """Say whether the real micrographs are there."""
    return all((DATA / folder).is_dir() for source in SOURCES.values() for folder in source.folders)


def make_suite(out: Path) -> Path:
    """Write a folder with all data sets, and return it."""
    for name, source in SOURCES.items():
        make_data_set(out / name, source)
    return out


def make_data_set(folder: Path, source: Source) -> None:
    """Write the micrographs, the truth where there are labels, and the description."""
    with tempfile.TemporaryDirectory() as images:
        for origin in source.folders:
            for file in (DATA / origin).iterdir():
                (Path(images) / file.name).symlink_to(file)
        convert(Path(images), folder, source.dtype, source.pixel_size_angstrom)
    (folder / "dataset.toml").write_text(
        f"diameter_angstrom = {source.diameter_angstrom}\n"
        f"pixel_size_angstrom = {source.pixel_size_angstrom}\n{source.known}\nnote = '{source.note}'\n"
    )


def convert(images: Path, folder: Path, dtype: str, pixel_size_angstrom: float) -> None:
    """Write a folder of images as MRC files, and their labels as truth.star."""
    command = [sys.executable, DATA / "to_mrc.py", images, folder, "--dtype", dtype]
    subprocess.run(
        [*command, "--pixel-size", str(pixel_size_angstrom)], check=True, capture_output=True, text=True
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(str(__doc__))
    if not available():
        sys.exit(f"{DATA} does not have the real micrographs")
    make_suite(Path(sys.argv[1]))
