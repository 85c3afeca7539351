"""What `drpwatch evaluate` prints, and what it asks for."""

import json
import subprocess
import sys

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from drpwatch.cli import main
from drpwatch.cli.evaluate import evaluate
from drpwatch.errors import UsageError
from drpwatch.formats import star
from drpwatch.formats.mrc import write_mrc
from tests.assess.making import make_set
from tests.pick.making import disc_model, discs, scattered

app = typer.Typer()
app.command("evaluate")(evaluate)

TRUTH_YX = np.array([[100.0, 200.0], [300.0, 400.0], [500.0, 600.0], [700.0, 800.0]])
PICKS_YX = np.concatenate([TRUTH_YX[:3] + np.array([0, 3]), [[900.0, 900.0]]])
SCORE = np.array([0.9, 0.8, 0.7, 0.1])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return disc_model(tmp_path_factory.mktemp("weights") / "discs.safetensors")


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
        (["--diameter-px", "5", "--limit", "1"], "--limit is for --suite"),
        (["--diameter-px", "5", "--pictures", "x"], "both --pictures and --micrographs"),
        (["--suite", "x"], "give PICKS and TRUTH, or --suite, not both"),
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


def test_neither_form():
    with pytest.raises(UsageError, match="give PICKS and TRUTH, or --suite"):
        run()
    with pytest.raises(UsageError, match="--sweep is for PICKS and TRUTH"):
        run("--suite", "x", "--sweep")


def test_pictures(files, tmp_path):
    noise = np.random.default_rng(1).standard_normal((900, 1000)).astype(np.float32)
    (tmp_path / "mics").mkdir()
    write_mrc(tmp_path / "mics" / "a.mrc", noise, 2.0)
    pictures = tmp_path / "pictures"
    run(
        *[*files, "--diameter-px", "50", "--pictures", str(pictures)],
        *["--micrographs", str(tmp_path / "mics")],
    )
    assert sorted(path.name for path in pictures.iterdir()) == ["a.png", "false_and_missed.png"]
    with pytest.raises(UsageError, match="has none of the micrographs"):
        run(*files, "--diameter-px", "50", "--pictures", "x", "--micrographs", str(pictures))


class TestSuite:
    @pytest.fixture
    def suite(self, tmp_path):
        """Two data sets: discs with their truth, and noise."""
        shape, pixel_size = (300, 340), 5.0
        diameter_px = 24.0
        yx = scattered(shape, diameter_px)
        image = discs(shape, yx, (diameter_px, diameter_px))
        make_set(
            tmp_path / "suite" / "discs",
            f"diameter_angstrom = {diameter_px * pixel_size}\npixel_size_angstrom = {pixel_size}\n"
            'truth = "truth.star"\n',
            {"a": yx},
            {"a": image},
        )
        text = "diameter_angstrom = 48\nexpected_picks_at_most = 7\n"
        make_set(tmp_path / "suite" / "noise", text, images={"a": image[:100, :100]})
        return tmp_path / "suite"

    @pytest.fixture
    def command(self, suite, model):
        return ["evaluate", "--suite", str(suite), "--model", str(model), "--device", "cpu", "--threads", "1"]

    def test_a_table(self, command, capsys):
        assert main(command) == 0
        header, noted, empty, *_ = capsys.readouterr().out.splitlines()
        assert header.split()[:5] == ["set", "micrographs", "recall", "precision", "F"]
        assert noted.split()[:2] == ["discs", "1"]
        assert float(noted.split()[4]) > 0.9
        assert float(noted.split()[7]) < 0.1
        assert empty.split()[:2] == ["noise", "2"]
        assert empty.split()[2:8] == ["-"] * 6
        assert empty.split()[9] == "7"

    def test_json_and_limit(self, command, capsys):
        assert main([*command, "--json", "--limit", "1"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["model"], found["threshold"], found["device"]) == ("discs", 0.5, "cpu")
        assert found["sets"]["discs"]["f"] > 0.9
        assert list(found["sets"]["noise"]["picks"]) == ["a"]
        assert found["sets"]["noise"]["f"] is None
        assert found["broken"] == {}

    def test_pictures_of_each_set(self, command, tmp_path):
        assert main([*command, "--pictures", str(tmp_path / "pictures")]) == 0
        assert (tmp_path / "pictures" / "discs" / "a.png").is_file()
        assert (tmp_path / "pictures" / "noise" / "b.png").is_file()

    def test_a_micrograph_that_fails_is_in_a_table(self, suite, command, capsys):
        (suite / "noise" / "b.mrc").write_bytes(b"no micrograph")
        assert main(command) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[-1].split()[:3] == ["noise", "b", "header"]

    def test_a_broken_set_leaves_the_others(self, suite, command, capsys):
        (suite / "noise" / "dataset.toml").write_text("diameter = 4\n")
        assert main(command) == 1
        said = capsys.readouterr()
        assert [line.split()[0] for line in said.out.splitlines()[:2]] == ["set", "discs"]
        (line,) = said.err.splitlines()
        assert line.startswith("drpwatch: error: noise: ")
        assert "diameter: no such key" in line

    def test_a_device_that_there_is_not(self, command, capsys):
        assert main([*command[:-4], "--device", "gpu"]) == 2
        assert "allowed are auto, cpu, cuda and cuda:N" in capsys.readouterr().err


def test_torch_stays_out():
    modules = "drpwatch.cli.suite, drpwatch.assess.pictures, drpwatch.assess.suite"
    program = f"import sys, {modules}; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
