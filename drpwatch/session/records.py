"""What the journal holds, as frozen rows: sessions, micrographs, output files."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from drpwatch.errors import UsageError
from drpwatch.micrograph import Fingerprint, FloatArray, PickParams
from drpwatch.session.lifecycle import SessionState

_SESSION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class MicrographState(StrEnum):
    """Where one generation of a micrograph stands."""

    WAITING = "waiting"  # seen, not whole
    READY = "ready"  # whole, to be picked
    PICKED = "picked"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class SessionSpec:
    """What a session is about; fixed for its life, but for the parameters, which have versions.

    Raises
    ------
    UsageError
        The name cannot be a file name everywhere.
    """

    name: str
    watch_root: Path
    out_dir: Path
    params: PickParams
    glob: str = "**/*.mrc"
    micrograph_prefix: str = ""  # put before the name in rlnMicrographName

    def __post_init__(self) -> None:
        check_session_name(self.name)


def check_session_name(name: str) -> None:
    """Refuse a name that could leave its directory or break a label.

    Raises
    ------
    UsageError
        The name has other characters than letters, digits, ".", "_", "-", or more than 64 of them.
    """
    if not _SESSION_NAME.fullmatch(name):
        raise UsageError(
            f"session name {name!r}: use 1 to 64 letters, digits, '.', '_' or '-',"
            " beginning with a letter or digit"
        )


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One session as journalled. Times are unix seconds."""

    id: int
    spec: SessionSpec  # with the parameters in force
    params_id: int
    state: SessionState
    reason: str | None  # of the last change of state
    pixel_size_angstrom: float | None  # of the outputs: the user's, else that of the first header
    created_at: float
    changed_at: float


@dataclass(frozen=True, slots=True)
class MicrographRecord:
    """The latest generation of one micrograph, without its candidates. Times are unix seconds."""

    id: int
    name: str
    generation: int
    state: MicrographState
    reason: str | None
    fingerprint: Fingerprint | None
    n_picks: int | None
    threshold: float | None
    weights_sha256: str | None
    first_seen_at: float
    ready_at: float | None
    recorded_at: float | None
    seconds: dict[str, float] = field(default_factory=dict)
    params_id: int | None = None  # of the parameters that it was picked with


@dataclass(frozen=True, slots=True)
class PublishedPicks:
    """The rows that outputs hold for one micrograph: (n, 2) `yx_px` and (n,) `score`, the chosen ones."""

    name: str
    yx_px: FloatArray
    score: FloatArray


@dataclass(frozen=True, slots=True)
class OutputLength:
    """How much of an output file is accounted for."""

    length_bytes: int
    dirty: bool  # the file does not hold what the journal says: to be rebuilt


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts of one session; micrographs by the state of their latest generation."""

    waiting: int
    ready: int
    picked: int
    failed: int
    picks: int
    last_recorded_at: float | None
