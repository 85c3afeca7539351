"""A `Control` without a daemon behind it, and metrics without a pipeline."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter

from drpwatch.errors import SessionError, UsageError
from drpwatch.service.control import (
    DaemonView,
    DeviceView,
    Health,
    MicrographCounts,
    MicrographView,
    Repicked,
    SessionRequest,
    SessionView,
    Which,
)


def micrograph(name: str, state: str, reason: str | None = None) -> MicrographView:
    picked = state == "picked"
    return MicrographView(
        name=name,
        generation=1,
        state=state,
        reason=reason,
        picks=412 if picked else None,
        threshold=0.5 if picked else None,
        weights_sha256="f" * 64 if picked else None,
        params_version=1 if picked else None,
        outdated=False,
        source_missing=False,
        first_seen_at=1_800_000_000.0,
        ready_at=1_800_000_010.0 if picked else None,
        recorded_at=1_800_000_011.0 if picked else None,
        seconds={"read": 0.1} if picked else {},
    )


class FakeMetrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        Counter("drpwatch_picks", "Picks.", registry=self.registry).inc(7)


@dataclass
class FakeControl:
    """Keeps views in a dictionary and changes their state, nothing else."""

    views: dict[str, SessionView] = field(default_factory=dict)
    requests: list[SessionRequest] = field(default_factory=list)
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    notices: tuple[str, ...] = ()
    devices: tuple[DeviceView, ...] = ()
    page: str | None = None
    live: Health = field(default_factory=Health)
    ready: Health = field(default_factory=Health)

    def start_session(self, request: SessionRequest) -> SessionView:
        if request.name in self.views:
            raise SessionError(f"session {request.name!r} exists already")
        if not request.watch_root.is_absolute():
            raise UsageError(f"{request.watch_root}: not an absolute path")
        self.requests.append(request)
        out_dir = request.out_dir or Path(f"{request.watch_root}-drpwatch") / request.name
        view = SessionView(
            name=request.name,
            state="waiting",
            watch_root=request.watch_root,
            out_dir=out_dir,
            glob=request.glob,
            micrograph_prefix=request.micrograph_prefix,
            params=request.params,
            params_version=1,
            weights_sha256="f" * 64,
            pixel_size_angstrom=request.params.pixel_size_angstrom,
            created_at=1_800_000_000.0,
            changed_at=1_800_000_000.0,
            last_recorded_at=None,
            micrographs=MicrographCounts(),
            outdated=0,
            picks=0,
            micrographs_per_hour=None,
            problems=(),
            outputs=(out_dir / "particles.star", out_dir / "autopick.star"),
            behind=False,
        )
        self.views[request.name] = view
        return view

    def add(self, view: SessionView) -> None:
        self.views[view.name] = view

    def stop_session(self, name: str) -> SessionView:
        return self._move(name, "draining")

    def pause(self, name: str) -> SessionView:
        return self._move(name, "paused")

    def resume(self, name: str) -> SessionView:
        if self.session(name).state != "paused":
            raise SessionError(
                f"session {name!r} is {self.session(name).state}: only a paused one is resumed"
            )
        return self._move(name, "running")

    def reopen(self, name: str) -> SessionView:
        return self._move(name, "waiting")

    def set_session(self, name: str, changes: Mapping[str, Any]) -> SessionView:
        view = self.session(name)
        params = {key: value for key, value in changes.items() if key != "expected_end_at"}
        self.views[name] = replace(
            view,
            params=replace(view.params, **params),
            params_version=view.params_version + 1,
            expected_end_at=changes.get("expected_end_at", view.expected_end_at),
        )
        self.asked.append(("set", name, dict(changes)))
        return self.views[name]

    def rethreshold(self, name: str, threshold: float) -> SessionView:
        self.asked.append(("rethreshold", name, threshold))
        return self.session(name)

    def rebuild(self, name: str) -> SessionView:
        self.asked.append(("rebuild", name))
        return self.session(name)

    def repick(self, name: str, which: Which, glob: str | None = None) -> Repicked:
        self.asked.append(("repick", name, which, glob))
        return Repicked(self.session(name), 3)

    def micrographs(self, name: str, states: Collection[str], limit: int) -> list[MicrographView]:
        view = self.session(name)
        # A micrograph that failed just now is in `failed` and in `newest`.
        by_name = {one.name: one for one in (*view.waiting, *view.ready, *view.failed, *view.newest)}
        return [one for one in by_name.values() if one.state in states][:limit]

    def sessions(self) -> list[SessionView]:
        return [replace(view, waiting=(), failed=(), newest=()) for view in self.views.values()]

    def session(self, name: str) -> SessionView:
        if name not in self.views:
            raise SessionError(f"no session is named {name!r}")
        return self.views[name]

    def daemon(self) -> DaemonView:
        return DaemonView("0.0.0", self.notices, self.page, self.devices)

    def liveness(self) -> Health:
        return self.live

    def readiness(self) -> Health:
        return self.ready

    def _move(self, name: str, state: str) -> SessionView:
        self.views[name] = replace(self.session(name), state=state)
        return self.views[name]
