"""`drpwatch doctor`, without a daemon and with one."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from drpwatch.cli import main
from tests.daemon.rig import Rig
from tests.support import eventually


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with closing(Rig(tmp_path)) as made:
        yield made


@pytest.fixture
def ask(rig: Rig, capsys: pytest.CaptureFixture[str]):
    """Return a function that returns the exit code and the checks, by name."""

    def run(*options: str | Path) -> tuple[int, dict[str, dict[str, Any]]]:
        code = main(["doctor", "--config", str(rig.config), "--json", *map(str, options)])
        checks = json.loads(capsys.readouterr().out)["checks"]
        return code, {check["name"]: check for check in checks}

    return run


def test_it_needs_no_daemon(ask, rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "mics").mkdir()
    code, checks = ask("--watch", tmp_path / "mics", "--out", tmp_path / "out/s1")
    assert list(checks) == [
        "configuration", "device", "weights", "state directory", "daemon", "watch root", "output", "port",
        "clock", "user",
    ]  # fmt: skip
    assert code == 0
    assert checks["daemon"]["found"] == f"none runs: there is no {rig.socket}"
    assert all(bool(check["advice"]) == (check["level"] != "ok") for check in checks.values())


def test_a_check_that_fails_is_the_exit_code_and_says_what_to_do(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--config", str(rig.config), "--watch", str(tmp_path / "gone")]) == 1
    told = capsys.readouterr().out.splitlines()
    assert any(
        line.startswith("fail  watch root") and line.endswith("no such file or directory") for line in told
    )
    assert any(line.startswith("  ! watch root: mount it") for line in told)


def test_a_wrong_configuration_does_not_hide_the_rest(ask, rig: Rig) -> None:
    rig.config.write_text("[daemon]\nnonsense = 1\n")
    code, checks = ask()
    assert code == 1
    assert "daemon.nonsense: no such key" in checks["configuration"]["found"]
    assert checks["weights"]["level"] == "ok"


def test_a_daemon_that_runs_is_looked_at_with_its_sessions(ask, rig: Rig) -> None:
    rig.start()
    rig.start_session()
    eventually(lambda: rig.get("/readyz")[0] == 200, 10, "ready")
    code, checks = ask()
    assert (code, checks["daemon"]["level"], checks["port"]["level"]) == (0, "ok", "ok")
    assert checks["port"]["found"].endswith("is served by drpwatch")
    assert checks["watch root"]["found"].startswith(str(rig.watch_dir()))
    assert checks["output"]["level"] in ("ok", "warn")
    assert checks["journal"]["level"] == "ok"

    rig.watch_dir().rename(rig.root / "unmounted")
    eventually(lambda: rig.get("/readyz")[0] == 503, 10, "not ready")
    code, checks = ask()
    assert (code, checks["watch root"]["level"]) == (1, "fail")
    assert "cannot pick" in checks["daemon"]["found"]

    rig.kill()
    code, checks = ask()
    assert checks["daemon"]["level"] == "warn"
    assert "left from one that has ended" in checks["daemon"]["advice"]
