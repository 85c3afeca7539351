"""What the pictures of the page cost: drawing one 4096x4096 float32 micrograph, against picking it.

    python -m tests.bench.bench_pictures
    python -m tests.bench.bench_pictures --count 20 --device cuda --output pictures.json

Prints JSON: medians over the micrographs after the first, in turns, so that other work on the machine slows both; the
writing is done by another thread, and told apart.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from drpwatch.micrograph import PickParams
from drpwatch.pick.picker import Picker
from drpwatch.session.thumbnails import Thumbnails, View
from tests.bench.bench_pick import DIAMETER_ANGSTROM, PIXEL_SIZE_ANGSTROM, micrograph


def measure(count: int, model: str, device: str, folder: Path) -> dict[str, Any]:
    """Pick, draw and write `count` micrographs after one that warms up."""
    picker, album = Picker.load(model, device), Thumbnails(folder, count + 1, 10**9)
    params, seconds = PickParams(DIAMETER_ANGSTROM), []
    for number in range(count + 1):
        pixels = micrograph(number)
        times = [time.perf_counter()]
        uploaded = picker.upload(pixels)
        prepared = picker.prepare(uploaded, (PIXEL_SIZE_ANGSTROM, PIXEL_SIZE_ANGSTROM), params)
        picker.choose(picker.detect(prepared, params))
        times.append(time.perf_counter())
        pictures = picker.draw(uploaded, prepared)
        times.append(time.perf_counter())
        album.write(f"{number}.mrc", pictures)
        times.append(time.perf_counter())
        seconds.append([after - before for before, after in itertools.pairwise(times)])
    pick_s, draw_s, write_s = (statistics.median(stage) for stage in zip(*seconds[1:], strict=True))
    return {
        "pick_s": round(pick_s, 4),
        "draw_s": round(draw_s, 4),
        "draw_share": round(draw_s / pick_s, 4),
        "write_s": round(write_s, 4),
        "bytes": {view: len(album.read("1.mrc", view) or b"") for view in View},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--model", default="general")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps(measure(given.count, given.model, given.device, Path(folder)), indent=2)
    print(text)
    if given.output is not None:
        given.output.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
