"""A short campaign; the long one is `python -m tests.campaign`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaign.supervisor import ROOT, Supervisor
from tests.support import eventually


@pytest.mark.parametrize("devices", ["1", "2"])
def test_nothing_is_lost_doubled_or_torn(tmp_path: Path, devices: str) -> None:
    told = tmp_path / "result.json"
    options = "--seed 7 --micrographs 80 --kills 8 --rate 8 --pace 0.5".split()
    command = [sys.executable, "-m", "tests.campaign", *options, "--devices", devices, "--json", str(told)]
    run = subprocess.run(
        [*command, "--keep", str(tmp_path / "all")], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    result = json.loads(told.read_text())
    assert result["problems"] == []
    assert result["faults"]["kill"] >= 8
    assert [check["lost"] + check["doubled"] for check in result["checked"]] == [0, 0]
    assert all(check["good"] >= 50 and check["bad"] >= 1 for check in result["checked"])
    assert result["reader"]["reads"] > 500


def test_an_end_that_nobody_asked_for_is_told(tmp_path: Path) -> None:
    supervisor = Supervisor(["-c", "raise SystemExit(3)"], tmp_path / "socket", tmp_path / "log", 5.0)
    supervisor.start()
    eventually(lambda: len(supervisor.unexpected) >= 2, 10, "it is started again")
    supervisor.close()
    assert {one.code for one in supervisor.unexpected} == {3}
