"""The systemd unit: valid, hardened, and in agreement with the program."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from drpwatch.config import Config
from drpwatch.deploy.host import USER, Host
from drpwatch.errors import ConfigError, DeviceFault

UNIT = Path(__file__).parents[2] / "systemd" / "drpwatch.service"
THRESHOLD_TENTHS = 20

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


def settings() -> dict[str, str]:
    """Return the last value of each key."""
    lines = (line for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#"))
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def deployed(tmp_path: Path) -> Path:
    """The unit with a host's part of it, as systemd reads them: one after the other."""
    config = Config.model_validate(
        {"daemon": {"state_dir": "/srv/drp 100%/state", "socket": "/srv/run/control.sock"}}
    )
    host = Host(
        ("/bin/true",), Path("/etc/my config.toml"), config, "root", (Path("/data/a b"), Path("/mnt"))
    )
    whole = tmp_path / UNIT.name
    whole.write_text("".join(file.text for file in host.files() if "systemd" in file.path.parts))
    return whole


@needs_systemd
def test_verify_accepts_it(deployed: Path) -> None:
    done = analyze("verify", "--man=no", deployed)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("whole", [False, True])
def test_exposure_is_low(deployed: Path, whole: bool) -> None:
    unit = deployed if whole else UNIT
    done = analyze("security", "--offline=yes", f"--threshold={THRESHOLD_TENTHS}", unit)
    assert done.returncode == 0, done.stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout
    assert float(found[1]) <= THRESHOLD_TENTHS / 10


@needs_systemd
def test_each_finding_that_is_left_is_explained_in_a_comment() -> None:
    done = analyze("security", "--offline=yes", "--json=short", UNIT)
    comments = " ".join(line for line in UNIT.read_text().splitlines() if line.startswith("#"))
    left = [entry["name"] for entry in json.loads(done.stdout) if entry["exposure"] and not entry["set"]]
    assert left
    for name in left:
        setting, _, value = name.partition("=")
        assert setting in comments, name
        for word in re.findall(r"@\w+", value):
            assert word in comments, name


def test_it_runs_the_program_with_its_defaults() -> None:
    unit, daemon = settings(), Config().daemon
    assert unit["ExecStart"] == "/opt/drpwatch/bin/drpwatch run"  # which reads the default configuration
    assert unit["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert unit["User"] == USER
    assert Path("/var/lib", unit["StateDirectory"]) == daemon.state_dir
    assert Path("/run", unit["RuntimeDirectory"]) == daemon.socket.parent
    assert float(unit["TimeoutStopSec"]) > daemon.stop_timeout_s
    assert unit["Type"] == "notify"
    assert unit["WatchdogSec"] == "60"


def test_restarts_heal_devices_but_not_configurations() -> None:
    unit = settings()
    assert unit["Restart"] == "on-failure"
    assert int(unit["RestartPreventExitStatus"]) == ConfigError.exit_code
    assert DeviceFault.exit_code != ConfigError.exit_code
