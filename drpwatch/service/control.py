"""The verbs of the daemon as its callers see them: requests, views and the `Control` protocol.

The HTTP API is a thin skin over `Control`, and tests of either side use a fake of the other. What
the verbs do is in `service.sessions`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from drpwatch.micrograph import PickParams

DEFAULT_GLOB = "**/*.mrc"
ALL = "all"


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """What a user gives to start a session; relative paths are refused, `~` is not expanded."""

    name: str  # [A-Za-z0-9][A-Za-z0-9._-]{0,63}
    watch_root: Path
    params: PickParams
    out_dir: Path | None = None  # None: <watch_root>/../drpwatch/<name>
    glob: str = DEFAULT_GLOB
    micrograph_prefix: str = ""  # put before the name in rlnMicrographName
    backfill: str = ALL  # which files of those that are there: all | new-only | since=TIME, in ISO 8601
    expected_end_at: float | None = None  # unix seconds


@dataclass(frozen=True, slots=True)
class MicrographCounts:
    """Micrographs of a session by state."""

    waiting: int = 0  # seen, not whole yet
    ready: int = 0  # whole, to be picked
    picked: int = 0  # recorded, zero picks included
    failed: int = 0  # recorded with a reason


@dataclass(frozen=True, slots=True)
class MicrographView:
    """One micrograph as the journal knows it. Times are unix seconds."""

    name: str  # relative to the watch root
    generation: int  # 1, and one more each time that the file was rewritten
    state: str  # waiting | ready | picked | failed
    reason: str | None  # why it waits or failed
    picks: int | None  # None until picked
    threshold: float | None
    weights_sha256: str | None  # of those that picked it
    params_version: int | None  # that it was picked with
    outdated: bool  # picked with other parameters or weights than those in force
    source_missing: bool  # its file is not there any more; what was picked of it stays
    first_seen_at: float
    ready_at: float | None
    recorded_at: float | None
    seconds: dict[str, float] = field(default_factory=dict)  # per stage


@dataclass(frozen=True, slots=True)
class SessionView:
    """One session as `session list` and `session show` print it. Times are unix seconds."""

    name: str
    state: str  # see session.lifecycle.SessionState
    watch_root: Path
    out_dir: Path
    glob: str
    micrograph_prefix: str
    params: PickParams  # in force
    params_version: int  # 1, and one more with each change
    weights_sha256: str | None  # that the model stood for when it was set; None: from an older drpwatch
    pixel_size_angstrom: float | None  # of the outputs; None until a header has told it
    created_at: float
    changed_at: float  # of the last change of state
    last_recorded_at: float | None
    micrographs: MicrographCounts
    outdated: int  # of the picked ones
    picks: int
    micrographs_per_hour: float | None  # recorded in the last hour, or since the start; None before any
    problems: tuple[str, ...]  # what holds the session up now: one sentence each
    outputs: tuple[Path, ...]
    behind: bool  # the outputs are still to be brought to what the journal says
    expected_end_at: float | None = None
    backfill: str = ALL
    no_events: str | None = None  # why files are found by scans alone; None: the kernel tells of them, too
    sources_missing: int = 0  # recorded micrographs whose file is not there any more
    oldest_unpicked_at: float | None = None  # when the oldest that is ready was first seen
    idle: bool = False  # nothing new came for session.idle_after_s
    seen_diameter_angstrom: float | None = (
        None  # what rings tell of the newest, where it is clearly more than given
    )
    waiting: tuple[MicrographView, ...] = ()  # only from `session()`, newest first
    ready: tuple[MicrographView, ...] = ()
    failed: tuple[MicrographView, ...] = ()
    newest: tuple[MicrographView, ...] = ()  # the last recorded ones, picked or failed

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = asdict(self)
        values.update(
            watch_root=str(self.watch_root),
            out_dir=str(self.out_dir),
            outputs=[str(path) for path in self.outputs],
        )
        return values


class Which(StrEnum):
    """Which recorded micrographs are to be picked again."""

    RECORDED = "recorded"  # all
    FAILED = "failed"
    OUTDATED = "outdated"


@dataclass(frozen=True, slots=True)
class Repicked:
    """The answer to `Control.repick`."""

    session: SessionView
    count: int  # of the micrographs that will be picked again
    missing: int = 0  # of those that cannot be, for their file is not there any more

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"session": self.session.as_dict(), "count": self.count, "missing": self.missing}


@dataclass(frozen=True, slots=True)
class DeviceView:
    """A picking device, as its thread saw it last."""

    name: str | None  # None until it could be used for the first time
    not_ready: str | None  # why nothing can be picked on it now; None while it can
    released: bool  # models are off it, because there is nothing to pick
    memory_bytes: dict[str, int]  # by kind, see `MEMORY_KINDS` of the metrics; empty for a CPU
    tile_px: int | None  # in which the last micrograph was picked, and smaller if memory is short


@dataclass(frozen=True, slots=True)
class DaemonView:
    """The daemon itself."""

    version: str
    notices: tuple[str, ...] = ()  # what somebody should know of its configuration: one sentence each
    page: str | None = None  # where a browser on this machine finds the page; None: not served yet
    devices: tuple[DeviceView, ...] = ()


@dataclass(frozen=True, slots=True)
class Health:
    """The answer of a probe: healthy when there is no reason against it."""

    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # what is wrong and does not speak against it

    @property
    def healthy(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons


class Control(Protocol):
    """What can be asked of a running daemon; safe to call from any thread.

    Every verb raises `SessionError` where the session does not exist or its state forbids the verb,
    and `UsageError` where a value cannot be used; both texts are for the user as they are.
    """

    def start_session(self, request: SessionRequest) -> SessionView:
        """Create a session and begin to watch."""
        ...

    def stop_session(self, name: str) -> SessionView:
        """Take nothing new, finish what is there, then complete."""
        ...

    def pause(self, name: str) -> SessionView:
        """Go on finding files, pick none."""
        ...

    def resume(self, name: str) -> SessionView:
        """Undo `pause`."""
        ...

    def reopen(self, name: str) -> SessionView:
        """Watch again for a completed or failed session."""
        ...

    def set_session(self, name: str, changes: Mapping[str, Any]) -> SessionView:
        """Put other values in force for micrographs to come: fields of `PickParams`, `expected_end_at`.

        None is what a session has that was never told. A model is checked, and kept as it is now.
        """
        ...

    def rethreshold(self, name: str, threshold: float) -> SessionView:
        """Cut what is recorded at another threshold, without the device; what is to come, too."""
        ...

    def rebuild(self, name: str) -> SessionView:
        """Write all files of the outputs anew."""
        ...

    def repick(self, name: str, which: Which, glob: str | None = None) -> Repicked:
        """Pick recorded micrographs again; of those, optionally, only names that match a glob."""
        ...

    def sessions(self) -> list[SessionView]:
        """Return all sessions, newest first, without their micrographs."""
        ...

    def session(self, name: str) -> SessionView:
        """Return one session with its waiting, ready, failed and newest micrographs (at most 200 each)."""
        ...

    def micrographs(self, name: str, states: Collection[str], limit: int) -> list[MicrographView]:
        """Return the micrographs of a session in some states, the newest first."""
        ...

    def daemon(self) -> DaemonView:
        """Return what there is to know about the daemon itself."""
        ...

    def liveness(self) -> Health:
        """Tell whether a restart is needed: a loop that has stopped beating."""
        ...

    def readiness(self) -> Health:
        """Tell whether micrographs are being picked and recorded: device, outputs, journal, scans."""
        ...
