"""A rig around the real process: its configuration, its life, and what a microscope would do."""

from __future__ import annotations

import datetime
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from drpwatch.cli.client import ControlClient
from drpwatch.errors import DrpwatchError
from drpwatch.formats import mrc, star
from drpwatch.micrograph import PickParams
from tests.daemon.fake_picker import picks_of
from tests.daemon.rule import image
from tests.support import PATIENCE, eventually

ROOT = Path(__file__).parents[2]
FAKE_PICKER = ("-m", "tests.daemon.fake_daemon")
REAL = ("-m", "drpwatch", "run", "--config")


def free_port() -> int:
    """Return a port that nobody listens on, below those that the kernel gives to whoever calls another."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Rig:
    """One state directory, and the daemon on it."""

    def __init__(
        self,
        root: Path,
        settle_s: float = 0.2,
        program: tuple[str, ...] = FAKE_PICKER,
        poll_interval_s: float = 0.3,
        pick: Mapping[str, Any] | None = None,
        **daemon_keys: Any,
    ) -> None:
        self.root = root
        self.program = program
        self.port = free_port()
        self.socket = root / "control.sock"
        self.config = root / "config.toml"
        self.log = root / "log.jsonl"
        keys = {
            "state_dir": str(root / "state"),
            "socket": str(self.socket),
            "http_port": self.port,
            "stop_timeout_s": 10.0,
            "log_format": "json",
            **daemon_keys,
        }
        lines = ["[daemon]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
        lines += ["[watch]", f"poll_interval_s = {poll_interval_s}", f"settle_s = {settle_s}"]
        lines += ["[pick]", *(f"{key} = {json.dumps(value)}" for key, value in (pick or {}).items())]
        self.config.write_text("\n".join(lines) + "\n")
        self.process: subprocess.Popen[bytes] | None = None
        self.control = ControlClient(self.socket)

    def start(
        self,
        *options: str,
        wait: bool = True,
        environment: dict[str, str] | None = None,
        before: tuple[str, ...] = (),
    ) -> None:
        """Run the daemon; `before` is a command that runs it, such as setpriv."""
        command = [*before, sys.executable, *self.program, str(self.config), *options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, **(environment or {})}
            )
        if wait:
            eventually(self.answers, 40, f"the daemon answers\n{self.log.read_text()[-2000:]}")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            self.control.sessions()
        except DrpwatchError:
            return False
        return True

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE * 10)

    def reload(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def stop(self, within_s: float = 15) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE * within_s)

    def ends(self, code: int, within_s: float = 20) -> None:
        """Wait until the process has ended by itself."""
        assert self.process is not None
        assert self.process.wait(PATIENCE * within_s) == code, self.log.read_text()[-3000:]

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE * 10)

    def events(self, name: str) -> list[dict[str, Any]]:
        found = []
        for line in self.log.read_text().splitlines():
            if line.startswith("{"):
                event = json.loads(line)
                if event["event"] == name:
                    found.append(event)
        return found

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE * 10
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, series: str) -> float | None:
        """Return the value of a series, such as `name{label="value"}`; None where there is none."""
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith(f"{series} "):
                return float(line.rpartition(" ")[2])
        return None

    def on_device(self, name: str) -> bool:
        """Tell whether a micrograph is being picked now."""
        return name.encode() in (self.root / "state/on-device").read_bytes()

    # ---- sessions -------------------------------------------------------------------------------

    def watch_dir(self, name: str = "s1") -> Path:
        return self.root / name / "mics"

    def out_dir(self, name: str = "s1") -> Path:
        return self.root / name / "drpwatch" / name

    def start_session(self, name: str = "s1", **fields: Any) -> dict[str, Any]:
        self.watch_dir(name).mkdir(parents=True, exist_ok=True)
        return self.control.start(
            {"name": name, "watch_root": str(self.watch_dir(name)), "diameter_angstrom": 150.0, **fields}
        )

    def counts(self, name: str = "s1") -> dict[str, int]:
        return dict(self.control.session(name)["micrographs"])

    def picked(self, count: int, name: str = "s1", within_s: float = 20) -> None:
        eventually(
            lambda: self.counts(name)["picked"] >= count, within_s, f"{count} picked, {self.counts(name)}"
        )

    # ---- the world ------------------------------------------------------------------------------

    def write(self, name: str, seed: int, session: str = "s1", pixel_size_angstrom: float = 1.5) -> None:
        """Copy a whole micrograph in, as rsync does."""
        path = self.watch_dir(session) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.Xy12Zw")
        write_image(beside, seed, pixel_size_angstrom)
        beside.rename(path)

    def check(self, seeds: dict[str, int], session: str = "s1") -> None:
        """Every micrograph's rows are there exactly once, and nothing else."""
        deadline = time.monotonic() + PATIENCE * 2  # rows that are replaced follow the journal by a moment
        while True:
            try:
                return self._check(seeds, session)
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _check(self, seeds: dict[str, int], session: str) -> None:
        out = self.out_dir(session)
        rows: dict[str, list[tuple[str, ...]]] = {}
        for x, y, score, name, *_ in star.read(out / "particles.star")["particles"].rows:
            rows.setdefault(name, []).append((x, y, score))
        want = {name: expected_rows(seed) for name, seed in seeds.items()}
        assert rows == {name: expected for name, expected in want.items() if expected}
        listed = star.read(out / "autopick.star")["coordinate_files"].column("rlnMicrographName")
        assert sorted(listed) == sorted(rows)
        for name, expected in want.items():
            (block,) = star.read(out / name.replace(".mrc", "_autopick.star")).values()
            assert len(block.rows) == len(expected)


def recorded_at(rig: Rig) -> dict[str, float]:
    """Return when each micrograph was durable, in unix seconds: its event follows fsync and commit."""
    return {
        event["micrograph"]: datetime.datetime.fromisoformat(event["timestamp"]).timestamp()
        for event in rig.events("micrograph_picked")
    }


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def write_image(path: Path, seed: int, pixel_size_angstrom: float = 1.5) -> None:
    mrc.write_mrc(path, image(seed), pixel_size_angstrom)


def expected_rows(seed: int, threshold: float = 0.5) -> list[tuple[str, ...]]:
    picks = picks_of(image(seed), PickParams(150.0, threshold=threshold))
    keep = picks.chosen
    return [
        (f"{x:.3f}", f"{y:.3f}", f"{score:.6f}")
        for (y, x), score in zip(picks.yx_px[keep].tolist(), picks.score[keep].tolist(), strict=True)
    ]
