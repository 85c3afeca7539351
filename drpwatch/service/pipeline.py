"""The pipeline: the threads of all stages, what connects them, and their common end.

    scanner ──journal──> loaders ──loaded──> pickers ──outcomes──> recorder ──journal, outputs

The backlog is in the journal; between the stages there are a few places only. Stopping goes with the
stream: nothing new is found or read, then the pickers end, then the recorder, within a time limit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from drpwatch.config import Config, Pick
from drpwatch.errors import DeviceFault, JournalError, OutputError, PickingHangs, SessionError
from drpwatch.micrograph import Outcome
from drpwatch.service.channel import Buffers, Channel
from drpwatch.service.clock import Clock
from drpwatch.service.control import DeviceView
from drpwatch.service.device import Device, Pins
from drpwatch.service.devicenews import DeviceNews
from drpwatch.service.dispatch import Dispatcher
from drpwatch.service.flight import Flight, TimeLimit
from drpwatch.service.heartbeats import Heartbeats
from drpwatch.service.idleness import Idleness
from drpwatch.service.illustrator import Illustrator
from drpwatch.service.levels import SessionLevels
from drpwatch.service.loader import Loaded, Loader
from drpwatch.service.metrics import LOOPS
from drpwatch.service.pickers import Picker, PickerFactory
from drpwatch.service.picking import LOOP as PICKER
from drpwatch.service.picking import Picking
from drpwatch.service.publish import Publisher
from drpwatch.service.reads import Reads
from drpwatch.service.recorder import Recorder
from drpwatch.service.repeats import Repeats
from drpwatch.service.scanner import Scanner
from drpwatch.session.journal import Journal
from drpwatch.session.lifecycle import WATCHING, SessionState, Verb

_OUTCOMES = 8  # picks are small
_FAILED_STOP_S = 5.0  # for threads that have nothing to finish


class Pipeline:
    """All stages of one daemon.

    Parameters
    ----------
    journal
        Open; the pipeline does not close it.
    factory
        Where pickers come from; called in the picking threads only.
    """

    def __init__(
        self,
        journal: Journal,
        config: Config,
        factory: PickerFactory,
        publisher: Publisher,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or Clock()
        self._journal = journal
        self._publisher = publisher
        self._clock = clock
        self.factory = factory
        self.heartbeats = Heartbeats(clock.monotonic)
        self.failure: BaseException | None = None
        """The error by which a stage ended: the daemon has to end too."""
        self.on_failure: Callable[[], None] = lambda: None
        self.warmed_up = threading.Event()
        """Set once the configured model is on a device."""
        self._stop, self._abandon = threading.Event(), threading.Event()
        self._loaders_done, self._pickers_done = threading.Event(), threading.Event()
        devices = config.pick.device_labels
        self._loaded: Channel[Loaded] = Channel(len(devices) + 1)  # the next of each, and one behind
        self._outcomes: Channel[Outcome] = Channel(_OUTCOMES)
        # One for each loader and each place between; and each picker has one under its hands, and the next.
        self._in_hand = config.pick.loaders + self._loaded.capacity + 2 * len(devices)
        self._buffers = Buffers(self._in_hand)
        self.dispatcher = Dispatcher(journal, config.pick.newest_first_beyond)
        self.idleness = Idleness(journal, config.session, publisher, clock)
        self.scanner = Scanner(journal, config.watch, self.dispatcher, publisher, self.heartbeats, clock)
        self.recorder = Recorder(journal, self._outcomes, self.dispatcher, publisher, self.heartbeats, clock)
        self._levels = SessionLevels(journal, publisher.metrics, clock, self.idleness.is_idle, self.held_back)
        self.flight = Flight(journal.path.parent, len(devices))
        self._time_limits = [TimeLimit(config.pick.time_limit_s) for _ in devices]
        self._illustrator = Illustrator(journal, config.page, publisher)
        self._pins = Pins(factory)
        self.pickings = [self._picking(number, config.pick) for number in range(len(devices))]
        self._reads = Reads(clock.monotonic)
        self._loaders = [self._loader(number) for number in range(1, config.pick.loaders + 1)]
        self._threads: list[threading.Thread] = []

    def _picking(self, number: int, config: Pick) -> Picking:
        """Return what picks on one device; they are numbered from 0."""
        label, several = config.device_labels[number], len(config.device_labels) > 1
        name = f"{PICKER}-{label}" if several else PICKER
        news = DeviceNews(label, self._publisher, is_one_of_several=several)
        device = Device(
            number,
            self.factory,
            self._pins,
            config,
            self.dispatcher,
            news,
            self._clock,
            lambda: self.heartbeats.beat(name),
        )
        return Picking(
            name,
            device,
            news,
            self.flight.seats[number],
            config.model,
            self._loaded,
            self._outcomes,
            self.dispatcher,
            lambda: self.not_ready is None,
            self._give_back,
            self._fail_session,
            self._note_warm,
            self._illustrator,
            self._publisher,
            self.heartbeats,
        )

    def _loader(self, number: int) -> Loader:
        return Loader(
            f"loader-{number}",
            self.dispatcher,
            self._buffers,
            self._loaded,
            self._outcomes,
            self.scanner.put_back,
            Repeats(self._journal, self._publisher),
            self._reads,
            self._publisher,
            self.heartbeats,
        )

    def start(self) -> None:
        """Start all threads, the end of the stream first."""
        self._illustrator.start()
        self._run("recorder", lambda: self.recorder.run(self._pickers_done, self._abandon))
        for picking in self.pickings:
            self._run(picking.name, self._picking_loop(picking))
        for loader in self._loaders:
            self._run(loader.name, self._loader_loop(loader))
        self._run("scanner", lambda: self.scanner.run(self._stop))

    def recall(self) -> None:
        """Learn from how the process before this one ended; before `start`, and before anybody asks for metrics."""
        last = self.flight.last_crash()
        try:
            if last is not None:
                crash, words = last
                quarantined = self._journal.note_crash(crash, self._clock.wall())
                self._publisher.recalled(crash, words)
                if quarantined is not None:
                    self._publisher.rejected(quarantined[0], crash.suspects[0].name, quarantined[1])
            self.flight.suspects = self._journal.suspects()
            for kind, count in self._journal.crashes().items():
                self._publisher.metrics.crashes.labels(kind=kind).inc(count)
        except (JournalError, OutputError) as error:  # it is worth no more than it tells
            self._publisher.problem("journal", "", str(error))

    def replace_hanging_loaders(self) -> None:
        """Put another loader in the place of each that a file server holds, so that other sessions go on."""
        hanging = self._reads.hanging
        for loader in [one for one in self._loaders if one.name in hanging]:
            if not self._stop.is_set() and loader.replace():
                self._publisher.problem(
                    "file", hanging[loader.name].session, f"{hanging[loader.name].path}: reading it hangs"
                )
                other = self._loader(len(self._loaders) + 1)
                self._loaders.append(other)
                self._run(other.name, self._loader_loop(other))

    def check_time(self) -> None:
        """Fail where one micrograph is on a device for too long: nothing but a new process frees it."""
        now_s = self._clock.monotonic()
        for picking, limit in zip(self.pickings, self._time_limits, strict=True):
            aboard = picking.seat.aboard
            if limit.is_over(aboard, now_s) and self.failure is None:
                assert aboard is not None
                self._abandon.set()
                sentence = (
                    f"{aboard.session}: {aboard.name} was on the device for more than"
                    f" {limit.limit_s:g} s (pick.time_limit_s)"
                )
                fault = PickingHangs(picking.news.sentence(sentence))
                picking.seat.fail(fault)
                self.failure = fault

    def stop(self, within_s: float) -> bool:
        """Finish what is in memory and end all threads; False if some did not end in time."""
        if self.failure is not None:
            self._abandon.set()  # nothing that this process computed is written any more
            within_s = min(within_s, _FAILED_STOP_S)
        deadline = time.monotonic() + within_s
        self._stop.set()
        self.dispatcher.ring()
        self.scanner.wake()
        self._join("loader", deadline)
        self._loaders_done.set()
        self._join("picker", deadline)
        self._pickers_done.set()
        self._join("recorder", deadline)
        self._join("scanner", deadline)
        self._abandon.set()
        if not isinstance(self.failure, DeviceFault):
            self.flight.end()  # what is still on a device has done nothing wrong
        self._illustrator.stop()
        return not any(thread.is_alive() for thread in self._threads)

    def configure(self, config: Config) -> None:
        """Take what of another configuration can change while the pipeline runs; see `settings.RELOADABLE`."""
        self.dispatcher.newest_first_beyond = config.pick.newest_first_beyond
        self.idleness.config = config.session
        self.scanner.configure(config.watch)

    @property
    def not_ready(self) -> str | None:
        """Why nothing can be picked now; None while one device can be used."""
        reasons = self._unusable
        return "; ".join(reasons) if len(reasons) == len(self.pickings) else None

    @property
    def away(self) -> tuple[str, ...]:
        """Why some devices cannot be used while others can, one sentence each."""
        reasons = self._unusable
        return reasons if len(reasons) < len(self.pickings) else ()

    @property
    def _unusable(self) -> tuple[str, ...]:
        return tuple(reason for one in self.pickings if (reason := one.not_ready) is not None)

    @property
    def devices(self) -> tuple[DeviceView, ...]:
        """What picks, for people."""
        return tuple(one.view for one in self.pickings)

    def problems(self, session: str) -> tuple[str, ...]:
        """Return what holds a session up now, one sentence each."""
        reads = self._reads.problems(session)
        return (*self.scanner.problems(session), *reads, *self.held_back(session), *self._unusable)

    def held_back(self, session: str) -> tuple[str, ...]:
        """Return why journal or outputs do not take what there is to record, one sentence each."""
        unnoted = self.scanner.unnoted(session)
        reasons = ((unnoted,) if unnoted is not None else ()) + self.recorder.problems(session)
        return tuple(dict.fromkeys(reasons))

    def show_gauges(self) -> None:
        """Bring the metrics that are levels up to date."""
        metrics = self._publisher.metrics
        now = self._clock.wall()
        ages = self.heartbeats.ages_s()
        for loop in LOOPS:
            of_loop = [age for name, age in ages.items() if name.partition("-")[0] == loop]
            if of_loop:
                metrics.heartbeat_timestamp_seconds.labels(loop=loop).set(now - max(of_loop))
        live = self._journal.sessions(WATCHING)
        self._levels.show(live)
        if self.idleness.look(live):
            self.scanner.wake()
        for queue, depth, capacity in (
            ("ready", self.dispatcher.on_way, self._in_hand + _OUTCOMES),
            ("loaded", self._loaded.depth, self._loaded.capacity),
            ("picked", self._outcomes.depth, _OUTCOMES),
        ):
            metrics.queue_depth.labels(queue=queue).set(depth)
            metrics.queue_capacity.labels(queue=queue).set(capacity)

    def _note_warm(self, picker: Picker) -> None:
        """From now on micrographs are read into the memory that the device likes best."""
        self.warmed_up.set()
        self._buffers.allocate_by(picker.host_memory, self._publisher.not_page_locked)

    def _give_back(self, item: Loaded) -> None:
        if item.buffer is not None:
            self._buffers.give_back(item.buffer)

    def _fail_session(self, session: str, reason: str) -> None:
        """End a session that cannot go on; what it has stays ready for when it is reopened."""
        try:
            self._journal.advance(session, Verb.FAIL, self._clock.wall(), reason)
        except SessionError:
            return  # it has failed before
        except (JournalError, OutputError) as error:  # its micrograph stays ready, and brings it here again
            self._publisher.problem("journal", session, str(error))
            return
        self._publisher.state(session, SessionState.FAILED, reason)

    def _picking_loop(self, picking: Picking) -> Callable[[], None]:
        return lambda: picking.run(self._stop, self._loaders_done, self._abandon)

    def _loader_loop(self, loader: Loader) -> Callable[[], None]:
        return lambda: loader.run(self._stop, self._abandon)

    def _run(self, name: str, loop: Callable[[], None]) -> None:
        """Run a loop in a thread of its own; its error is the end of the daemon."""

        def guarded() -> None:
            try:
                loop()
            except Exception as error:  # noqa: BLE001 - top of a stage thread: the daemon ends with it
                self.failure = self.failure or error
                self._abandon.set()
                self.on_failure()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _join(self, prefix: str, deadline: float) -> None:
        """Wait for threads, but not for loaders that a file server holds: they have nothing to lose."""
        left_behind = {loader.name for loader in self._loaders if loader.is_replaced}
        for thread in self._threads:
            if thread.name.startswith(prefix) and thread.name not in left_behind:
                thread.join(max(0.0, deadline - time.monotonic()))
