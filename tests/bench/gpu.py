"""What a GPU does with a micrograph, against what the machine allows: one table, in one call.

    python -m tests.bench.gpu --json gpu.json
    python -m tests.bench.gpu --device cuda:1 --files 200 --size 4096x4096 --dtype float32 --dir /data/scratch
    python -m tests.bench.gpu --device cpu --size 512x512 --files 3 --repeats 2     # the same code, without a GPU

The floor: the bytes of a micrograph are read once and cross PCIe once; the operations are those of the networks, as
counted while they run. The limits are measured here: reads out of the page cache by 1, 2 and 4 threads, copies out of
page-locked memory, products of matrices. Stages are timed by CUDA events, medians over repeats. End to end: from the
page cache to durable rows, by `drpwatch pick` and by the real daemon, which has loaders of its own. Precisions are held
against float32 on the same device, and float32 against the CPU: the share of picks, of the larger number, within 1 px.
Waits and launches are those of one micrograph, as the profiler sees them. Nobody else should use the device meanwhile.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy.typing as npt
import torch

from drpwatch.micrograph import PickParams, Picks
from drpwatch.pick.picker import Picker
from drpwatch.pick.precision import DTYPES, Precision
from drpwatch.pick.weights import find, load_weights
from tests.bench import bench_daemon, limits
from tests.bench.bench_pick import picked
from tests.bench.options import keep, machine, options, shape, table, told
from tests.bench.scenes import DIAMETER_ANGSTROM, PIXEL_SIZE_ANGSTROM, micrograph, simulated, write_different
from tests.real.robustness import in_common

PARAMS = PickParams(DIAMETER_ANGSTROM, pixel_size_angstrom=PIXEL_SIZE_ANGSTROM)
PIXEL_SIZE_YX = (PIXEL_SIZE_ANGSTROM, PIXEL_SIZE_ANGSTROM)
READERS = (1, 2, 4)
SIMULATED = 3  # micrographs that precisions are compared on
GIB = 1 << 30

Pixels = npt.NDArray[Any]


def of_precision(model: str, device: torch.device, kind: Precision) -> Picker:
    """Return a picker whose networks compute in a precision, whether or not its picks agree."""
    return Picker(load_weights(find(model)), device, kind)


def operations(picker: Picker, pixels: Pixels) -> tuple[int, int]:
    """Return the floating-point operations of the networks, in the detector's stage and in the one after it."""
    prepared = picker.prepare(picker.upload(pixels), PIXEL_SIZE_YX, PARAMS)
    candidate_map = picker.detect(prepared, PARAMS)
    of_detect = limits.flops_of(lambda: picker.detect(prepared, PARAMS))
    return of_detect, limits.flops_of(lambda: picker.choose(candidate_map))


def measure_floor(picker: Picker, pixels: Pixels, files: list[Path], repeats: int) -> dict[str, Any]:
    """Return what a micrograph asks for, what the machine allows, and how many a second that makes."""
    detect_flops, choose_flops = operations(picker, pixels)
    read = {readers: limits.read_bytes_per_s(files, readers, repeats) for readers in READERS}
    copy = limits.copy_bytes_per_s(picker.device, pixels.nbytes, repeats)
    side = 4096 if picker.device.type == "cuda" else 512
    multiply = limits.multiply_flops_per_s(picker.device, DTYPES[picker.precision], side, repeats)
    allowed = {
        "read": max(read.values()) / pixels.nbytes,
        "copy": copy / pixels.nbytes,
        "operations": multiply / (detect_flops + choose_flops),
    }
    return {
        "bytes": pixels.nbytes,
        "copies": {"reads of the file": 1, "host to device": 1},
        "detect_flops": detect_flops,
        "choose_flops": choose_flops,
        "read_bytes_per_s": read,
        "copy_bytes_per_s": copy,
        "multiply_flops_per_s": multiply,
        "micrographs_per_s": allowed,
    }


def measure_stages(picker: Picker, pixels: Pixels, repeats: int) -> dict[str, float]:
    """Return the median seconds of each stage, one micrograph at a time; the first two warm up."""
    seconds: dict[str, list[float]] = {}

    def note(stage: str, measured: tuple[float, Any]) -> Any:
        seconds.setdefault(stage, []).append(measured[0])
        return measured[1]

    for _ in range(repeats + 2):
        note("upload", limits.host_seconds(picker.device, lambda: picker.upload(pixels).wait()))
        uploaded = picker.upload(pixels)
        prepare = limits.device_seconds(
            picker.device,
            lambda up=uploaded: picker.prepare(up, PIXEL_SIZE_YX, PARAMS),  # type: ignore[misc]
        )
        prepared = note("prepare", prepare)
        found = note(
            "detect",
            limits.device_seconds(picker.device, lambda image=prepared: picker.detect(image, PARAMS)),  # type: ignore[misc]
        )
        note("choose", limits.device_seconds(picker.device, lambda one=found: picker.choose(one)))  # type: ignore[misc]
        drawn = limits.device_seconds(
            picker.device,
            lambda up=uploaded, image=prepared: picker.draw(up, image),  # type: ignore[misc]
        )
        note("draw", drawn)
        whole = limits.host_seconds(picker.device, lambda: picker.pick(pixels, PIXEL_SIZE_YX, PARAMS))
        note("upload to choose", whole)
    return {stage: statistics.median(values[2:]) for stage, values in seconds.items()}


def measure_precisions(
    model: str, device: torch.device, shape_yx: tuple[int, int], repeats: int
) -> dict[str, Any]:
    """Return for each precision how many picks are those of float32, and how long detector and all take."""
    scenes = simulated(SIMULATED, shape_yx)

    def found(picker: Picker) -> list[Picks]:
        return [picker.pick(one, PIXEL_SIZE_YX, PARAMS) for one in scenes]

    exact = found(of_precision(model, device, "float32"))
    on_cpu = found(of_precision(model, torch.device("cpu"), "float32"))
    result: dict[str, Any] = {"float32 on the CPU": {"in_common": same(on_cpu, exact)}}
    for kind in get_args(Precision):
        picker = of_precision(model, device, kind)
        stages = measure_stages(picker, limits.page_locked(scenes[0], device), repeats)
        result[kind] = {
            "in_common": same(found(picker), exact),
            "detect_s": stages["detect"],
            "all_s": stages["upload to choose"],
        }
    return result


def same(some: list[Picks], others: list[Picks]) -> float:
    """Return the share of all picks above the threshold, of the larger number, that are the same."""
    pairs = [(one.yx_px[one.chosen], two.yx_px[two.chosen]) for one, two in zip(some, others, strict=True)]
    larger = [max(len(one), len(two)) for one, two in pairs]
    shares = [in_common(one, two, 1.0) for one, two in pairs]
    return sum(share * count for share, count in zip(shares, larger, strict=True)) / max(1, sum(larger))


def measure_memory(picker: Picker, pixels: Pixels) -> dict[str, int]:
    """Return the device's memory while a micrograph is picked; empty for a CPU."""
    if picker.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(picker.device)
    picker.pick(pixels, PIXEL_SIZE_YX, PARAMS)
    return picker.memory_bytes()


def measure_whole(
    folder: Path, picker: Picker, files: list[Path], given: argparse.Namespace
) -> dict[str, Any]:
    """Return micrographs a second to durable rows, and how long it takes from the start of a process."""
    params = replace(PARAMS, pixel_size_angstrom=None)
    _, ends = picked(picker, files, params)
    each_s = statistics.median(after - before for before, after in itertools.pairwise(ends))
    program = [sys.executable, "-m", "drpwatch", "pick", str(files[0]), "--device", given.device]
    command = [*program, "--diameter-angstrom", f"{DIAMETER_ANGSTROM:g}", "-o", str(folder / "first")]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    first_s = time.perf_counter() - started
    daemon = bench_daemon.measure(folder / "daemon", given.files, given.size, given.dtype, given.device, 0)
    return {
        "pick_per_s": 1 / each_s,
        "first_pick_s": first_s,
        "daemon_per_s": 1 / daemon["seconds_each"],
        "daemon": daemon,
    }


def measure(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Return all figures."""
    picker = Picker.load(given.model, given.device)
    pixels = limits.page_locked(micrograph(1, given.size).astype(given.dtype), picker.device)
    files = write_different(folder / "files", min(given.files, 32), given.size, given.dtype)
    for _ in range(3):
        picker.pick(pixels, PIXEL_SIZE_YX, PARAMS)
    return {
        "device": torch.cuda.get_device_name(picker.device) if picker.device.type == "cuda" else "CPU",
        "precision": picker.precision,
        "imprecise": picker.imprecise,
        "floor": measure_floor(picker, pixels, files, given.repeats),
        "stages_s": measure_stages(picker, pixels, given.repeats),
        "calls": limits.calls_of(picker.device, lambda: picker.pick(pixels, PIXEL_SIZE_YX, PARAMS)),
        "memory_bytes": measure_memory(picker, pixels),
        "precisions": measure_precisions(given.model, picker.device, given.size, given.repeats),
        "whole": measure_whole(folder, picker, files, given),
        "machine": machine(),
    }


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Return the table: what, how much, and what is aimed at."""
    stages = [[f"{name}, ms", f"{1000 * value:.2f}", ""] for name, value in result["stages_s"].items()]
    memory = [
        [f"memory, {name}", f"{result['memory_bytes'][name] / GIB:.2f} GiB", "4 GiB"]
        for name in ("peak", "reserved")
        if name in result["memory_bytes"]
    ]
    return [
        *_floor_rows(result),
        *stages,
        *_whole_rows(result),
        *memory,
        *(_precision_row(name, one) for name, one in result["precisions"].items()),
        ["process start to first rows", f"{result['whole']['first_pick_s']:.1f} s", "30 s"],
        ["daemon start to ready", f"{result['whole']['daemon']['ready_s']:.1f} s", "30 s"],
        ["waits for the device, a micrograph", str(result["calls"]["waits"]), "1"],
        ["kernels started, a micrograph", str(result["calls"]["launches"]), ""],
        ["values asked for, a micrograph", str(result["calls"]["fetches"]), ""],
    ]


def _floor_rows(result: dict[str, Any]) -> list[list[str]]:
    floor = result["floor"]
    reads = ", ".join(f"{value / 1e9:.1f}" for value in floor["read_bytes_per_s"].values())
    flops = ", ".join(f"{floor[name] / 1e9:.1f}" for name in ("detect_flops", "choose_flops"))
    products = f"{floor['multiply_flops_per_s'] / 1e12:.2f} TFLOP/s"
    return [
        ["bytes: read once, host to device once", f"{floor['bytes'] / 2**20:.1f} MiB", ""],
        ["operations of the networks in detect, choose", f"{flops} GFLOP", ""],
        [f"page cache read by {', '.join(map(str, READERS))} threads", f"{reads} GB/s", ""],
        ["page-locked memory to the device", f"{floor['copy_bytes_per_s'] / 1e9:.1f} GB/s", ""],
        [f"products of matrices, {result['precision']}", products, ""],
        *(
            [f"floor: {name}", f"{value:.0f} a second", ""]
            for name, value in floor["micrographs_per_s"].items()
        ),
    ]


def _whole_rows(result: dict[str, Any]) -> list[list[str]]:
    whole, allowed = result["whole"], result["floor"]["micrographs_per_s"]
    best = max(whole["pick_per_s"], whole["daemon_per_s"])
    share = best / min(allowed["read"], allowed["copy"])
    return [
        ["end to end, `drpwatch pick`", f"{whole['pick_per_s']:.1f} a second", "50"],
        ["end to end, daemon", f"{whole['daemon_per_s']:.1f} a second", "50"],
        ["the better one, of the slower of read and copy", f"{100 * share:.0f} %", "80 %"],
        ["daemon: time that is not picking", f"{100 * whole['daemon']['share_not_picking']:.0f} %", ""],
    ]


def _precision_row(name: str, one: dict[str, float]) -> list[str]:
    times = [f"{1000 * one[key]:.2f}" for key in ("detect_s", "all_s") if key in one]
    what = f"{name}: picks in common" + ("; detect, all, ms" if times else "")
    return [
        what,
        "; ".join([f"{100 * one['in_common']:.1f} %", *([", ".join(times)] if times else [])]),
        "99.5 %",
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run the bench and print its table."""
    parser = options(__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", default="general")
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--size", type=shape, default=(4096, 4096), metavar="HxW")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--dir", type=Path, help="where the files go; else where temporary ones do")
    given = parser.parse_args(arguments)
    if given.device != "cpu" and not torch.cuda.is_available():
        print("This machine has no GPU that PyTorch can use: nothing was measured.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(dir=given.dir) as folder:
        result = measure(Path(folder), given)
    size = f"{given.size[0]}x{given.size[1]} {given.dtype}"
    print(table([f"{size}, {result['device']}", "measured", "aim"], rows(result)))
    print(f"\nmedians of {given.repeats}; {told(result['machine'])}")
    if result["imprecise"]:
        print(f"half precision was not taken: {result['imprecise']}")
    keep(result, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
