"""The faults of a campaign, drawn from a seed: each begins, and ends some time later."""

from __future__ import annotations

import heapq
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from drpwatch.cli.client import ControlClient
from drpwatch.errors import DaemonUnreachable, DrpwatchError
from tests.campaign.places import Place, can_mount
from tests.campaign.supervisor import Supervisor

DIAMETERS_ANGSTROM = (150.0, 180.0)
THRESHOLDS = (0.25, 0.4, 0.5, 0.6)
DEVICE_FAULT = 70
SEGMENTATION_FAULT = -int(signal.SIGSEGV)

Course = Iterator[float]
"""A fault: it begins at the first step; each step says in how many seconds the next one comes."""

_WEIGHTS = {
    "kill": 55,
    "terminate": 6,
    "suspend": 6,
    "clock jump": 4,
    "device not ready": 3,
    "device slow": 3,
    "device fault": 3,
    "device crash": 3,
    "device hang": 1,
    "device memory": 3,
    "verb": 24,
    "output full": 4,
    "output read-only": 3,
    "output unmounted": 3,
    "journal full": 3,
    "watch root unmounted": 4,
}
NEEDS_MOUNT = frozenset(kind for kind in _WEIGHTS if kind.endswith(("full", "read-only", "unmounted")))


class Faults(threading.Thread):
    """Strikes until told to stop, and puts everything right at the end.

    Parameters
    ----------
    pace_s
        Mean time from one fault to the next.
    """

    def __init__(
        self,
        seed: int,
        pace_s: float,
        supervisor: Supervisor,
        control: ControlClient,
        sessions: tuple[str, ...],
        places: dict[str, Place],
        levers: Path,
        leave_out: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(name="faults", daemon=True)
        self._draw = random.Random(f"faults {seed}")
        self._pace_s = pace_s
        self._supervisor = supervisor
        self._control = control
        self._sessions = sessions
        self._places = places
        self._levers = levers
        self._over = threading.Event()
        self.skipped = leave_out | (frozenset() if can_mount() else NEEDS_MOUNT)
        self.counts: Counter[str] = Counter()
        self.verbs: Counter[str] = Counter()
        self.failure: Exception | None = None
        self._under_way: set[str] = set()
        self._refused = False  # the last verb

    def run(self) -> None:
        try:
            self._strike()
        except Exception as error:  # noqa: BLE001 - whoever runs the campaign raises it again
            self.failure = error

    def stop(self) -> None:
        """Let nothing new begin, and wait for the end of all that is under way."""
        self._over.set()
        self.join()

    def _strike(self) -> None:
        kinds = [kind for kind in _WEIGHTS if kind not in self.skipped]
        weights = [_WEIGHTS[kind] for kind in kinds]
        going: list[tuple[float, int, str, Course]] = []
        next_s = time.monotonic()
        for number in range(1_000_000_000):
            now_s = time.monotonic()
            over = self._over.is_set()
            while going and (over or going[0][0] <= now_s):
                _, _, kind, course = heapq.heappop(going)
                self._step(kind, course, going, number)
            if over:
                return
            if now_s >= next_s:
                next_s = now_s + self._draw.expovariate(1 / self._pace_s)
                (kind,) = self._draw.choices(kinds, weights)
                if kind not in self._under_way:
                    self._under_way.add(kind)
                    self._step(kind, self._course(kind), going, number)
            due_s = min([next_s, *(entry[0] for entry in going[:1])])
            self._over.wait(max(0.0, due_s - time.monotonic()))

    def _step(self, kind: str, course: Course, going: list, number: int) -> None:
        pause_s = next(course, None)
        if pause_s is None:
            self._under_way.discard(kind)
        else:
            heapq.heappush(going, (time.monotonic() + pause_s, number, kind, course))

    def _course(self, kind: str) -> Course:
        courses: dict[str, Callable[[], Course]] = {
            "kill": self._kill,
            "terminate": self._terminate,
            "suspend": self._suspend,
            "clock jump": self._clock_jump,
            "device not ready": lambda: self._lever("not ready", 0.5, 4.0),
            "device slow": lambda: self._lever("slow", 0.5, 2.0),
            "device memory": lambda: self._lever("memory", 0.5, 3.0),
            "device fault": lambda: self._once("fault", "sticky", DEVICE_FAULT),
            "device crash": lambda: self._once("crash", "crash", SEGMENTATION_FAULT),
            "device hang": lambda: self._once("hang", "hang", DEVICE_FAULT),
            "verb": self._verb,
            "output full": lambda: self._full("output"),
            "output read-only": self._read_only,
            "output unmounted": lambda: self._unmounted("output"),
            "journal full": lambda: self._full("state"),
            "watch root unmounted": lambda: self._unmounted("watch"),
        }
        return courses[kind]()

    # ---- faults ---------------------------------------------------------------------------------

    def _kill(self) -> Course:
        yield from self._some_time_of_life()
        if self._supervisor.kill():
            self.counts["kill"] += 1

    def _terminate(self) -> Course:
        yield from self._some_time_of_life()
        if self._supervisor.terminate():
            self.counts["terminate"] += 1

    def _some_time_of_life(self) -> Course:
        """Wait until the daemon is at work, and a moment longer; now and then it is hit while it starts."""
        if self._draw.random() < 0.2:
            return
        yield from self._listening()
        yield self._draw.uniform(0.0, 1.5)

    def _listening(self) -> Course:
        """Wait until the daemon answers."""
        while not (self._over.is_set() or self._supervisor.answers()):
            yield 0.05

    def _suspend(self) -> Course:
        self._supervisor.pause()
        self.counts["suspend"] += 1
        yield self._draw.uniform(0.1, 2.0)
        self._supervisor.go_on()

    def _clock_jump(self) -> Course:
        """The wall clock jumps, and stays where it is until the next jump."""
        self.counts["clock jump"] += 1
        (self._levers / "clock").write_text(str(self._draw.choice((-86_400, -600, 0, 600, 40 * 86_400))))
        yield 0.0

    def _lever(self, name: str, least_s: float, most_s: float) -> Course:
        self.counts[f"device {name}"] += 1
        (self._levers / name).touch()
        yield self._draw.uniform(least_s, most_s)
        (self._levers / name).unlink()

    def _once(self, kind: str, name: str, code: int) -> Course:
        """Whatever is picked next: the process ends with a code, by its own doing."""
        lever = self._levers / name
        self._supervisor.expect(code)
        lever.touch()
        while lever.exists() and not self._over.is_set():
            yield 0.2
        try:
            lever.unlink()
        except FileNotFoundError:
            self.counts[f"device {kind}"] += 1
        else:
            self._supervisor.expect(code, -1)  # nothing was picked any more

    def _full(self, place: str) -> Course:
        self.counts[f"{'journal' if place == 'state' else place} full"] += 1
        self._places[place].fill()
        yield self._draw.uniform(0.3, 3.0)
        self._places[place].empty()

    def _read_only(self) -> Course:
        if "output unmounted" in self._under_way:
            return
        while not self._places["output"].forbid():
            if self._over.is_set():
                return
            yield 0.02
        self.counts["output read-only"] += 1
        yield self._draw.uniform(0.3, 3.0)
        self._places["output"].allow()

    def _unmounted(self, place: str) -> Course:
        if place == "output" and "output read-only" in self._under_way:
            return
        self.counts[f"{'watch root' if place == 'watch' else place} unmounted"] += 1
        self._places[place].unmount()
        yield self._draw.uniform(0.3, 3.0)
        self._places[place].mount()

    # ---- verbs ----------------------------------------------------------------------------------

    def _verb(self) -> Course:
        """Somebody at the command line asks for something; a refusal is as good an answer as any."""
        session = self._draw.choice(self._sessions)
        verb = self._draw.choice(("pause", "stop", "set", "set", "rethreshold", "repick", "retry", "rebuild"))
        if verb in ("pause", "stop"):
            yield from self._ask(session, verb)
            yield self._draw.uniform(0.2, 2.0)
            undone = "resume" if verb == "pause" else "reopen"
            for _ in range(20):  # a session that was stopped drains first
                yield from self._ask(session, undone)
                if not self._refused:
                    return
                yield 1.0
        elif verb == "set":
            values = {
                "diameter_angstrom": self._draw.choice(DIAMETERS_ANGSTROM),
                "threshold": self._draw.choice(THRESHOLDS),
            }
            yield from self._try(verb, lambda: self._control.set(session, values))
        else:
            bodies: dict[str, dict[str, object]] = {
                "rethreshold": {"threshold": self._draw.choice(THRESHOLDS)},
                "repick": {"which": "recorded", "glob": f"Grid Square_{self._draw.randint(0, 5)}/*"},
                "retry": {"which": "failed"},
            }
            yield from self._ask(session, "repick" if verb == "retry" else verb, bodies.get(verb))

    def _ask(self, session: str, verb: str, body: dict[str, object] | None = None) -> Course:
        yield from self._try(verb, lambda: self._control.ask(session, verb, body))

    def _try(self, verb: str, ask: Callable[[], object]) -> Course:
        """Ask until somebody answers; a refusal is an answer."""
        while not self._over.is_set():
            yield from self._listening()
            try:
                ask()
                self._refused = False
            except DaemonUnreachable:
                continue
            except DrpwatchError:
                self._refused = True
            self.verbs[f"{verb} refused" if self._refused else verb] += 1
            self.counts["verb"] += 1
            return
