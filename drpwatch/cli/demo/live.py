"""The demo's run: microscope and daemon side by side, until all is recorded and the session complete.

The folder is laid out as a RELION project, so that the commands printed at the end work in it as they are.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import ClassVar

from drpwatch.cli.client import Json
from drpwatch.cli.demo.daemon import OwnDaemon
from drpwatch.cli.demo.report import Report, examine
from drpwatch.cli.demo.screen import Screen, micrographs
from drpwatch.errors import DrpwatchError
from drpwatch.formats import star
from drpwatch.report.handover import MICROGRAPHS_STAR, REPORT
from drpwatch.train.microscope import PIXEL_SIZE_ANGSTROM, Microscope

SESSION = "demo"
_PREFIX = "MotionCorr/job002/"
_POLL_S = 0.25
_SLACK_S = 60.0  # for the daemon's start and for a busy machine
_MOST_PER_MICROGRAPH_S = 5.0


class Demo:
    """One run of the demo in a folder."""

    WATCHED: ClassVar[str] = _PREFIX.rstrip("/")

    def __init__(self, folder: Path, microscope: Microscope, model: str) -> None:
        self._folder = folder
        self._watched = folder / self.WATCHED
        self._out = folder / "drpwatch" / SESSION
        self._microscope = microscope
        self._model = model
        self._stop = threading.Event()
        self._picked: frozenset[str] = frozenset()
        self._accident: BaseException | None = None

    def run(self, screen: Screen, stay: bool) -> Report:
        """Run it to its end; `stay` keeps the daemon and its page until Ctrl-C.

        Raises
        ------
        DrpwatchError
            Something is not as it should be; the text says what.
        """
        self._watched.mkdir(parents=True)
        self._write_micrographs_star()
        screen.say(f"Everything is in {self._folder}. The daemon starts.")
        started = time.time()
        with OwnDaemon(self._folder, self._model) as daemon:
            request = self._request()
            screen.say(_as_command(request))
            daemon.client.start(request)
            screen.say(f"Look at it in a browser while it runs: {daemon.page}")
            writer = threading.Thread(target=self._write, name="microscope")
            writer.start()
            try:
                self._watch(daemon, writer, screen)
                view = self._complete(daemon, screen)
            finally:
                self._stop.set()
                writer.join()
            (self._out / REPORT).write_bytes(daemon.client.report(SESSION))
            if stay:
                _linger(daemon, screen)
        return examine(view, self._microscope, self._folder, started)

    def _request(self) -> Json:
        return {
            "name": SESSION,
            "watch_root": str(self._watched),
            "out_dir": str(self._out),
            "diameter_angstrom": float(round(self._microscope.species.diameter_angstrom)),
            "micrograph_prefix": _PREFIX,
            "model": self._model,
        }

    def _write_micrographs_star(self) -> None:
        """Write the list of micrographs that RELION would have of them."""
        path = self._folder / MICROGRAPHS_STAR
        path.parent.mkdir(parents=True)
        names = [_PREFIX + name for name in self._microscope.names]
        path.write_bytes(star.micrographs(names, star.Optics(PIXEL_SIZE_ANGSTROM)))

    def _write(self) -> None:
        """Run the microscope; what goes wrong there is told by the thread that watches."""
        try:
            self._microscope.run(self._stop, lambda name: name in self._picked)
        except BaseException as error:  # noqa: BLE001 - raised again by `_watch`
            self._accident = error

    def _watch(self, daemon: OwnDaemon, writer: threading.Thread, screen: Screen) -> None:
        """Show the session until every micrograph is recorded as it was last written."""
        began = time.monotonic()
        limit_s = _SLACK_S + len(self._microscope.names) * (self._microscope.pace_s + _MOST_PER_MICROGRAPH_S)
        while True:
            daemon.check()
            view = daemon.client.session(SESSION)
            screen.update(view)
            self._picked = frozenset(one["name"] for one in micrographs(view) if one["state"] == "picked")
            if self._accident is not None:
                raise DrpwatchError(f"the simulated microscope failed: {self._accident}") from self._accident
            late = self._not_recorded(view)
            if not writer.is_alive() and not late:
                return
            if time.monotonic() - began > limit_s:
                what = "; ".join(late) or "the microscope still writes"
                raise DrpwatchError(f"not all was recorded within {limit_s:.0f} s: {what}; see {daemon.log}")
            time.sleep(_POLL_S)

    def _not_recorded(self, view: Json) -> list[str]:
        """Return what is not yet recorded in its last state, with the reason."""
        known = {one["name"]: one for one in micrographs(view)}
        late = []
        for name in (*self._microscope.names, self._microscope.junk_name):
            one = known.get(name)
            exposure = self._microscope.exposures.get(name)
            finished_at = exposure.finished_at if exposure is not None else 0.0
            if one is None:
                late.append(f"{name} was not found")
            elif one["recorded_at"] is None or one["recorded_at"] < finished_at:
                late.append(f"{name} is {one['state']} ({one['reason'] or 'no reason given'})")
        return late

    def _complete(self, daemon: OwnDaemon, screen: Screen) -> Json:
        """Stop the session, and return it as it ends."""
        deadline = time.monotonic() + _SLACK_S
        view = daemon.client.change(SESSION, "stop")
        while view["state"] != "completed":
            if time.monotonic() > deadline:
                raise DrpwatchError(f"the session did not complete: it is {view['state']}; see {daemon.log}")
            time.sleep(_POLL_S)
            daemon.check()
            view = daemon.client.session(SESSION)
        view = daemon.client.session(SESSION)
        screen.update(view)
        return view


def _linger(daemon: OwnDaemon, screen: Screen) -> None:
    """Let people look at the page for as long as they like."""
    screen.say(f"The session is complete. The page stays until Ctrl-C: {daemon.page}")
    try:
        while True:
            daemon.check()
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        return


def _as_command(request: Json) -> str:
    """Return the command line that starts this session."""
    return (
        f"drpwatch session start {request['name']} --watch {request['watch_root']} "
        f"--diameter-angstrom {request['diameter_angstrom']:g} --out {request['out_dir']} "
        f"--micrograph-prefix {request['micrograph_prefix']} --model {request['model']}"
    )
