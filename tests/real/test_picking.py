"""Real micrographs, by the command line: `drpwatch pick`, then `drpwatch evaluate` against human labels.

What the shipped weights do is in `test_quality`.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real.making import DATA, available

PUBLISHED = DATA.parent / "weights" / "drpnet_cnet_1.mat"
DIAMETER = ["--diameter-angstrom", "191"]

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not available(), reason="the real micrographs are absent"),
]


def drpwatch(*arguments: object) -> str:
    command = [sys.executable, "-m", "drpwatch", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def figures(micrographs: Path, out: Path, *options: object) -> dict[str, float]:
    """Pick all, evaluate, and return the pooled figures."""
    summary = json.loads(drpwatch("pick", micrographs, *DIAMETER, "-o", out, "--json", *options))
    assert summary["micrographs"] == {"picked": 10, "unchanged": 0, "failed": 0}
    result = json.loads(
        drpwatch("evaluate", out / "particles.star", micrographs / "truth.star", *DIAMETER, "--json")
    )
    print(f"{result['pooled']}, {summary['seconds_per_micrograph']:.2f} s per micrograph")
    return result["pooled"]


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published detector is absent")
def test_the_published_detector_as_its_authors_use_it(suite, tmp_path):
    model = tmp_path / "drpnet.safetensors"
    assert "academic use only" in drpwatch("model", "import-matlab", PUBLISHED, "-o", model)
    assert figures(suite / "empiar-10017", tmp_path / "out", "--model", model)["f"] >= 0.73
