"""Against Topaz's pretrained picker and RELION's LoG picker: the same files, the same cores, whole processes.

    python -m tests.bench.bench_rivals
    python -m tests.bench.bench_rivals --files 8 --repeats 5 --cores 2 --topaz /opt/topaz/bin/topaz --json rivals.json

Simulated 4096x4096 float32 micrographs, in the page cache. Each program is started as a user would start it, with
its own preprocessing, at the settings that its documentation recommends: Topaz's `preprocess` down to 8 Å a pixel
(of "about 4-8 Å" the faster end) and `extract` with its default model resnet16_u64; RELION's `--LoG` at its defaults
with diameters of 0.8 to 1.1 times the particle's. RELION's picker has one thread, so its MPI version, a process for
each core, is timed too where it is there.

`start and one` is one micrograph, from the start of the process to its end. `each more` is what a micrograph adds:
the time of N less that of one, over N - 1; also as CPU time, which other work on the machine moves less. Repeats go
round all programs; medians are shown, and ratios are medians of the ratios in one round. Without --topaz or a topaz
on PATH, one is installed into a temporary environment by pip.
"""

from __future__ import annotations

import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpwatch.formats import star
from tests.bench.options import keep, machine, options, shape, table, told
from tests.support import child_cpu_seconds

PIXEL_SIZE_ANGSTROM = 1.1
DIAMETER_ANGSTROM = 150.0
TOPAZ_ANGSTROM = 8.0  # a pixel, after its preprocessing
OURS = "drpwatch"
FIGURES = {
    "start and one, s": ("start_s", 2),
    "each more, s": ("each_more_s", 2),
    "ratio, start and one": ("start_ratio", 1),
    "ratio, each more": ("each_more_ratio", 1),
    "each more, CPU s": ("each_more_cpu_s", 2),
    "ratio": ("each_more_cpu_ratio", 1),
    "picks each": ("picks_each", 0),
}

Pick = Callable[[list[Path], Path], int]  # files and a fresh directory -> number of picks


def run(command: list[str], folder: Path) -> None:
    """Run a program, or say what it said."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(
            f"{' '.join(command[:3])} ended with {done.returncode}:\n{done.stdout[-1000:]}{done.stderr[-2000:]}"
        )


def drpwatch(files: list[Path], folder: Path) -> int:
    """Pick with drpwatch."""
    program = [sys.executable, "-m", "drpwatch", "pick", *map(str, files), "--device", "cpu"]
    run([*program, "--diameter-angstrom", f"{DIAMETER_ANGSTROM:g}", "-o", "out"], folder)
    return len(star.read(folder / "out" / "particles.star")["particles"].rows)


def topaz(program: str) -> Pick:
    """Return what picks with Topaz: two processes."""
    scale = round(TOPAZ_ANGSTROM / PIXEL_SIZE_ANGSTROM)
    radius = round(DIAMETER_ANGSTROM / 2 / PIXEL_SIZE_ANGSTROM / scale)

    def pick(files: list[Path], folder: Path) -> int:
        run([program, "preprocess", "-s", str(scale), "-o", "small", *map(str, files)], folder)
        small = [str(folder / "small" / path.name) for path in files]
        given = ["-d", "-1", "-r", str(radius), "-x", str(scale), "-o", "picks.txt"]
        run([program, "extract", *given, *small], folder)
        return len((folder / "picks.txt").read_text().splitlines()) - 1

    return pick


def relion(program: list[str]) -> Pick:
    """Return what picks with RELION."""

    def pick(files: list[Path], folder: Path) -> int:
        (folder / "mics").mkdir()
        for path in files:
            (folder / "mics" / path.name).symlink_to(path)
        low, high = 0.8 * DIAMETER_ANGSTROM, 1.1 * DIAMETER_ANGSTROM
        given = [
            "--i",
            "mics/*.mrc",
            "--odir",
            "out/",
            "--pickname",
            "autopick",
            "--angpix",
            f"{PIXEL_SIZE_ANGSTROM}",
        ]
        run([*program, *given, "--LoG", "--LoG_diam_min", f"{low:g}", "--LoG_diam_max", f"{high:g}"], folder)
        found = (folder / "out" / "mics").glob("*_autopick.star")
        return sum(len(next(iter(star.read(one).values())).rows) for one in found)

    return pick


def install_topaz(folder: Path) -> str:
    """Install Topaz, with our version of PyTorch, into an environment of its own; return its program.

    It imports torchvision for the augmentation of its training alone, and no torchvision fits every PyTorch: an
    empty one takes its place.
    """
    from importlib.metadata import version

    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [str(folder / "bin" / "pip"), "install", "-q"]
    needs = ["future", "h5py", "numpy", "pandas", "pillow", "psutil", "scikit-learn", "scipy", "tqdm"]
    subprocess.run([*pip, f"torch=={version('torch')}", *needs], check=True)
    subprocess.run([*pip, "--no-deps", "topaz-em"], check=True)
    (site,) = (folder / "lib").glob("python3*/site-packages")
    transforms = site / "torchvision" / "transforms"
    transforms.mkdir(parents=True)
    (site / "torchvision" / "__init__.py").write_text("from torchvision import transforms\n")
    (transforms / "__init__.py").write_text("from torchvision.transforms import functional\n")
    (transforms / "functional.py").write_text("rotate = hflip = vflip = None\n")
    return str(folder / "bin" / "topaz")


def programs(topaz_program: str, cores: int) -> dict[str, Pick]:
    """Return all that are there, ours first."""
    found: dict[str, Pick] = {OURS: drpwatch, "Topaz": topaz(topaz_program)}
    if one := shutil.which("relion_autopick"):
        found["RELION LoG"] = relion([one])
    mpirun, many = shutil.which("mpirun"), shutil.which("relion_autopick_mpi")
    if mpirun and many and cores > 1:
        as_root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        found[f"RELION LoG, {cores} processes"] = relion([mpirun, *as_root, "-n", str(cores), many])
    return found


@dataclass(frozen=True)
class Run:
    """One run of a program, or what another file adds to it."""

    wall_s: float
    cpu_s: float
    picks: int

    def beyond(self, other: Run, files: int) -> Run:
        """Return what each of so many files added to another run."""
        return Run((self.wall_s - other.wall_s) / files, (self.cpu_s - other.cpu_s) / files, self.picks)


def timed(pick: Pick, files: list[Path], folder: Path) -> Run:
    """Time a run of a program, with all processes that it starts."""
    picks = 0

    def pick_all() -> None:
        nonlocal picks
        picks = pick(files, Path(fresh))

    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        started = time.perf_counter()
        cpu_s = child_cpu_seconds(pick_all)
        return Run(time.perf_counter() - started, cpu_s, picks)


def measure(folder: Path, files: list[Path], picks_with: dict[str, Pick], repeats: int) -> dict[str, Any]:
    """Return medians, and ratios to ours."""
    start: dict[str, list[Run]] = defaultdict(list)
    more: dict[str, list[Run]] = defaultdict(list)
    for _ in range(repeats):
        for name, pick in picks_with.items():
            start[name].append(timed(pick, files[:1], folder))
            all_files = timed(pick, files, folder)
            more[name].append(all_files.beyond(start[name][-1], len(files) - 1))
    return {
        name: {
            "start_s": _median(start[name], "wall_s"),
            "each_more_s": _median(more[name], "wall_s"),
            "start_ratio": _ratio(start[name], start[OURS], "wall_s"),
            "each_more_ratio": _ratio(more[name], more[OURS], "wall_s"),
            "start_cpu_s": _median(start[name], "cpu_s"),
            "each_more_cpu_s": _median(more[name], "cpu_s"),
            "each_more_cpu_ratio": _ratio(more[name], more[OURS], "cpu_s"),
            "picks_each": round(more[name][-1].picks / len(files)),
        }
        for name in picks_with
    }


def _median(runs: list[Run], what: str) -> float:
    return round(statistics.median(getattr(run, what) for run in runs), 3)


def _ratio(theirs: list[Run], ours: list[Run], what: str) -> float:
    pairs = zip(theirs, ours, strict=True)
    ratios = [getattr(one, what) / (getattr(other, what) or math.nan) for one, other in pairs]
    return round(statistics.median(ratios), 2)


def simulated(folder: Path, count: int, shape_yx: tuple[int, int]) -> list[Path]:
    """Write simulated micrographs, and leave them in the page cache."""
    h, w = shape_yx
    wanted = ["--count", str(count), "--shape", f"{h}x{w}", "--pixel-size-angstrom", f"{PIXEL_SIZE_ANGSTROM}"]
    program = [sys.executable, "-m", "drpwatch", "simulate", "-o", str(folder / "simulated")]
    run([*program, *wanted, "--diameter-angstrom", f"{DIAMETER_ANGSTROM:g}"], folder)
    return sorted((folder / "simulated").glob("*.mrc"))


def main() -> None:
    """Run the bench and print its table."""
    parser = options(__doc__)
    parser.add_argument("--files", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cores", type=int, default=2, help="all programs are bound to so many")
    parser.add_argument("--size", type=shape, default=(4096, 4096), metavar="HxW")
    parser.add_argument("--topaz", default=shutil.which("topaz"), metavar="PROGRAM")
    given = parser.parse_args()
    if given.files < 2:
        sys.exit("--files: two or more, to tell what one more costs")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        topaz_program = given.topaz or install_topaz(folder / "topaz")
        files = simulated(folder, given.files, given.size)
        cores = sorted(os.sched_getaffinity(0))[: given.cores]
        os.sched_setaffinity(0, cores)  # and that of every program that is started
        result = measure(folder, files, programs(topaz_program, len(cores)), given.repeats)
    rows = [
        [name, *(f"{one[figure]:.{digits}f}" for figure, digits in FIGURES.values())]
        for name, one in result.items()
    ]
    header = ["picker", *FIGURES]
    on = machine()
    print(table(header, rows))
    print(
        f"\nmedians of {given.repeats} rounds, {given.files} files, bound to {len(cores)} cores; {told(on)}"
    )
    keep({"programs": result, "files": given.files, "machine": on}, given.json)


if __name__ == "__main__":
    main()
