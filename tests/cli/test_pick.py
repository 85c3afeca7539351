"""`drpwatch pick` and its neighbours, by the command line and with the shipped weights."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from drpwatch.cli import main
from drpwatch.formats import star
from drpwatch.formats.mrc import write_mrc
from tests.pick.test_signature import shells
from tests.support import PATIENCE, eventually

PICK = ["--diameter-angstrom", "150", "--device", "cpu", "--threads", "1"]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("simulated") / "sim"
    wishes = ["--count", "2", "--shape", "500x620", "--pixel-size-angstrom", "3"]
    assert main(["simulate", "-o", str(folder), *wishes, "--diameter-angstrom", "150", "--seed", "4"]) == 0
    return folder


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abc":
        write_mrc(
            folder / f"{name}.mrc",
            np.random.default_rng(ord(name)).standard_normal((200, 220)).astype("f4"),
            3.0,
        )
    return folder


def test_simulate_pick_evaluate(simulated, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["pick", str(simulated), *PICK, "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert re.search(
        r"^2 micrographs picked: \d+ particles, \d+\.\d\d s per micrograph on cpu$", said, re.MULTILINE
    )
    assert f"{out}/particles.star: " in said
    truth = str(simulated / "truth.star")
    assert main(["evaluate", str(out / "particles.star"), truth, "--diameter-angstrom", "150", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pooled"]["f"] > 0.6


def test_json_tells_everything(simulated, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["pick", str(simulated), *PICK, "-o", str(out), "--json"]
    assert main(command) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["micrographs"] == {"picked": 2, "unchanged": 0, "failed": 0}
    assert first["particles_star"] == str(out / "particles.star")
    assert set(first["stage_seconds"]) == {"read", "prepare", "detect", "choose", "record"}
    rows = star.read(out / "particles.star")["particles"].rows
    assert len(rows) == first["picks"] == first["picks_in_particles_star"]
    assert main(command) == 0
    second = json.loads(capsys.readouterr().out)
    assert second["micrographs"] == {"picked": 0, "unchanged": 2, "failed": 0}
    assert second["picks_in_particles_star"] == first["picks"]
    assert main([*command, "--threshold", "0.9"]) == 0
    third = capsys.readouterr()
    assert json.loads(third.out)["notes"] == ["threshold None -> 0.9: 2 micrographs picked again"]
    assert "drpwatch: threshold None -> 0.9: 2 micrographs picked again\n" in third.err


def test_bad_files_are_told_one_line_each_and_the_exit_code_is_1(noise, tmp_path, capsys):
    (noise / "junk.mrc").write_bytes(b"\x07" * 5000)
    write_mrc(noise / "blank.mrc", np.zeros((200, 220), np.float32), 3.0)
    assert main(["pick", str(noise), *PICK, "-o", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "drpwatch: blank.mrc: blank: every pixel is 0",
        "drpwatch: junk.mrc: not an MRC file: its first bytes give no image size",
    ]
    assert "3 micrographs picked" in said.out
    assert ", 2 failed" in said.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "nowhere: no such file or directory"),
        (["in", "--glob", "*.tif"], "nothing to pick"),
        (["in", "--device", "tpu"], "--device tpu: allowed are"),
        (["in", "--threshold", "2"], "threshold 2.0 is not a probability"),
        (["in", "--pixel-size-angstrom", "0"], "pixel size 0.0 Å is not between"),
    ],
)
def test_wrong_arguments_are_exit_code_2(noise, tmp_path, capsys, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    assert main(["pick", *arguments, "--diameter-angstrom", "150", "-o", "out"]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_pixel_size_is_refused(tmp_path, capsys):
    write_mrc(tmp_path / "a.mrc", np.random.default_rng(0).standard_normal((200, 220)).astype("f4"), 0.0)
    command = ["pick", str(tmp_path / "a.mrc"), *PICK, "-o", str(tmp_path / "out")]
    assert main(command) == 2
    assert "a.mrc: the header gives no pixel size: give --pixel-size-angstrom" in capsys.readouterr().err
    assert main([*command, "--pixel-size-angstrom", "3"]) == 0


def test_an_unknown_model_is_told(noise, tmp_path, capsys):
    assert (
        main(["pick", str(noise), *PICK, "-o", str(tmp_path / "out"), "--model", "no/such.safetensors"]) == 1
    )
    assert "no/such.safetensors': no such file, and not one of the shipped models" in capsys.readouterr().err


@pytest.mark.skipif(bool(list(Path("/dev").glob("nvidia[0-9]*"))), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told(noise, tmp_path, capsys):
    assert (
        main(
            [
                "pick",
                str(noise),
                "--diameter-angstrom",
                "150",
                "-o",
                str(tmp_path / "out"),
                "--device",
                "cuda",
            ]
        )
        == 1
    )
    assert 'device "cuda"' in capsys.readouterr().err


def test_ctrl_c_leaves_whole_files_and_the_same_command_goes_on(tmp_path):
    for number in range(15):
        pixels = np.random.default_rng(number).standard_normal((400, 400)).astype("f4")
        write_mrc(tmp_path / f"in{number:02d}.mrc", pixels, 3.0)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "drpwatch", "pick", str(tmp_path), *PICK, "-o", str(out), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    eventually(lambda: len(list(out.glob("in*_autopick.star"))) >= 3, within_s=40, what="three are picked")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE * 5)
    assert process.returncode == 130
    assert err == "drpwatch: interrupted: what is done is safe; the same command goes on from there\n"
    done = len(list(out.glob("in*_autopick.star")))
    assert done < 15
    star.read(out / "particles.star")
    again = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert again["micrographs"] == {"picked": 15 - done, "unchanged": done, "failed": 0}
    assert os.listdir(out / ".drpwatch")


# ---- model --------------------------------------------------------------------------------------


def test_model_info(capsys):
    assert main(["model", "info", "general"]) == 0
    said = capsys.readouterr().out
    for word in ("sha256", "threshold", "licence", "BSD-3-Clause", "matched-unet, 506084 parameters"):
        assert word in said
    assert main(["model", "info", "--json"]) == 0
    (general,) = [one for one in json.loads(capsys.readouterr().out)["models"] if one["name"] == "general"]
    assert len(general["sha256"]) == 64
    assert main(["model", "info"]) == 0
    assert capsys.readouterr().out.startswith("NAME ")


def test_model_info_of_something_else(tmp_path, capsys):
    (tmp_path / "x.safetensors").write_bytes(b"x" * 100)
    assert main(["model", "info", str(tmp_path / "x.safetensors")]) == 1
    assert "not a safetensors file" in capsys.readouterr().err


def test_importing_something_else(tmp_path, capsys):
    (tmp_path / "x.mat").write_bytes(b"x" * 100)
    assert (
        main(["model", "import-matlab", str(tmp_path / "x.mat"), "-o", str(tmp_path / "y.safetensors")]) == 1
    )
    assert "x.mat: not the published DRPnet detector" in capsys.readouterr().err


# ---- simulate -----------------------------------------------------------------------------------


def test_simulate_tells_the_diameter(tmp_path, capsys):
    small = ["--count", "1", "--shape", "200x240", "--pixel-size-angstrom", "4", "--dtype", "int8"]
    assert main(["simulate", "-o", str(tmp_path / "sim"), *small, "--diameter-angstrom", "180"]) == 0
    assert "pick them with --diameter-angstrom 180" in capsys.readouterr().out
    one = ["--pixel-size-angstrom", "1", "--shape", "400x400", "--count", "1"]
    assert main(["simulate", "-o", str(tmp_path / "one"), *one, "--diameter-angstrom", "60"]) == 0
    assert "pick them with --diameter-angstrom 60 --pixel-size-angstrom 1" in capsys.readouterr().out
    assert main(["simulate", "-o", str(tmp_path / "sim"), *small]) == 2
    assert "has a truth.star already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--shape", "big"], "--shape big: give height and width in pixels"),
        (["--shape", "10x10"], "64 to 16384 pixels"),
        (["--dtype", "float64"], "dtype float64: allowed are float32"),
        (["--difficulty", "hard"], "difficulty hard: allowed are clear, any"),
        (["--diameter-angstrom", "2000", "--shape", "256x256"], "more than half of the micrograph"),
        (["--map", "/nowhere"], "/nowhere"),
    ],
)
def test_simulate_refuses_what_makes_no_sense(tmp_path, capsys, arguments, sentence):
    assert main(["simulate", "-o", str(tmp_path / "sim"), *arguments]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "sim").exists()


def test_a_diameter_that_is_clearly_too_small_is_told(tmp_path, capsys):
    field = shells((384, 384), 40, contrast=0.6, diameter_px=24).numpy()
    write_mrc(tmp_path / "one.mrc", field, 6.0)  # particles of 144 angstrom
    command = ["pick", str(tmp_path / "one.mrc"), *PICK[2:], "--diameter-angstrom"]
    assert main([*command, "114", "-o", str(tmp_path / "small"), "--json"]) == 0
    said = capsys.readouterr()
    (note,) = json.loads(said.out)["notes"]
    assert re.match(r"rings in the power spectra tell of particles of 1[345]\d Å rather than 114 Å", note)
    assert f"drpwatch: {note}\n" in said.err
    assert main([*command, "150", "-o", str(tmp_path / "right"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == []
