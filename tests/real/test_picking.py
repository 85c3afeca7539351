"""Real micrographs, by the command line: `drpwatch pick`, then `drpwatch evaluate` against human labels."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[3] / "shared"
DATA = SHARED / "data"
PUBLISHED = SHARED / "weights" / "drpnet_cnet_1.mat"
DIAMETER = ["--diameter-angstrom", "191"]

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not (DATA / "empiar-10017").is_dir(), reason="the real micrographs are absent"),
]


def drpwatch(*arguments: object) -> str:
    command = [sys.executable, "-m", "drpwatch", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def beta_galactosidase(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("empiar-10017")
    command = [sys.executable, DATA / "to_mrc.py", DATA / "empiar-10017", folder, "--dtype", "int8"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def figures(micrographs: Path, out: Path, *options: object) -> dict[str, float]:
    """Pick all, evaluate, and return the pooled figures."""
    summary = json.loads(drpwatch("pick", micrographs, *DIAMETER, "-o", out, "--json", *options))
    assert summary["micrographs"] == {"picked": 10, "unchanged": 0, "failed": 0}
    result = json.loads(
        drpwatch("evaluate", out / "particles.star", micrographs / "truth.star", *DIAMETER, "--json")
    )
    print(f"{result['pooled']}, {summary['seconds_per_micrograph']:.2f} s per micrograph")
    return result["pooled"]


def test_the_shipped_weights_on_micrographs_they_never_saw(beta_galactosidase, tmp_path):
    assert figures(beta_galactosidase, tmp_path / "out")["f"] >= 0.65


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published detector is absent")
def test_the_published_detector_as_its_authors_use_it(beta_galactosidase, tmp_path):
    model = tmp_path / "drpnet.safetensors"
    assert "academic use only" in drpwatch("model", "import-matlab", PUBLISHED, "-o", model)
    assert figures(beta_galactosidase, tmp_path / "out", "--model", model)["f"] >= 0.73
