"""The daemon as it is shipped, on real micrographs that arrive in pieces, in three pixel types."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from drpwatch.assess.detection import match
from drpwatch.formats import star
from tests.daemon.rig import REAL, ROOT, Rig
from tests.support import eventually

DATA = ROOT.parent / "shared" / "data"
IMAGES = sorted((DATA / "empiar-10017").glob("*.jpg"))
WEIGHTS = ROOT / "drpwatch" / "pick" / "models" / "general.safetensors"
DIAMETER_ANGSTROM = 191.0
COUNTS = {"float32": 3, "float16": 2, "int8": 2}  # micrographs of each pixel type, a session each
SETTLE_S = 0.4
PAUSE_S = 1.0  # more than the settle time: only the size tells that a file is not whole
PER_MICROGRAPH_S = 15.0  # a deadline for a busy machine, not a measure

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not IMAGES, reason="the real micrographs are absent"),
    pytest.mark.skipif(not WEIGHTS.exists(), reason="no weights are shipped yet"),
]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path, SETTLE_S, REAL)
    yield made
    made.close()


def convert(folder: Path, dtype: str, count: int) -> list[Path]:
    """Write the first micrographs as MRC files, by the script that belongs to the data."""
    images = folder / "empiar-10017"  # the script knows the pixel size by this name
    images.mkdir(parents=True)
    for image in IMAGES[:count]:
        (images / image.name).symlink_to(image)
    command = [sys.executable, str(DATA / "to_mrc.py"), str(images), str(folder / "mrc"), "--dtype", dtype]
    subprocess.run(command, check=True, capture_output=True)
    return sorted((folder / "mrc").glob("*.mrc"))


def copy_in_pieces(paths: list[Path], watched: Path) -> dict[str, float]:
    """Copy one by one, with pauses in the header and in the pixels; return when each was not yet whole."""
    unfinished_at = {}
    for path in paths:
        content = path.read_bytes()
        with (watched / path.name).open("wb", buffering=0) as file:
            for start, end in ((0, 700), (700, len(content) // 2), (len(content) // 2, len(content) - 1)):
                file.write(content[start:end])
                time.sleep(PAUSE_S)
            unfinished_at[path.name] = time.time()
            file.write(content[-1:])
    return unfinished_at


def recorded(rig: Rig, session: str, count: int) -> list[dict[str, Any]]:
    """Return the micrographs of a session once all are recorded."""
    within_s = 30 + PER_MICROGRAPH_S * sum(COUNTS.values())  # of them all: they take turns
    rig.picked(count, session, within_s)
    view = rig.control.session(session)
    assert view["micrographs"] == {"waiting": 0, "ready": 0, "picked": count, "failed": 0}
    return list(view["newest"])


def check_session(rig: Rig, session: str, unfinished_at: dict[str, float]) -> dict[str, Any]:
    """Each micrograph was picked once, after it was whole, and its rows are there; return them (n, 2)."""
    newest = recorded(rig, session, len(unfinished_at))
    assert {one["name"] for one in newest} == set(unfinished_at)
    out = rig.out_dir(session)
    rows = star.read(out / "particles.star")["particles"]
    written = Counter(rows.column("rlnMicrographName"))
    picks = {}
    for one in newest:
        name = one["name"]
        assert one["generation"] == 1
        assert one["first_seen_at"] < unfinished_at[name] < one["ready_at"] < one["recorded_at"]
        (block,) = star.read(out / name.replace(".mrc", "_autopick.star")).values()
        picks[name] = block.picks_yx()
        assert 50 < len(picks[name]) == one["picks"] == written[name]
    assert set(written) == set(unfinished_at)
    listed = star.read(out / "autopick.star")["coordinate_files"].column("rlnMicrographName")
    assert sorted(listed) == sorted(unfinished_at)
    return picks


def test_real_micrographs_arrive_in_pieces_and_are_picked_once(rig: Rig, tmp_path: Path) -> None:
    sources = {dtype: convert(tmp_path / "source" / dtype, dtype, count) for dtype, count in COUNTS.items()}
    rig.start()
    for dtype in COUNTS:
        rig.start_session(dtype, diameter_angstrom=DIAMETER_ANGSTROM)
    with ThreadPoolExecutor() as copies:
        unfinished_at = dict(
            zip(
                sources,
                copies.map(lambda dtype: copy_in_pieces(sources[dtype], rig.watch_dir(dtype)), sources),
                strict=True,
            )
        )
    picks = {dtype: check_session(rig, dtype, unfinished_at[dtype]) for dtype in COUNTS}
    told = Counter((event["session"], event["micrograph"]) for event in rig.events("micrograph_picked"))
    assert told == {(dtype, path.name): 1 for dtype, paths in sources.items() for path in paths}
    for dtype in ("float16", "int8"):
        for name, found in picks[dtype].items():
            same = match(found, picks["float32"][name], radius_px=1.0)
            share = len(same.pick) / max(len(found), len(picks["float32"][name]))
            assert share >= 0.98, f"{dtype} {name}"
    for dtype in COUNTS:
        rig.control.change(dtype, "stop")
    eventually(
        lambda: {view["state"] for view in rig.control.sessions()} == {"completed"}, 10, "all complete"
    )
    assert rig.stop() == 0
