"""A reader that polls the STAR files as fast as it can: `python -m tests.campaign.reader OUT_DIRECTORY...`.

It reads with gemmi, as other programs do, and has no line of the daemon. What it refuses: a file that gemmi
refuses, values that are torn, and a micrograph whose rows come in two places. A file or directory that is
not there is none of its business. It ends with its stdin and prints what it saw as JSON.
"""

from __future__ import annotations

import json
import os
import re
import select
import sys
import time
from itertools import groupby
from pathlib import Path

import gemmi

_ROW = {
    "_rlnCoordinateX": re.compile(r"\d+\.\d{3}"),
    "_rlnCoordinateY": re.compile(r"\d+\.\d{3}"),
    "_rlnAutopickFigureOfMerit": re.compile(r"[01]\.\d{6}"),
    "_rlnMicrographName": re.compile(r"'?.*mic_\d{3}\.mrc(\.gz)?'?"),
    "_rlnMicrographCoordinates": re.compile(r"'?/.*mic_\d{3}(\.mrc)?_autopick\.star'?"),
    "_rlnOpticsGroup": re.compile(r"1"),
    "_rlnOriginXAngst": re.compile(r"0\.000000"),
    "_rlnOriginYAngst": re.compile(r"0\.000000"),
}
TABLES = {"particles.star": "particles", "autopick.star": "coordinate_files"}
_KEPT = 5  # of the complaints


def complaint(path: Path, block: str) -> str | None:
    """Return what is wrong with a file, None if nothing is.

    Raises
    ------
    OSError
        It is not there, or cannot be read now.
    """
    content = path.read_bytes()
    try:
        table = gemmi.cif.read_string(content).find_block(block)
    except ValueError as error:
        return f"gemmi refuses it: {error}; its end is {content[-200:]!r}"
    if table is None:
        return f"it has no data_{block}; its end is {content[-200:]!r}"
    for label, wanted in _ROW.items():
        for value in table.find_values(label):
            if not wanted.fullmatch(value):
                return f"{label} is {value!r}; its end is {content[-200:]!r}"
    names = [name for name, _ in groupby(table.find_values("_rlnMicrographName"))]
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    return f"rows in two places: {', '.join(sorted(twice)[:3])}" if twice else None


def poll(directories: list[Path]) -> dict[str, object]:
    """Read, once at least, until stdin ends."""
    reads, missing, rows_bytes, complaints = 0, 0, 0, []
    begun = time.monotonic()
    over = False
    while not over:
        seen = False
        for path, block in ((d / name, block) for d in directories for name, block in TABLES.items()):
            try:
                wrong = complaint(path, block)
                rows_bytes = max(rows_bytes, path.stat().st_size)
            except OSError:
                missing += 1
                continue
            seen = True
            reads += 1
            if wrong is not None and len(complaints) < _KEPT:
                complaints.append({"at": time.time(), "file": str(path), "wrong": wrong})
        if not seen:
            time.sleep(0.05)
        over = bool(select.select([sys.stdin], [], [], 0)[0])
    return {
        "reads": reads,
        "missing": missing,
        "largest_bytes": rows_bytes,
        "seconds": round(time.monotonic() - begun, 1),
        "complaints": complaints,
    }


if __name__ == "__main__":
    os.nice(3)  # on a busy machine there must be something to read
    print(json.dumps(poll([Path(argument) for argument in sys.argv[1:]])))
