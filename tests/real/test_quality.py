"""How well the shipped weights pick real micrographs, against the recorded figures in quality.json.

A change of weights or of picking that moves a figure fails here until the record is written anew, so that it
shows in review:

    DRPWATCH_RECORD_QUALITY=1 python -m pytest tests/real/test_quality.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.real.making import available

RECORD = Path(__file__).parent / "quality.json"
RECORDING = os.environ.get("DRPWATCH_RECORD_QUALITY", "") not in ("", "0")
REWRITE = "if that is meant: DRPWATCH_RECORD_QUALITY=1 python -m pytest tests/real/test_quality.py"
RATIOS = ("recall", "precision", "f", "best_f", "median_error_diameters")
TOLERANCE = 0.01
FLOORS = {"empiar-10017": 0.78, "empiar-10059": 0.67, "empiar-10146": 0.50}  # of F; no record may go below

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not available(), reason="the real micrographs are absent"),
]


@pytest.fixture(scope="module")
def found(suite: Path) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "drpwatch",
        "evaluate",
        "--suite",
        str(suite),
        "--device",
        "cpu",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    if RECORDING:
        RECORD.write_text(json.dumps(record(result), indent=2) + "\n")
    return result


def record(result: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of the figures: those that do not depend on the machine."""
    sets = {
        name: {"micrographs": one["micrographs"], "median_picks": one["median_picks"]}
        | {ratio: round(one[ratio], 4) for ratio in RATIOS if one[ratio] is not None}
        for name, one in result["sets"].items()
    }
    return {key: result[key] for key in ("model", "weights_sha256", "threshold")} | {"sets": sets}


def test_every_micrograph_is_picked(found: dict[str, Any]) -> None:
    assert {name: one["micrographs"] for name, one in found["sets"].items()} == {
        "empiar-10017": 10,
        "empiar-10059": 5,
        "empiar-10146": 10,
        "micassess-empty": 6,
        "micassess-good": 6,
        "micassess-junk": 6,
    }
    assert [one["failures"] for one in found["sets"].values()] == [{}] * 6


def test_the_figures_are_those_on_record(found: dict[str, Any]) -> None:
    now, recorded = record(found), json.loads(RECORD.read_text())
    assert now["weights_sha256"] == recorded["weights_sha256"], f"other weights; {REWRITE}"
    changed = [
        f"{name}: {figure} is {now['sets'][name][figure]}, on record {value}"
        for name, figures in recorded["sets"].items()
        for figure, value in figures.items()
        if now["sets"][name][figure] != pytest.approx(value, abs=TOLERANCE, rel=TOLERANCE)
    ]
    assert not changed, f"{'; '.join(changed)}; {REWRITE}"


@pytest.mark.parametrize("name", FLOORS)
def test_no_record_is_below_the_floor(found: dict[str, Any], name: str) -> None:
    assert found["sets"][name]["f"] >= FLOORS[name]
