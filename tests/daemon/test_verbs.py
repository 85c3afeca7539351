"""`drpwatch session ...` as a process of its own, against the daemon's."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.daemon.rig import Rig
from tests.support import child_cpu_seconds, half_a_second


class Shell:
    """Runs `drpwatch session` commands on a rig's daemon."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.environment = {**os.environ, "DRPWATCH_SOCKET": str(rig.socket)}

    def __call__(self, *arguments: object, code: int = 0) -> str:
        """Return what a command printed; a refusal is one line on stderr, and only that."""
        done = subprocess.run(
            [sys.executable, "-m", "drpwatch", "session", *map(str, arguments)],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        if code == 0:
            assert done.stderr == ""
            return done.stdout
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        return done.stderr.removeprefix("drpwatch: error: ")

    def json(self, *arguments: object) -> Any:
        return json.loads(self(*arguments, "--json"))

    def start(self, name: str, diameter_angstrom: float = 150.0) -> tuple[object, ...]:
        """Return the arguments that start a session."""
        watched = self.rig.watch_dir(name)
        watched.mkdir(parents=True, exist_ok=True)
        return ("start", name, "--watch", watched, "--diameter-angstrom", diameter_angstrom)


@pytest.fixture
def shell(rig: Rig) -> Shell:
    rig.start()
    return Shell(rig)


def test_a_session_from_its_start_to_its_end_and_again(shell: Shell, rig: Rig) -> None:
    assert shell.json(*shell.start("s1"))["state"] == "waiting"
    rig.write("a.mrc", 1)
    rig.picked(1)
    assert shell("pause", "s1") == "session s1: paused\n"
    assert shell.json("list")["sessions"][0]["state"] == "paused"
    assert shell.json("resume", "s1")["state"] == "running"
    view = shell.json("stop", "s1", "--wait")
    assert (view["state"], view["micrographs"]["picked"]) == ("completed", 1)
    assert shell("reopen", "s1") == "session s1: waiting\n"
    rig.write("b.mrc", 2)
    rig.picked(2)
    shown = shell.json("show", "s1")
    assert [one["name"] for one in shown["newest"]] == ["b.mrc", "a.mrc"]
    assert shown["outputs"] == [
        str(rig.out_dir() / name)
        for name in ("particles.star", "autopick.star", "coords_suffix_autopick.star")
    ]
    rig.check({"a.mrc": 1, "b.mrc": 2})


def test_refusals_have_their_sentence_and_exit_code(shell: Shell, rig: Rig) -> None:
    shell(*shell.start("s1"))
    assert "session s1 exists already" in shell(*shell.start("s1"), code=2)
    assert "diameter 2.0 Å is not between 10 and 10000 Å" in shell(*shell.start("s2", 2.0), code=2)
    assert "no session named nothing" in shell("show", "nothing", code=2)
    assert "cannot resume a session that is waiting; possible now: pause, stop" in shell(
        "resume", "s1", code=2
    )
    assert [view["name"] for view in shell.json("list")["sessions"]] == ["s1"]
    assert rig.stop() == 0
    assert f"no daemon listens on {rig.socket}" in shell("list", code=69)


def test_list_takes_less_than_half_a_second(shell: Shell) -> None:
    shell(*shell.start("s1"))
    limit_s = half_a_second()
    # Of a few, as even that grows while others use the caches; it waits for nothing but the answer.
    assert any(child_cpu_seconds(lambda: shell("list")) < limit_s for _ in range(5))
