"""What `drpwatch evaluate` prints, and what it asks for."""

import json
import subprocess
import sys

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from drpwatch.cli.evaluate import evaluate
from drpwatch.errors import UsageError
from drpwatch.formats import star

app = typer.Typer()
app.command("evaluate")(evaluate)

TRUTH_YX = np.array([[100.0, 200.0], [300.0, 400.0], [500.0, 600.0], [700.0, 800.0]])
PICKS_YX = np.concatenate([TRUTH_YX[:3] + np.array([0, 3]), [[900.0, 900.0]]])
SCORE = np.array([0.9, 0.8, 0.7, 0.1])


@pytest.fixture
def files(tmp_path):
    """Return the paths of picks and truth: three of four particles found, one pick wrong, one beside."""
    picks, truth = tmp_path / "particles.star", tmp_path / "truth.star"
    picks.write_bytes(
        star.particles_header(star.Optics(2.0))
        + star.particles_rows("mics/a.mrc", PICKS_YX, SCORE)
        + star.particles_rows("mics/b.mrc", PICKS_YX, SCORE)
    )
    rows = "".join(f"a.mrc {x} {y}\n" for y, x in TRUTH_YX)
    truth.write_text(f"data_\n\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n{rows}")
    return str(picks), str(truth)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_table_for_people(files):
    lines = run(*files, "--diameter-angstrom", "100").splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["micrograph", "truth", "picks", "matched", "recall", "precision", "F", "error", "px"],
        ["a", "4", "4", "3", "0.750", "0.750", "0.750", "3.0"],
        ["pooled", "4", "4", "3", "0.750", "0.750", "0.750", "3.0"],
    ]
    assert "within 25.0 px" in lines[4]
    assert lines[5] == "not scored: 4 picks on 1 micrographs that the truth does not name"


def test_a_sweep(files):
    output = run(*files, "--diameter-px", "50", "--sweep")
    assert [line.split()[0] for line in output.splitlines()[8:]] == ["0.1000", "0.7000", "0.8000", "0.9000"]
    assert [line.split()[0] for line in output.splitlines() if "best F" in line] == ["0.7000"]


def test_json_has_everything(files):
    result = json.loads(run(*files, "--diameter-angstrom", "100", "--sweep", "--json"))
    assert result["radius_px"] == 25.0
    assert {"micrograph": "a", **result["pooled"]} == result["micrographs"][0]
    assert result["pooled"]["f"] == 0.75
    assert result["unscored"] == {"micrographs": 1, "picks": 4}
    assert result["best_threshold"] == pytest.approx(0.7)
    assert [point["picks"] for point in result["sweep"]] == [4, 3, 2, 1]


def test_what_has_no_value_is_null(files, tmp_path):
    empty = tmp_path / "a_autopick.star"
    empty.write_bytes(star.micrograph_picks(PICKS_YX[:0], SCORE[:0]))
    pooled = json.loads(run(str(empty), files[1], "--diameter-px", "50", "--json"))["pooled"]
    assert pooled["precision"] is None
    assert pooled["f"] == 0.0
    assert pooled["median_error_px"] is None


def test_a_given_pixel_size_goes_first(files):
    output = run(*files, "--diameter-angstrom", "100", "--pixel-size-angstrom", "4")
    assert "within 12.5 px" in output


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "give the particle diameter"),
        (["--diameter-px", "5", "--diameter-angstrom", "5"], "either --diameter-angstrom or --diameter-px"),
        (["--diameter-px", "-5"], "is not positive"),
        (["--diameter-angstrom", "5", "--pixel-size-angstrom", "0"], "pixel size of 0.0 Å is not positive"),
    ],
)
def test_options_that_make_no_sense(files, options, reason):
    with pytest.raises(UsageError, match=reason):
        run(*files, *options)


def test_a_pixel_size_that_nobody_gives(files):
    with pytest.raises(UsageError, match="give --pixel-size-angstrom"):
        run(files[1], files[1], "--diameter-angstrom", "100")


def test_torch_stays_out():
    program = "import sys, drpwatch.cli.evaluate, drpwatch.assess.detection; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
