"""A million damaged MRC files for the reader: none may crash it, hold it up, or make it take memory.

    python -m tests.bench.fuzz_mrc [--count 1000000] [--seed 1]

Prints one JSON object. A file is a small valid one, plain or (one of twenty) compressed, of which some header
fields or bytes were overwritten, and which may be cut or lengthened. It lies in memory, and is read as the
daemon does: header, completeness, pixels. `tests/formats/test_mrc.py` does the same with a few.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import struct
import time
import tracemalloc
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from drpwatch.errors import MicrographError
from drpwatch.formats import mrc

_VALUES = (0, 1, -1, 2, 3, 4, 6, 12, 101, 255, 256, 1024, 65_535, 65_536, 1 << 24, (1 << 31) - 1, -(1 << 31))
_FIELDS = (*range(0, 56, 4), 88, 92, 96, 152, 156, 208, 212)
_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_COMPRESSED_SHARE = 0.05
_SLACK_BYTES = 200_000  # buffers of the reader, and Python's objects
_GUNZIP_BYTES = 1_500_000
_MOST_RATIO = 100  # of what is in a compressed file to its size


@dataclass
class Findings:
    """What came of it."""

    cases: int = 0
    read: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)
    greedy: list[str] = field(default_factory=list)  # took more memory than the file explains
    slowest_s: float = 0.0  # of the processor
    most_bytes: int = 0  # of memory, for one plain file

    def as_dict(self) -> dict[str, object]:
        """Return plain JSON values."""
        return {**vars(self), "refused": dict(self.refused)}


def fuzz(count: int, seed: int) -> Findings:
    """Read so many damaged files."""
    draw = random.Random(seed)
    bases = [_base(mode, order) for mode in _MODES for order in "<>"]
    findings = Findings()
    descriptor = os.memfd_create("fuzz")
    path = Path(f"/proc/self/fd/{descriptor}")
    tracemalloc.start()
    try:
        for _ in range(count):
            content = _damaged(draw, bytearray(draw.choice(bases)))
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, content, 0)
            _try(path, content, findings)
    finally:
        tracemalloc.stop()
        os.close(descriptor)
    return findings


def _base(mode: int, order: str) -> bytes:
    """Return a valid file of 12 x 20 pixels."""
    pixels = np.random.default_rng(mode).integers(1, 100, (12, 20)).astype(order + _MODES[mode])
    header = bytearray(1024)
    struct.pack_into(f"{order}10i", header, 0, 20, 12, 1, mode, 0, 0, 0, 20, 12, 1)
    struct.pack_into(f"{order}6f", header, 40, 30.0, 18.0, 1.5, 90.0, 90.0, 90.0)
    header[208:212] = b"MAP "
    return bytes(header) + pixels.tobytes()


def _damaged(draw: random.Random, content: bytearray) -> bytes:
    """Overwrite some fields and bytes; perhaps cut, lengthen or compress."""
    for _ in range(draw.randrange(4)):
        value = draw.choice(_VALUES) if draw.random() < 0.7 else draw.randint(-(1 << 31), (1 << 31) - 1)
        struct.pack_into(draw.choice("<>") + "i", content, draw.choice(_FIELDS), value)
    for _ in range(draw.randrange(4)):
        content[draw.randrange(draw.choice((4, 224, 1024, len(content))))] = draw.randrange(256)
    if draw.random() < 0.2:
        del content[draw.randrange(len(content)) :]
    elif draw.random() < 0.2:
        content += bytes(draw.randrange(3000))
    if draw.random() >= _COMPRESSED_SHARE:
        return bytes(content)
    packed = bytearray(gzip.compress(content, 1))
    for _ in range(draw.randrange(3)):
        packed[draw.randrange(len(packed))] = draw.randrange(256)
    return bytes(packed[: draw.randrange(len(packed))] if draw.random() < 0.2 else packed)


def _try(path: Path, content: bytes, findings: Findings) -> None:
    """Read one file, and note what it took."""
    before_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    started_s = time.process_time()
    try:
        header = mrc.read_header(path)
        mrc.check_complete(header, len(content))
        mrc.read_pixels(path, header)
        findings.read += 1
    except MicrographError as refusal:
        findings.refused[type(refusal).__name__] += 1
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        findings.crashes.append(f"{type(error).__name__}: {error}; {content[:256].hex()}")
    took_bytes = tracemalloc.get_traced_memory()[1] - before_bytes
    findings.cases += 1
    findings.slowest_s = max(findings.slowest_s, time.process_time() - started_s)
    compressed = content[:2] == b"\x1f\x8b"
    allowed_bytes = len(content) + _SLACK_BYTES
    if compressed:
        allowed_bytes = _MOST_RATIO * len(content) + _GUNZIP_BYTES
    else:
        findings.most_bytes = max(findings.most_bytes, took_bytes)
    if took_bytes > allowed_bytes:
        findings.greedy.append(f"{took_bytes} bytes for a file of {len(content)}; {content[:256].hex()}")


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    started_s = time.perf_counter()
    findings = fuzz(given.count, given.seed)
    took_s = time.perf_counter() - started_s
    print(json.dumps({"seed": given.seed, "seconds": round(took_s, 1), **findings.as_dict()}, indent=2))


if __name__ == "__main__":
    main()
