"""RELION itself, at the end of the whole way: micrographs, picks by the shipped weights, its extraction."""

import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from drpwatch.cli import main
from drpwatch.formats import mrc, star
from drpwatch.report.handover import MICROGRAPHS_STAR, Handover, extraction_commands
from drpwatch.train.microscope import compact_species
from drpwatch.train.simulate import CLEAR, simulate

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(shutil.which("relion_preprocess") is None, reason="RELION is not installed"),
]

PIXEL_SIZE_ANGSTROM = 4.0
PREFIX = "MotionCorr/job002/"
NAMES = ["Movies/mic 1.mrc", "Movies/sub/mic.2.mrc", "Movies/mic3.mrc"]


@dataclass(frozen=True)
class Project:
    """A RELION project whose micrographs have been picked."""

    folder: Path
    diameter_px: float
    n_picks: int

    @property
    def box_px(self) -> int:
        return 2 * round(0.75 * self.diameter_px)

    def extract(self, command: list[str], part_star: str) -> tuple[star.Block, np.ndarray]:
        """Run RELION; return its particles and their images, (n, box, box)."""
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        particles = star.read(self.folder / part_star)["particles"]
        stacks = sorted({name.partition("@")[2] for name in particles.column("rlnImageName")})
        images = []
        for stack in stacks:
            with mrcfile.open(self.folder / stack) as file:
                images.append(file.data.reshape(-1, *file.data.shape[-2:]))
        return particles, np.concatenate(images)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("project")
    species = compact_species(1)
    for i, name in enumerate(NAMES):
        scene = simulate(species, [], CLEAR, (512, 640), PIXEL_SIZE_ANGSTROM, np.random.default_rng((1, i)))
        path = folder / PREFIX / name
        path.parent.mkdir(parents=True, exist_ok=True)
        mrc.write_mrc(path, scene.pixels, PIXEL_SIZE_ANGSTROM)
    diameter = f"{species.diameter_angstrom:.0f}"
    out = folder / "picks"
    arguments = ["--diameter-angstrom", diameter, "-o", str(out), "--micrograph-prefix", PREFIX]
    assert main(["pick", str(folder / PREFIX), *arguments]) == 0
    micrographs = star.micrographs([PREFIX + name for name in NAMES], star.Optics(PIXEL_SIZE_ANGSTROM))
    path = folder / MICROGRAPHS_STAR
    path.parent.mkdir(parents=True)
    path.write_bytes(micrographs)
    picks = star.read(out / "particles.star")["particles"]
    return Project(folder, float(diameter) / PIXEL_SIZE_ANGSTROM, len(picks.rows))


def darkness(images: np.ndarray, diameter_px: float) -> float:
    """Return by how many standard errors the images are darker in their middle than at the rim."""
    axis = np.arange(images.shape[1]) - images.shape[1] // 2
    radius = np.hypot(*np.meshgrid(axis, axis, indexing="ij"))
    rim, middle = radius > 0.65 * diameter_px, radius < 0.25 * diameter_px
    darker = images[:, rim].mean(axis=1) - images[:, middle].mean(axis=1)  # (n,)
    return float(darker.mean() / (darker.std() / len(darker) ** 0.5))


def test_it_extracts_every_pick_and_they_are_dark(project: Project) -> None:
    suffix_file = project.folder / "picks" / "coords_suffix_autopick.star"
    suffix = suffix_file.name.removeprefix("coords_suffix")
    command = ["relion_preprocess", "--i", MICROGRAPHS_STAR, "--coord_dir", f"{suffix_file.parent}/"]
    command += ["--coord_suffix", suffix, "--part_star", "Extract/p.star", "--part_dir", "Extract/"]
    command += ["--extract", "--extract_size", str(project.box_px), "--norm", "--white_dust", "-1"]
    command += ["--black_dust", "-1", "--bg_radius", str(round(0.6 * project.diameter_px))]
    particles, images = project.extract(command, "Extract/p.star")
    assert project.n_picks > 50
    assert len(particles.rows) == len(images) == project.n_picks
    assert set(particles.column("rlnMicrographName")) == {PREFIX + name for name in NAMES}
    ours = star.read(project.folder / "picks" / "particles.star")["particles"].picks_yx()
    assert sorted(map(tuple, particles.picks_yx())) == sorted(map(tuple, ours))
    assert images.shape[1:] == (project.box_px, project.box_px)
    assert darkness(images, project.diameter_px) > 10


def test_the_printed_command_works_as_it_is(project: Project) -> None:
    of = Handover(
        out_dir=str(project.folder / "picks"),
        watch_root=str(project.folder / PREFIX),
        micrograph_prefix=PREFIX,
        diameter_angstrom=project.diameter_px * PIXEL_SIZE_ANGSTROM,
        pixel_size_angstrom=PIXEL_SIZE_ANGSTROM,
        negative_stain=False,
    )
    text = extraction_commands(of)
    printed = text.partition("RELION 3.1, in the same directory:\n")[2].partition("cryoSPARC")[0]
    assert str(project.folder) not in printed  # names and paths are those of the project, where it is run
    command = shlex.split(printed.replace("\\\n", " "))
    particles, images = project.extract(command, "Extract/job005/particles.star")
    assert len(particles.rows) == len(images) == project.n_picks
    assert darkness(images, project.diameter_px) < -10  # it inverts: RELION refines white particles
