"""What Prometheus sees: every metric is declared here, once, with all values its labels can have.

Owns names, texts, buckets and the life of a session's series. It measures nothing itself: stages
write to its attributes (`metrics.picks.labels(session=name).inc(412)`).
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from typing import TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

import drpwatch
from drpwatch.config import Pick

OUTCOMES = ("picked", "zero", "failed", "rewritten")
STAGES = ("read", "prepare", "detect", "choose", "draw", "record")
QUEUES = ("ready", "loaded", "picked")
LOOPS = ("scanner", "loader", "picker", "recorder")
ERROR_KINDS = ("scan", "file", "pick", "output", "journal", "device", "memory", "picture", "internal")
MEMORY_KINDS = ("allocated", "reserved", "peak", "free", "total")
MICROGRAPH_STATES = ("waiting", "ready", "picked", "failed")
CRASH_KINDS = ("signal", "device", "time_limit", "canary", "killed")
SESSION_STATES = ("created", "waiting", "running", "paused", "draining", "completed", "failed")

STAGE_BUCKETS_S = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
RECORDED_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 1800)
SCAN_BUCKETS_S = (0.01, 0.05, 0.2, 0.5, 1, 5, 20, 60)
COMMIT_BUCKETS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)
PICKS_BUCKETS = (0, 1, 10, 25, 50, 100, 200, 400, 800, 1600)

_PREFIX = "drpwatch"

_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)

# Their series double the count of all others and say what `increase()` says already.
disable_created_metrics()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class _SessionMetric:
    """A metric that has series for each session, and the other labels of those."""

    metric: Counter | Gauge
    others: dict[str, tuple[str, ...]]
    created: bool  # whether a session begins with all series at 0


class Metrics:
    """All metrics of one daemon, in a registry of their own.

    Attributes are the metrics, named as on the page without the prefix and the suffix `_total`.

    Parameters
    ----------
    devices
        Labels of the picking devices.
    """

    def __init__(self, devices: tuple[str, ...] = Pick().device_labels) -> None:
        self.registry = CollectorRegistry()
        self.sessions: set[str] = set()
        """The sessions that have series."""
        self._of_sessions: list[_SessionMetric] = []
        self._models: dict[str, tuple[str, set[str]]] = {}  # by SHA-256: shown name, and devices that have it
        self._models_lock = threading.Lock()
        self._devices = devices
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._declare_build()
        self._declare_work()
        self._declare_finding()
        self._declare_sessions()
        self._declare_health()

    def render(self) -> bytes:
        """Return the page, in Prometheus' text format."""
        return generate_latest(self.registry)

    def show_model(self, name: str, sha256: str, device: str) -> None:
        """Show weights as loaded, by the name under which the first device loaded them."""
        with self._models_lock:
            name, devices = self._models.setdefault(sha256, (name, set()))
            devices.add(device)
            self.model_info.labels(name=name, sha256=sha256).set(1)

    def forget_model(self, sha256: str, device: str) -> None:
        """Show weights no more, once every device has unloaded them."""
        with self._models_lock:
            name, devices = self._models[sha256]
            devices.discard(device)
            if not devices:
                del self._models[sha256]
                self.model_info.remove(name, sha256)

    def add_session(self, name: str, state: str) -> None:
        """Begin a session's series, each at 0, unless it has them."""
        if name in self.sessions:
            return
        self.sessions.add(name)
        for declared in self._of_sessions:
            if declared.created:
                for values in product(*declared.others.values()):
                    declared.metric.labels(session=name, **dict(zip(declared.others, values, strict=True)))
        self.show_state(name, state)

    def show_state(self, name: str, state: str) -> None:
        """Show in which state a session is, if it has series; there is one of it at a time."""
        if name not in self.sessions:
            return
        for other in SESSION_STATES:
            if other != state:
                with suppress(KeyError):
                    self.session_info.remove(name, other)
        self.session_info.labels(session=name, state=state).set(1)

    def forget_session(self, name: str) -> None:
        """End all series of a session."""
        self.sessions.discard(name)
        for declared in self._of_sessions:
            for values in product(*declared.others.values()):
                with suppress(KeyError):  # older clients raise where there is no such series
                    declared.metric.remove(name, *values)

    def _declare_build(self) -> None:
        build = Info(f"{_PREFIX}_build", "What is running.", registry=self.registry)
        build.info(
            {"version": drpwatch.__version__, "python": platform.python_version(), "torch": _version("torch")}
        )
        self.model_info = Gauge(
            f"{_PREFIX}_model_info",
            "1 for each set of weights that is loaded.",
            ("name", "sha256"),
            registry=self.registry,
        )

    def _declare_work(self) -> None:
        self.micrographs = self._session_counter(
            "micrographs",
            "Micrographs recorded, by outcome: with picks, with none, failed, and picked again because the"
            " file was rewritten or somebody asked for it.",
            outcome=OUTCOMES,
        )
        self.picks = self._session_counter("picks", "Particles picked.")
        self.stage_seconds = self._histogram(
            "stage_seconds", "Time that one micrograph takes in each stage.", STAGE_BUCKETS_S, stage=STAGES
        )
        self.finished_to_recorded_seconds = self._histogram(
            "finished_to_recorded_seconds",
            "Time from a micrograph being found whole and settled to its rows being on disk.",
            RECORDED_BUCKETS_S,
        )
        self.picks_per_micrograph = self._histogram(
            "picks_per_micrograph", "Picks of each micrograph.", PICKS_BUCKETS
        )
        self.queue_depth = self._gauge("queue_depth", "Micrographs in each queue now.", queue=QUEUES)
        self.queue_capacity = self._gauge(
            "queue_capacity", "Micrographs that each queue takes.", queue=QUEUES
        )
        self.last_pick_timestamp_seconds = self._gauge(
            "last_pick_timestamp_seconds", "When a micrograph was last picked and recorded; 0 for never."
        )

    def _declare_finding(self) -> None:
        self.scans = self._counter("scans", "Passes over watch roots.", result=("ok", "failed"))
        self.scan_seconds = self._histogram(
            "scan_seconds", "Time of one pass over a watch root.", SCAN_BUCKETS_S
        )
        self.found = self._counter(
            "found", "Micrographs found, by what brought their name first.", by=("hint", "scan")
        )

    def _declare_sessions(self) -> None:
        self.session_active = self._gauge("session_active", "Sessions that are being watched or picked.")
        self.session_info = self._session_gauge(
            "session_info", "1 for the state that each session is in.", created=False, state=SESSION_STATES
        )
        self.oldest_unpicked_timestamp_seconds = self._session_gauge(
            "oldest_unpicked_timestamp_seconds",
            "When the oldest micrograph that is ready and not yet recorded was first seen; 0 for none.",
        )
        self.session_idle = self._session_gauge(
            "session_idle", "1 if no new micrograph came for session.idle_after_s, else 0."
        )
        self.expected_end_timestamp_seconds = self._session_gauge(
            "expected_end_timestamp_seconds", "When the session is expected to end; 0 if nobody said."
        )
        self.last_new_micrograph_timestamp_seconds = self._session_gauge(
            "last_new_micrograph_timestamp_seconds",
            "When a new micrograph was last seen, or the session was last started, resumed or reopened.",
        )
        self.session_micrographs = self._session_gauge(
            "session_micrographs",
            "Micrographs of the session, by state: incomplete or settling, whole and to be picked, picked,"
            " failed. From the journal: a restart changes nothing.",
            state=MICROGRAPH_STATES,
        )
        self.quarantined = self._session_gauge(
            "quarantined", "Micrographs that are quarantined: drpwatch crashed twice on each of them."
        )
        self.session_picks = self._session_gauge(
            "session_picks", "Particles in the session's outputs, from the journal."
        )
        self.median_picks = self._session_gauge(
            "median_picks",
            "Median of the picks per micrograph: of the newest 20, and of all of the session.",
            created=False,
            of=("newest", "all"),
        )
        self.watch_root_readable = self._session_gauge(
            "watch_root_readable", "1 if the last pass over the watch root succeeded, else 0."
        )
        self.watch_events = self._session_gauge(
            "watch_events",
            "1 if the kernel tells of new files in the watch root, 0 if they are found by scans alone.",
        )
        self.output_writable = self._session_gauge(
            "output_writable", "1 if picks can be recorded, 0 while they are held back."
        )
        self.output_free_bytes = self._session_gauge(
            "output_free_bytes", "Free space of the file system that takes a session's output.", created=False
        )

    def _declare_health(self) -> None:
        self.errors = self._counter("errors", "Things that went wrong, by kind.", kind=ERROR_KINDS)
        self.heartbeat_timestamp_seconds = self._gauge(
            "heartbeat_timestamp_seconds", "When each loop last made progress.", loop=LOOPS
        )
        for loop in LOOPS:  # not 0: no loop has been standing still since 1970
            self.heartbeat_timestamp_seconds.labels(loop=loop).set(time.time())
        self.config_reload_failed = self._gauge(
            "config_reload_failed", "1 if the configuration was wrong when it was last reloaded, else 0."
        )
        self.config_needs_restart = self._gauge(
            "config_needs_restart",
            "1 if the configuration has values that count after a restart only, else 0.",
        )
        self._declare_devices(device=self._devices)
        self.crashes = self._counter(
            "crashes",
            "Ends of the daemon that nobody asked for, by kind, of all its lives: killed by a signal, a failing"
            " device, the time limit, or the canary; or killed while it picked.",
            kind=CRASH_KINDS,
        )
        self.state_free_bytes = self._gauge(
            "state_free_bytes", "Free space of the file system that has the journal."
        )
        self.journal_commit_seconds = self._histogram(
            "journal_commit_seconds", "Time of one durable transaction of the journal.", COMMIT_BUCKETS_S
        )

    def _declare_devices(self, **devices: tuple[str, ...]) -> None:
        """Declare what each picking device has for itself."""
        self.device_ready = self._gauge(
            "device_ready", "1 if the picking device can be used, else 0.", **devices
        )
        self.device_busy_seconds = self._counter(
            "device_busy_seconds", "Time that picked micrographs were on the picking device.", **devices
        )
        self.device_memory_bytes = self._gauge(
            "device_memory_bytes", "Memory of the picking device; 0 on a CPU.", **devices, kind=MEMORY_KINDS
        )
        self.device_released = self._gauge(
            "device_released",
            "1 while models are off the device because nothing is to be picked, else 0.",
            **devices,
        )
        self.device_half_precision = self._gauge(
            "device_half_precision",
            "1 if the model that was loaded last computes in half precision, else 0.",
            **devices,
        )
        self.tile_px = self._gauge(
            "tile_px",
            "Side of the tiles in which the last micrograph was picked: smaller if memory is short.",
            **devices,
        )
        self.canary_checks = self._counter(
            "canary_checks",
            "Times that the canary was picked, by what came out.",
            **devices,
            result=("same", "moved"),
        )

    def _counter(self, name: str, text: str, **labels: tuple[str, ...]) -> Counter:
        return _filled(Counter(f"{_PREFIX}_{name}", text, tuple(labels), registry=self.registry), labels)

    def _gauge(self, name: str, text: str, **labels: tuple[str, ...]) -> Gauge:
        return _filled(Gauge(f"{_PREFIX}_{name}", text, tuple(labels), registry=self.registry), labels)

    def _histogram(
        self, name: str, text: str, buckets: Iterable[float], **labels: tuple[str, ...]
    ) -> Histogram:
        metric = Histogram(
            f"{_PREFIX}_{name}", text, tuple(labels), buckets=tuple(buckets), registry=self.registry
        )
        return _filled(metric, labels)

    def _session_counter(self, name: str, text: str, **labels: tuple[str, ...]) -> Counter:
        metric = Counter(f"{_PREFIX}_{name}", text, ("session", *labels), registry=self.registry)
        self._of_sessions.append(_SessionMetric(metric, labels, created=True))
        return metric

    def _session_gauge(
        self, name: str, text: str, *, created: bool = True, **labels: tuple[str, ...]
    ) -> Gauge:
        metric = Gauge(f"{_PREFIX}_{name}", text, ("session", *labels), registry=self.registry)
        self._of_sessions.append(_SessionMetric(metric, labels, created))
        return metric


def _filled(metric: _Metric, labels: dict[str, tuple[str, ...]]) -> _Metric:
    """Begin the series of every label value: one that appears late hides its first increase."""
    if labels:
        for values in product(*labels.values()):
            metric.labels(*values)
    return metric


def _version(package: str) -> str:
    """Return the version of an installed package, without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
