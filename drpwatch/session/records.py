"""What the journal holds, as frozen rows: sessions, micrographs, output files."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
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
class PinnedWeights:
    """What a model's name stood for when it was given to a session."""

    sha256: str
    threshold: float  # the default that they carry


@dataclass(frozen=True, slots=True)
class ParamsVersion:
    """One version of a session's parameters."""

    id: int
    version: int  # 1, 2, ... in each session
    params: PickParams
    weights: PinnedWeights | None  # None: from before weights were pinned, or of `drpwatch pick`
    created_at: float

    def picks_like(self, other: ParamsVersion) -> bool:
        """Tell whether both find the same candidates: the threshold cuts them afterwards."""
        mine, theirs = self.params, other.params
        if self.weights is not None and other.weights is not None:
            if self.weights.sha256 != other.weights.sha256:
                return False
            mine = replace(mine, model=theirs.model)  # two names of the same weights
        return replace(mine, threshold=None) == replace(theirs, threshold=None)

    def threshold_for(self, picked_with: ParamsVersion) -> float | None:
        """Return where candidates of another version are cut under this one; None if that is not known."""
        if self.params.threshold is not None:
            return self.params.threshold
        return None if picked_with.weights is None else picked_with.weights.threshold


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One session as journalled. Times are unix seconds."""

    id: int
    spec: SessionSpec  # with the parameters in force
    params: ParamsVersion  # in force
    state: SessionState
    reason: str | None  # of the last change of state
    pixel_size_angstrom: float | None  # of the outputs: the user's, else that of the first header
    created_at: float
    changed_at: float
    expected_end_at: float | None = None
    backfill: str = "all"  # which of the files that were there at the start are picked, for people to read

    @property
    def params_id(self) -> int:
        """Of the parameters in force."""
        return self.params.id


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
    params_version: int | None = None
    outdated: bool = False  # picked with other parameters or weights than those in force
    source_missing: bool = False  # its file is not there any more


class CrashKind(StrEnum):
    """How a daemon can end that nobody asked to."""

    SIGNAL = "signal"  # killed by what it did, such as a segmentation fault
    DEVICE = "device"  # the device failed for good
    TIME_LIMIT = "time_limit"  # a micrograph took too long
    CANARY = "canary"  # the device picked otherwise than before
    KILLED = "killed"  # it left no word: kill -9, no memory left, a power cut


@dataclass(frozen=True, slots=True)
class Suspect:
    """A micrograph that was on a device when the process ended."""

    micrograph_id: int
    name: str


@dataclass(frozen=True, slots=True)
class Crash:
    """How an earlier process ended, and what it may have died of: with several devices, one of several."""

    kind: CrashKind
    reason: str
    suspects: tuple[Suspect, ...] = ()


@dataclass(frozen=True, slots=True)
class PublishedPicks:
    """The rows that outputs hold for one micrograph: (n, 2) `yx_px` and (n,) `score`, the chosen ones."""

    micrograph_id: int
    name: str
    threshold: float
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
    sources_missing: int = 0  # of the recorded ones, those whose file is not there any more


@dataclass(frozen=True, slots=True)
class MedianPicks:
    """Medians of the picks per micrograph that the outputs of a session hold."""

    newest: float  # of those recorded last
    all: float
