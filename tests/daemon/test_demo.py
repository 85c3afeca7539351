"""The whole way, by the real programs: microscope, daemon, picker, STAR files."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from drpwatch.cli import main
from drpwatch.formats import star
from drpwatch.report.handover import REPORT
from tests.support import PATIENCE, eventually

COMMAND = [sys.executable, "-m", "drpwatch", "demo", "--count", "6", "--pace-s", "0.6"]


def daemons(folder: Path) -> list[int]:
    """Return the processes whose command line names the folder, but for the demo itself."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except (OSError, NotADirectoryError):
            continue
        if b"run" in words and str(folder / "config.toml").encode() in words:
            found.append(int(entry.name))
    return found


def test_a_demo_goes_well_and_stays_as_long_as_it_is_looked_at(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    process = subprocess.Popen(
        [*COMMAND, "--json", "--stay", "-o", folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    eventually((folder / "drpwatch" / "demo" / REPORT).exists, 60, "the report")
    time.sleep(1.0)
    assert len(daemons(folder)) == 1
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=PATIENCE * 10)
    assert (process.returncode, errors) == (0, "")
    result = json.loads(out)
    assert result["micrographs"] == {"waiting": 0, "ready": 0, "picked": 6, "failed": 1}
    assert result["f"] > 0.7
    assert result["latency_s_median"] > result["settle_s"]
    blocks = star.read(folder / "drpwatch" / "demo" / "particles.star")
    assert len(blocks["particles"].rows) == result["picks"] > 100
    listed = star.read(folder / "drpwatch" / "demo" / "autopick.star")["coordinate_files"]
    for name, picks in zip(
        listed.column("rlnMicrographName"), listed.column("rlnMicrographCoordinates"), strict=True
    ):
        assert (folder / name).is_file()
        assert Path(picks).is_file()
    assert daemons(folder) == []


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_takes_everything_with_it(tmp_path: Path, signum: int, code: int) -> None:
    process = subprocess.Popen(
        COMMAND,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    seen = ""
    while "waiting" not in seen:  # the first micrograph, so the daemon works
        line = process.stdout.readline()
        assert line, process.stderr
        seen += line
    match = re.search(r"Everything is in (\S+)\.", seen)
    assert match is not None
    folder = Path(match[1])
    assert len(daemons(folder)) == 1
    page = re.search(r"in a browser while it runs: (http://127\.0\.0\.1:\d+)", seen)
    assert page is not None
    with urllib.request.urlopen(page[1], timeout=PATIENCE * 10) as answer:
        assert b"<title>drpwatch</title>" in answer.read()
    process.send_signal(signum)
    _, errors = process.communicate(timeout=PATIENCE * 60)
    assert (process.returncode, errors) == (code, "")
    assert daemons(folder) == []
    assert list(tmp_path.iterdir()) == []


def test_a_daemon_that_dies_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    process = subprocess.Popen(
        [*COMMAND, "--json", "-o", folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    eventually(lambda: list(folder.glob("MotionCorr/job002/*/*.mrc")), 60, "the first micrograph")
    (pid,) = daemons(folder)
    os.kill(pid, signal.SIGKILL)
    out, errors = process.communicate(timeout=PATIENCE * 60)
    assert (process.returncode, out) == (1, "")
    assert errors.count("\n") == 1
    assert "daemon" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "nonesuch"], "nonesuch"),
        (["--out", "/proc/x"], "cannot be used"),
    ],
)
def test_what_cannot_work_is_told_in_a_sentence(arguments, sentence, capfd) -> None:
    assert main(["demo", "--json", "--no-keep", *arguments]) in (1, 2)
    errors = capfd.readouterr().err
    assert errors.startswith("drpwatch: error: ")
    assert sentence in errors


def test_a_folder_that_is_in_use_is_left_alone(tmp_path: Path, capfd) -> None:
    (tmp_path / "thesis.tex").write_text("all of it")
    assert main(["demo", "-o", str(tmp_path)]) == 2
    assert "not empty" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
