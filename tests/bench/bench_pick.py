"""How long `drpwatch pick` takes for one 4096x4096 float32 micrograph, per stage, with the model loaded.

    python tests/bench/bench_pick.py                        # all cores
    python tests/bench/bench_pick.py --count 5 --threads 1 --model general --output pick.json

Prints JSON: seconds per stage (mean over the micrographs after the first, which warms up), seconds per
micrograph with reading ahead hidden behind picking, and what it ran on. Reading is from the page cache.
Particles are dark discs in noise, as many as on a crowded grid, so that candidates are classified as usual.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drpwatch import __version__
from drpwatch.formats.mrc import write_mrc
from drpwatch.micrograph import PickParams
from drpwatch.pick.picker import Picker
from drpwatch.service.batch import Batch
from drpwatch.service.inputs import find_inputs

SIDE_PX = 4096
PIXEL_SIZE_ANGSTROM = 1.1
DIAMETER_ANGSTROM = 150.0
PARTICLES = 300


def micrograph(seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return dark discs in white noise, (h, w)."""
    rng = np.random.default_rng(seed)
    pixels = rng.standard_normal((SIDE_PX, SIDE_PX), dtype=np.float32)
    radius = int(DIAMETER_ANGSTROM / PIXEL_SIZE_ANGSTROM / 2)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = (0.4 * (np.hypot(y, x) < radius)).astype(np.float32)
    for top, left in rng.integers(0, SIDE_PX - 2 * radius - 1, size=(PARTICLES, 2)):
        pixels[top : top + 2 * radius + 1, left : left + 2 * radius + 1] -= disc
    return pixels


def measure(folder: Path, count: int, model: str, device: str, threads: int) -> dict[str, Any]:
    """Pick `count` micrographs after one that warms up."""
    for number in range(count + 1):
        write_mrc(folder / f"bench_{number}.mrc", micrograph(number), PIXEL_SIZE_ANGSTROM)
    started = time.perf_counter()
    picker = Picker.load(model, device, threads)
    load_s = time.perf_counter() - started
    params = PickParams(DIAMETER_ANGSTROM, model=model)
    with Batch(find_inputs([folder]), folder / "out", params, picker.weights_sha256) as batch:
        run = batch.run(picker)
        picks = [next(run).n_picks]
        started = time.perf_counter()
        done = list(run)
        wall_s = (time.perf_counter() - started) / count
    return {
        "seconds_per_micrograph": round(wall_s, 3),
        "stage_seconds": {
            stage: round(statistics.mean(one.seconds[stage] for one in done), 3) for stage in done[0].seconds
        },
        "load_s": round(load_s, 2),
        "picks": picks + [one.n_picks for one in done],
    }


def main() -> None:
    """Run the bench and print its result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--model", default="general")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--output", type=Path, help="also write the JSON there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), given.count, given.model, given.device, given.threads)
    on_gpu = torch.cuda.is_available() and given.device != "cpu"
    result |= {
        "micrograph": f"{SIDE_PX}x{SIDE_PX} float32, particles of {DIAMETER_ANGSTROM / PIXEL_SIZE_ANGSTROM:.0f} px",
        "count": given.count,
        "model": given.model,
        "hardware": torch.cuda.get_device_name() if on_gpu else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "versions": {
            "drpwatch": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    if given.output is not None:
        given.output.write_text(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
