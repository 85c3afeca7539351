"""One campaign from its beginning to its result."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from drpwatch.cli.client import ControlClient
from drpwatch.errors import DaemonUnreachable, DrpwatchError
from tests.campaign.checker import Cut, Report, check, truth
from tests.campaign.faults import DIAMETERS_ANGSTROM, SEGMENTATION_FAULT, THRESHOLDS, Faults
from tests.campaign.microscope import POISON, Microscope, plan
from tests.campaign.places import Place, can_mount
from tests.campaign.supervisor import ROOT, Supervisor
from tests.daemon.rig import free_port
from tests.support import PATIENCE, eventually

Answer = TypeVar("Answer")
SESSIONS = ("apo", "ribosome", "gz-only", "late")
PREFIXES = {"apo": "", "ribosome": "MotionCorr/job002/", "gz-only": "", "late": "late/"}
_LAST = Cut(frozenset({DIAMETERS_ANGSTROM[1]}), frozenset({THRESHOLDS[1]}))
_ANY = Cut(frozenset(DIAMETERS_ANGSTROM), frozenset({None, *THRESHOLDS}))
_CONFIG = """\
[daemon]
state_dir = "{root}/state/drpwatch"
socket = "{root}/control.sock"
http_port = {port}
stop_timeout_s = 10.0
log_format = "json"
[watch]
poll_interval_s = 0.3
settle_s = 0.3
incomplete_after_s = 2.0
[pick]
time_limit_s = 10.0
canary_every_s = 5.0
devices = {devices}
"""
_END_WITHIN_S = 30.0
_CRASHES = 1000  # on poisoned micrographs, two for each time that one is picked
_WITHIN_S = 60.0  # with what the daemon has to do
_QUIET_S = 3.0  # ten scans without anything to do


@dataclass(slots=True)
class Result:
    """What a campaign was, and what it found; `problems` is empty where all holds."""

    seed: int
    micrographs: int
    seconds: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    verbs: dict[str, int] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    exits: dict[str, int] = field(default_factory=dict)
    quarantined: int = 0  # good micrographs that had to be retried
    reader: dict[str, Any] = field(default_factory=dict)
    checked: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return self.faults.get("kill", 0)


class Campaign:
    """Everything of one campaign below one directory."""

    def __init__(
        self,
        root: Path,
        seed: int,
        micrographs: int,
        kills: int,
        rate_hz: float,
        pace_s: float,
        leave_out: frozenset[str] = frozenset(),
        devices: int = 1,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._root = root
        self._kills = kills
        self._tell = tell
        self._places = {
            "watch": Place(root, "watch", 512),
            "output": Place(root, "out", 64),
            "state": Place(root, "state", 128),
        }
        (root / "levers").mkdir()
        self._config = root / "config.toml"
        self._config.write_text(_CONFIG.format(root=root, port=free_port(), devices=["cpu"] * devices))
        self._microscope_log = root / "microscope.jsonl"
        self._supervisor = Supervisor(
            ["-m", "tests.campaign.daemon", str(self._config), str(root / "levers")],
            root / "control.sock",
            root / "daemon.jsonl",
            _END_WITHIN_S,
        )
        self._control = ControlClient(root / "control.sock", 10.0)
        self._faults = Faults(
            seed, pace_s, self._supervisor, self._control, SESSIONS, self._places, root / "levers", leave_out
        )
        self._shots = plan(seed, micrographs, SESSIONS)
        self._microscope = Microscope(
            self._places["watch"].behind, self._shots, rate_hz, self._microscope_log
        )
        self.result = Result(seed, micrographs, skipped=sorted(self._faults.skipped))

    def run(self) -> Result:
        """Strike while the microscope writes, and until there were enough kills; then check everything."""
        begun = time.monotonic()
        if any(shot.garbage == POISON for shot in self._shots):
            self._supervisor.expect(SEGMENTATION_FAULT, _CRASHES)
        self._supervisor.start()
        reader = self._start_reader()
        try:
            self._begin_sessions()
            self._microscope.start()
            self._faults.start()
            self._wait_for_the_microscope()
            self._faults.stop()
            self._tell("the faults are over")
            self._end()
        finally:
            self._supervisor.close()
            self._keep()
            said, _ = reader.communicate(b"")
            self.result.reader = json.loads(said)
        self._judge()
        self.result.seconds = round(time.monotonic() - begun, 1)
        return self.result

    def _keep(self) -> None:
        """Copy the journal and the outputs to where they outlive the mount namespace."""
        if self.result.problems and can_mount():
            for name in ("state", "output"):
                shutil.copytree(self._places[name].behind, self._root / f"{name} left")

    def _start_reader(self) -> subprocess.Popen[bytes]:
        outputs = [str(self._places["output"].seen / session) for session in SESSIONS]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.campaign.reader", *outputs],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def _begin_sessions(self) -> None:
        eventually(self._answers, _WITHIN_S, "the daemon answers")
        for session in SESSIONS:
            self._control.start(
                {
                    "name": session,
                    "watch_root": str(self._places["watch"].seen / session),  # the last is not there yet
                    "out_dir": str(self._places["output"].seen / session),
                    "glob": "**/*.mrc.gz" if session.startswith("gz") else "**/*.mrc",
                    "micrograph_prefix": PREFIXES[session],
                    "diameter_angstrom": DIAMETERS_ANGSTROM[0],
                }
            )

    def _answers(self) -> bool:
        try:
            self._control.sessions()
        except DrpwatchError:
            return False
        return True

    def _wait_for_the_microscope(self) -> None:
        told_s = time.monotonic()
        while self._microscope.is_alive() or self._faults.counts["kill"] < self._kills:
            self._microscope.join(0.5)
            time.sleep(0.0 if self._microscope.is_alive() else 0.5)
            if self._microscope.failure or self._faults.failure:
                raise RuntimeError("the campaign itself failed") from (
                    self._microscope.failure or self._faults.failure
                )
            if time.monotonic() - told_s > 20:
                told_s = time.monotonic()
                self._tell(
                    f"{self._microscope.written} micrographs begun, {self._faults.counts['kill']} kills"
                )

    def _asked(self, ask: Callable[[ControlClient], Answer]) -> Answer:
        """Return an answer of the daemon, of the next one if this one crashes: a poisoned micrograph may come up."""
        deadline_s = time.monotonic() + PATIENCE * _WITHIN_S
        while True:
            try:
                return ask(self._control)
            except DaemonUnreachable:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.1)

    # ---- the end --------------------------------------------------------------------------------

    def _end(self) -> None:
        """Check what the faults left; then pick anew what is outdated, end the sessions, and check again."""
        self._supervisor.go_on()
        eventually(self._answers, _WITHIN_S, "the daemon answers after the faults")
        for session in SESSIONS:
            self._bring_to_run(session)
        self._wait_until_quiet("what was written is recorded")
        self._retry_quarantined()
        self._check("after the faults", _ANY)
        (diameter,), (threshold,) = _LAST.diameters_angstrom, _LAST.thresholds
        last = {"diameter_angstrom": diameter, "threshold": threshold}
        for session in SESSIONS:
            self._asked(lambda daemon, name=session: daemon.set(name, last))
            self._asked(lambda daemon, name=session: daemon.ask(name, "repick", {"which": "outdated"}))
        self._wait_until_quiet("what was outdated is picked again")
        for session in SESSIONS:
            self._asked(lambda daemon, name=session: daemon.change(name, "stop"))
        eventually(
            lambda: {view["state"] for view in self._asked(ControlClient.sessions)} == {"completed"},
            _WITHIN_S,
            "all sessions are completed",
        )
        code = self._supervisor.finish()
        if code != 0:
            self.result.problems.append(f"the daemon ended with {code} when it was asked to stop")
        self._check("after the end", _LAST)

    def _retry_quarantined(self) -> None:
        """Have picked what is good, but was on the device in two crashes that were drawn for others."""
        good = {session: of.good for session, of in truth(self._microscope_log).items()}
        for session in SESSIONS:
            for failed in self._asked(lambda daemon, name=session: daemon.micrographs(name, "failed")):
                if failed["name"] in good[session] and failed["reason"].startswith("quarantined"):
                    self.result.quarantined += 1
                    again = {"which": "failed", "glob": failed["name"]}
                    self._asked(lambda daemon, name=session, body=again: daemon.ask(name, "repick", body))
        if self.result.quarantined:
            self._wait_until_quiet("what was quarantined is recorded")

    def _bring_to_run(self, session: str) -> None:
        """Undo what verbs left: a session may be paused, draining or completed."""
        verbs = {"paused": "resume", "completed": "reopen", "failed": "reopen"}

        def runs() -> bool:
            state = self._asked(lambda daemon: daemon.session(session))["state"]
            if state in verbs:
                self._asked(lambda daemon: daemon.change(session, verbs[state]))
            return state in ("running", "waiting")

        eventually(runs, _WITHIN_S, f"session {session} runs")

    def _wait_until_quiet(self, what: str) -> None:
        """Wait until nothing is to be done, for a while; what was deleted may be waited for."""
        gone = {name: of.gone.keys() | of.moved for name, of in truth(self._microscope_log).items()}
        last: dict[str, Any] = {}
        quiet_since = time.monotonic()

        def quiet() -> bool:
            nonlocal quiet_since
            busy = False
            for session in SESSIONS:
                view = self._asked(lambda daemon, name=session: daemon.session(name))
                waiting = [one for one in view["waiting"] if one["name"] not in gone[session]]
                busy = busy or bool(waiting or view["micrographs"]["ready"] or view["behind"])
                last[session] = (view["micrographs"], view["problems"], waiting[:2])
            if busy:
                quiet_since = time.monotonic()
            time.sleep(0.1)
            return time.monotonic() - quiet_since > _QUIET_S

        try:
            eventually(quiet, _WITHIN_S, what)
        except AssertionError as error:
            self.result.problems.append(f"{error}: {last}")

    def _check(self, when: str, cut: Cut) -> None:
        report = check(
            self._places["state"].behind / "drpwatch/journal.db",
            self._microscope_log,
            dict.fromkeys(SESSIONS, cut),
            PREFIXES,
        )
        self._tell(
            f"checked {when}: {report.good} good micrographs, {dict(report.counts()) or 'all is well'}"
        )
        self.result.checked.append({"when": when, **_figures(report)})
        self.result.problems += [
            f"{when}: {finding.kind}: {finding.sentence}" for finding in report.findings[:20]
        ]

    def _judge(self) -> None:
        """Put together what is known of faults, exits and reads."""
        result = self.result
        result.faults = dict(sorted(self._faults.counts.items()))
        result.verbs = dict(sorted(self._faults.verbs.items()))
        result.exits = {str(code): count for code, count in sorted(self._supervisor.exits.items())}
        result.problems += [
            f"the daemon ended with {one.code} after {one.lived_s} s, and nobody had asked for it"
            for one in self._supervisor.unexpected
        ]
        result.problems += [
            f"the reader: {one['file']}: {one['wrong']}" for one in result.reader["complaints"]
        ]
        if result.kills < self._kills:
            result.problems.append(f"{result.kills} kills, {self._kills} were wanted")


def _figures(report: Report) -> dict[str, Any]:
    counts = report.counts()
    return {
        "good": report.good,
        "rows": report.rows,
        "bad": report.bad,
        "lost": counts["lost"],
        "doubled": counts["doubled"],
        "findings": dict(counts),
    }
