"""Every command of README.md, run as it stands there and in its order, on a host whose paths are a test's.

The daemon is the real one, started as anybody starts it. What takes long is made small by options that are put
behind it (`SMALLER`), what needs root on the host is run by other tests (`ELSEWHERE`), and `drpwatch train` comes
as far as learning, which `tests.train` does.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from drpwatch import places
from drpwatch.cli import main
from drpwatch.cli.adapting import Chosen
from drpwatch.cli.client import ControlClient
from drpwatch.errors import DrpwatchError
from drpwatch.formats import mrc, star
from drpwatch.pick.weights import WeightsInfo, find, load_weights
from drpwatch.places import Places
from drpwatch.report.handover import MICROGRAPHS_STAR, REPORT
from drpwatch.train.microscope import compact_species
from drpwatch.train.recipe import Ingredients, Recipe
from drpwatch.train.simulate import CLEAR, simulate
from tests.daemon.rig import ROOT
from tests.daemon.test_recover import overwrite
from tests.support import eventually

README = (ROOT / "README.md").read_text()
FENCED = re.compile(r"^```(\w+)\n(.*?)^```", re.S | re.M)
PREFIX = "MotionCorr/job002/"
NAMES = [f"Movies/mic{number}.mrc" for number in range(3)]
PIXEL_SIZE_ANGSTROM = 2.7  # makes the particle of 228 Å at 4 Å one of 154 Å: about what README gives
SCIENTIST = 1001

ELSEWHERE = {
    "python3 -m venv .venv": "`.ci/run`",
    "python3 -m venv /opt/drpwatch": "`.ci/run`, at another place",
    "systemd-sysusers": "`test_service`, from what `deploy` prints",
    "systemctl daemon-reload": "`test_service`, from what `deploy` prints",
}
SMALLER = {
    "drpwatch run": ["--config", "/etc/own.toml"],  # a free port, and no wait for files to settle
    "drpwatch doctor": ["--config", "/etc/own.toml"],
    "drpwatch simulate": ["--count", "1", "--shape", "1024x1024"],
    ".venv/bin/python -m tests.campaign": ["--help"],
    ".venv/bin/python -m tests.bench.bench_latency": ["--help"],
}


def blocks(kind: str) -> list[str]:
    return [text for found, text in FENCED.findall(README) if found == kind]


def commands() -> list[str]:
    """Return all lines of all blocks for a shell, continued ones joined, comments left out."""
    lines = [line for block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
    return [" ".join(line.split(" #")[0].split()) for line in lines if line.strip()]


def relion_has(words: list[str]) -> bool:
    """Tell whether there is a RELION that knows the options: 3.1 knows no lists of coordinates."""
    if shutil.which("relion_preprocess") is None:
        return False
    told = subprocess.run(["relion_preprocess", "--help"], capture_output=True, text=True, check=False).stdout
    return all(word in told for word in words if word.startswith("--"))


@dataclass
class Host:
    """A host as README has it: a RELION project in /data/apo, and a user who runs drpwatch there."""

    root: Path
    process: subprocess.Popen[bytes] | None = None
    ran: list[str] = field(default_factory=list)

    @property
    def project(self) -> Path:
        return self.root / "data/apo"

    @property
    def control(self) -> ControlClient:
        return ControlClient(places.usual().socket)

    def here(self, text: str) -> str:
        """Return a command with this host's paths."""
        return re.sub(r"(?<![\w.])/(data|etc|opt|root)\b", rf"{self.root}/\1", text)

    def run(self, command: str) -> None:
        """Run a command; it has to come back with 0."""
        self.ran.append(command)
        words = command.split()
        if words[0] == "runuser":
            words = words[words.index("--") + 1 :]
        program = Path(words[0]).name if words[0].endswith("drpwatch") else words[0]
        begin = [program, *words[1:]]
        more = next((extra for key, extra in SMALLER.items() if begin[: len(key.split())] == key.split()), [])
        line = self.here(" ".join([*begin, *more]))
        if begin[:2] == ["drpwatch", "run"]:
            self.start(shlex.split(line))
        elif begin[0] == "drpwatch":
            self.prepare(begin)
            assert main(shlex.split(line)[1:]) == 0, command
            self.after(begin)
        elif begin[:2] == ["systemctl", "stop"]:
            self.stop()
        elif begin[:2] == ["systemctl", "start"]:
            self.start(["drpwatch", "run", "--config", f"{self.root}/etc/own.toml"])
        elif begin[0] != "relion_preprocess" or relion_has(begin):
            self.shell(line.replace(".venv/bin/python", sys.executable))

    def shell(self, line: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            ["bash", "-euc", line],
            cwd=self.project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, line + done.stdout + done.stderr

    def prepare(self, begin: list[str]) -> None:
        """Make what README takes for granted before a command."""
        if begin[:3] == ["drpwatch", "pick", "simulated"]:
            shutil.rmtree(self.project / "picks")  # of other micrographs, in an earlier section
        if begin[1:3] == ["session", "failed"]:
            junk = self.project / PREFIX / "GridSquare_7/junk.mrc"
            junk.parent.mkdir()
            junk.write_bytes(b"no micrograph" * 200)
            eventually(lambda: self.counts()["failed"] == 1, 10, "the junk failed")
        if begin[:2] == ["drpwatch", "recover"]:
            shutil.copy(self.root / "etc/own.toml", self.root / "etc/drpwatch/config.toml")
            overwrite(places.usual().state_dir / "journal.db")

    def after(self, begin: list[str]) -> None:
        """Wait as a user would: for micrographs to be picked, or picked again."""
        if begin[1:3] in (["session", "start"], ["session", "repick"]):
            eventually(self.all_picked, 20, f"all is picked after {begin}")

    def counts(self) -> dict[str, int]:
        return dict(self.control.session("apo1")["micrographs"])

    def all_picked(self) -> bool:
        view = self.control.session("apo1")
        return (view["micrographs"]["picked"], view["outdated"], view["picks"] > 0) == (len(NAMES), 0, True)

    def start(self, line: list[str]) -> None:
        """Run the daemon as an ordinary user, who is not there in a container of root's."""
        service = places.SERVICE
        body = (
            "import os, sys; from pathlib import Path; from drpwatch import cli, places;"
            f"os.geteuid = lambda: {SCIENTIST};"
            f"places.SERVICE = places.Places(*map(Path, {(str(service.state_dir), str(service.socket))!r}));"
            f"sys.exit(cli.main({line[1:]!r}))"
        )
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-c", body], cwd=ROOT, stdout=log, stderr=log)
        eventually(self.ready, 20, "the daemon is ready")

    def ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.root / "log").read_text()[-3000:]
        try:
            return bool(self.control.health()["healthy"])
        except DrpwatchError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(20) == 0
            self.process = None


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    made = Host(tmp_path)
    write_project(made.project)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/own.toml").write_text(
        "[daemon]\nhttp_port = 0\n[watch]\nsettle_s = 0.2\npoll_interval_s = 0.3\n"
    )
    monkeypatch.chdir(made.project)
    monkeypatch.setattr("os.geteuid", lambda: SCIENTIST)
    monkeypatch.setattr(places, "SERVICE", Places(tmp_path / "var", tmp_path / "run" / "s"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("drpwatch.train.recipe.cook", learn_nothing)
    monkeypatch.setattr("drpwatch.cli.adapting.adapt_to", adapt_to_nothing)
    for name in ("DRPWATCH_SOCKET", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    yield made
    if made.process is not None:
        made.process.kill()
        made.process.wait(10)


def learn_nothing(
    recipe: Recipe, ingredients: Ingredients, told: object, output: Path, kitchen: object
) -> WeightsInfo:
    assert (recipe.name, *(path.name for path in ingredients.maps)) == ("own", "maps")
    shutil.copy(find("general"), output)
    info = load_weights(output).info
    return replace(info, provenance={**info.provenance, "f_on_held_back": 0.5})


def adapt_to_nothing(chosen: Chosen, output: Path, *_: object) -> str:
    assert {path.name for path in chosen.paths} >= {Path(name).name for name in NAMES}
    shutil.copy(find("general"), output)
    return f"{output}: adapted to nothing"


def write_project(project: Path) -> None:
    """Write what README's paths name: micrographs, their list, what is known of them, weights, a data set, a map."""
    species, rows = compact_species(1), b""
    for number, name in enumerate(NAMES):
        random = np.random.default_rng((1, number))
        scene = simulate(species, [], CLEAR, (512, 512), 4.0, random)
        path = project / PREFIX / name
        path.parent.mkdir(parents=True, exist_ok=True)
        mrc.write_mrc(path, scene.pixels, PIXEL_SIZE_ANGSTROM)
        rows += star.particles_rows(path.name, scene.yx_px, np.ones(len(scene.yx_px)))
    optics = star.Optics(PIXEL_SIZE_ANGSTROM)
    (project / "truth.star").write_bytes(star.particles_header(optics) + rows)
    listed = project / MICROGRAPHS_STAR
    listed.parent.mkdir(parents=True)
    listed.write_bytes(star.micrographs([PREFIX + name for name in NAMES], optics))
    shutil.copy(project / PREFIX / NAMES[0], project / "micrograph.mrc")
    shutil.copy(find("general"), project / "own.safetensors")
    shutil.copy(ROOT / "config.example.toml", project)
    shutil.copytree(project / PREFIX / "Movies", project / "sets/one")
    (project / "sets/one/dataset.toml").write_text("diameter_angstrom = 154.0\n")
    across = np.linspace(-2, 2, 32, dtype=np.float32)
    ball = (np.hypot(np.hypot(across, across[:, None]), across[:, None, None]) < 1).astype(np.float32)
    (project / "maps").mkdir()
    mrc.write_mrc(project / "maps/apoferritin.mrc", ball, 8.0)


def test_what_is_run_elsewhere_is_still_there() -> None:
    lines = commands()
    assert all(any(line.startswith(begin) for line in lines) for begin in ELSEWHERE)
    assert all(any(f"{begin} " in f"{line} " for line in lines) for begin in SMALLER)


def test_every_command_of_the_readme(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    for line in commands():
        if any(line.startswith(begin) for begin in ELSEWHERE):
            continue
        for command in line.split(" && "):
            host.run(command)
    assert (host.project / "drpwatch/apo1" / REPORT).is_file()
    assert "drpwatch/apo1/autopick.star" in capsys.readouterr().out


def test_the_python_of_the_readme(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert int(capsys.readouterr().out.split()[0]) > 0
