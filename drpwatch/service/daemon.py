"""The daemon: puts all parts together, starts them in order, and stops them in the mirrored one."""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import structlog

from drpwatch import __version__
from drpwatch.config import Config
from drpwatch.errors import ConfigError, DeviceFault, DrpwatchError, JournalDamaged, OutputError
from drpwatch.service import logs
from drpwatch.service.api import build_app
from drpwatch.service.clock import Clock
from drpwatch.service.guards import is_loopback
from drpwatch.service.metrics import Metrics
from drpwatch.service.models import Models
from drpwatch.service.pickers import PickerFactory
from drpwatch.service.pipeline import Pipeline
from drpwatch.service.publish import Publisher
from drpwatch.service.reports import Reports
from drpwatch.service.servers import Server, bind_tcp, bind_unix
from drpwatch.service.sessions import STALE_AFTER_S, Sessions
from drpwatch.service.settings import Settings
from drpwatch.service.signals import Signals
from drpwatch.service.state import StateDirectory
from drpwatch.service.systemd import Notifier
from drpwatch.session.journal import Journal
from drpwatch.session.lifecycle import WATCHING
from drpwatch.session.statistics import Statistics
from drpwatch.watch.hints import is_silent
from drpwatch.watch.scan import filesystem_type
from drpwatch.web.events import Events
from drpwatch.web.page import Page

log = structlog.get_logger(__name__)

_TICK_S = 2.0
_STARTING_TICK_S = 0.2
_START_EXTENSION_S = 60.0  # asked of systemd again and again while the device is waited for


def run(
    config: Config,
    config_path: Path | None,
    factory: PickerFactory | None = None,
    clock: Clock | None = None,
) -> int:
    """Run the daemon until it is told to stop; return the exit code.

    Parameters
    ----------
    config, config_path
        The configuration and the file that SIGHUP reads; None is the default one, if there is one then.
    factory
        Where pickers come from; None for the models of `drpwatch.pick`.
    clock
        Where all loops take their time from; None for the system's.

    Raises
    ------
    DrpwatchError
        The daemon cannot start, or cannot go on; the text says why.
    """
    logs.configure(config.daemon.log_format, config.daemon.log_level)
    factory = factory or Models(config.pick, config.daemon.state_dir / "weights")
    daemon = Daemon(config, config_path, factory, clock or Clock())
    try:
        return daemon.run()
    finally:
        failure = daemon.failure
        if daemon.hanging or isinstance(failure, DeviceFault):
            # A thread that hangs in a driver or a dead file server would keep the interpreter from ending, and
            # its end would use a device that failed.
            log.error("stopped_at_once", hanging=daemon.hanging, reason=failure and str(failure))
            logging.shutdown()
            os._exit(failure.exit_code if isinstance(failure, DrpwatchError) else int(failure is not None))


class Daemon:
    """One run of the daemon."""

    def __init__(
        self, config: Config, config_path: Path | None, factory: PickerFactory, clock: Clock
    ) -> None:
        self._settings = Settings(config, config_path)
        self._config_path = config_path
        self._factory = factory
        self._notifier = Notifier()
        self._clock = clock
        self._ready = False
        self._status = ""
        self.hanging = False
        """Whether threads were left behind."""
        self.failure: BaseException | None = None

    def run(self) -> int:
        """Start, work, stop; each part is stopped by what started it."""
        daemon = self._settings.config.daemon
        with ExitStack() as parts:
            signals = parts.enter_context(Signals())
            log.info("starting", version=__version__, pid=os.getpid(), state_dir=daemon.state_dir)
            state = StateDirectory(daemon.state_dir)
            parts.callback(state.close)
            self._warn_of_network_state(state.path)
            journal = self._opened(state.journal, signals)
            if journal is None:
                return 0
            parts.callback(journal.close)
            metrics = Metrics(self._settings.config.pick.device_labels)
            journal.on_commit = metrics.journal_commit_seconds.observe
            events = Events()
            publisher = Publisher(metrics, self._clock, events)
            pipeline = Pipeline(journal, self._settings.config, self._factory, publisher, self._clock)
            parts.callback(pipeline.flight.close)
            pipeline.flight.listen()
            pipeline.recall()
            sessions = Sessions(journal, pipeline, publisher, self._clock, self._settings)
            statistics = Statistics(state.journal)
            parts.callback(statistics.close)
            page = Page(statistics, events, self._clock.wall)
            reports = Reports(journal, self._clock.wall)
            parts.enter_context(self._serving(sessions, metrics, page, reports))
            parts.callback(events.close)  # before the servers stop, which else wait for the streams
            parts.enter_context(self._picking(pipeline))
            parts.callback(reports.stop)
            reports.start()
            self._main_loop(signals, pipeline, journal, metrics)
            self.failure = pipeline.failure
            self._notifier.stopping(f"stopping: {signals.stop or 'a stage failed'}")
            log.info("stopping", reason=signals.stop or str(self.failure))
        return self._exit_code()

    def _opened(self, path: Path, signals: Signals) -> Journal | None:
        """Open the journal, once its disk lets us; None if told to stop before."""
        while signals.stop is None:
            self._notifier.extend_timeout(_START_EXTENSION_S)  # checking a large journal takes a while
            try:
                return Journal(path)
            except OutputError as error:
                if self._status != str(error):
                    self._status = str(error)
                    log.warning("journal_waited_for", reason=self._status)
                    self._notifier.status(self._status)
            except JournalDamaged as error:
                given = (
                    "" if self._config_path is None else f" --config {shlex.quote(str(self._config_path))}"
                )
                raise JournalDamaged(
                    f"{error}: 'drpwatch recover{given}' makes a new one from the sessions' STAR files"
                ) from error
            signals.wait(_TICK_S)
        return None

    @contextmanager
    def _serving(self, control: Sessions, metrics: Metrics, page: Page, reports: Reports) -> Iterator[None]:
        """Serve the API on the Unix socket, and the part that reads on TCP."""
        daemon = self._settings.config.daemon
        local = bind_unix(daemon.socket)
        try:
            remote = bind_tcp(daemon.http_host, daemon.http_port)
        except ConfigError:
            local.close()
            daemon.socket.unlink(missing_ok=True)
            raise
        address = remote.getsockname()
        control.page = _page_address(address[0], address[1])
        servers = [
            Server(
                build_app(
                    control,
                    metrics,
                    writable=True,
                    profiles=self._settings.profiles,
                    page=page,
                    report=reports.make,
                ),
                local,
                "api-unix",
            ),
            Server(
                build_app(
                    control, metrics, writable=False, local_names_only=is_loopback(address[0]), page=page
                ),
                remote,
                "api-tcp",
            ),
        ]
        for server in servers:
            server.start()
        log.info(
            "listening",
            socket=daemon.socket,
            host=address[0],
            port=address[1],
            page=control.page,
        )
        try:
            yield
        finally:
            for server in servers:
                server.stop()
            daemon.socket.unlink(missing_ok=True)

    @contextmanager
    def _picking(self, pipeline: Pipeline) -> Iterator[None]:
        """Run the pipeline."""
        pipeline.start()
        try:
            yield
        finally:
            started = time.monotonic()
            self.hanging = not pipeline.stop(self._settings.config.daemon.stop_timeout_s)
            log.info("drained", seconds=round(time.monotonic() - started, 2), complete=not self.hanging)

    # ---- while it runs --------------------------------------------------------------------------

    def _main_loop(self, signals: Signals, pipeline: Pipeline, journal: Journal, metrics: Metrics) -> None:
        """Watch over the stages until a signal or a failure ends it."""
        interval_s = min(_TICK_S, self._notifier.watchdog_interval_s or _TICK_S)
        pipeline.on_failure = signals.wake
        while signals.stop is None and pipeline.failure is None:
            if signals.reload_asked():
                self._reload(pipeline, metrics)
            self._tell_systemd(pipeline, journal)
            pipeline.check_time()
            pipeline.replace_hanging_loaders()
            try:
                pipeline.show_gauges()
            except DrpwatchError as error:
                log.warning("gauges_not_shown", reason=str(error))
            signals.wait(interval_s if self._ready else _STARTING_TICK_S)

    def _tell_systemd(self, pipeline: Pipeline, journal: Journal) -> None:
        """Say how it stands: ready once the model is warm, alive while every loop makes progress."""
        if not pipeline.heartbeats.stale(STALE_AFTER_S):
            self._notifier.alive()
        status = "; ".join((_status(pipeline, journal), *pipeline.away, *self._settings.notices))
        if not self._ready:
            if pipeline.warmed_up.is_set() and pipeline.recorder.recovered.is_set():
                self._ready = True
                self._notifier.ready(status)
                log.info("ready")
            else:
                self._notifier.extend_timeout(_START_EXTENSION_S)
        if status != self._status:
            self._status = status
            self._notifier.status(status)

    def _reload(self, pipeline: Pipeline, metrics: Metrics) -> None:
        """Read the configuration again; take what can change, name what cannot."""
        self._notifier.reloading()
        try:
            self._settings.reload()
        except ConfigError as error:
            log.error("reload_failed", reason=str(error))
        else:
            config = self._settings.config
            logs.configure(config.daemon.log_format, config.daemon.log_level)
            pipeline.configure(config)
            log.info("reloaded", needs_restart=self._settings.needs_restart)
        metrics.config_reload_failed.set(int(self._settings.failure is not None))
        metrics.config_needs_restart.set(int(bool(self._settings.needs_restart)))
        if self._ready:  # else the main loop says so when it is
            self._notifier.ready(self._status)

    def _exit_code(self) -> int:
        """Return 0 after a stop that was asked for; raise or return what ended it otherwise."""
        if self.failure is None:
            log.info("stopped")
            return 0
        if isinstance(self.failure, DrpwatchError):
            raise self.failure
        log.error("unexpected_error", error=str(self.failure), exc_info=self.failure)
        return 1

    def _warn_of_network_state(self, path: Path) -> None:
        kind = filesystem_type(path)
        if is_silent(kind):
            log.warning("state_dir_on_network", state_dir=path, file_system=kind)


def _page_address(host: str, port: int) -> str:
    """Return where people on this machine find the page, as a browser takes it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _status(pipeline: Pipeline, journal: Journal) -> str:
    """Return the line for `systemctl status`."""
    if pipeline.not_ready is not None:
        return f"not picking: {pipeline.not_ready}"
    try:
        live = [journal.totals(session.id) for session in journal.sessions(WATCHING)]
    except DrpwatchError as error:
        return str(error)
    picked, ready = sum(totals.picked for totals in live), sum(totals.ready for totals in live)
    return f"{len(live)} sessions, {picked} micrographs picked, {ready} to pick"
