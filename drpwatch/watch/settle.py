"""The settle rule: which micrographs wait, which are ready, which never will be.

Pure: what was seen and the time come in, a verdict goes out. A micrograph is ready when it is whole
by its own header and two looks at least the settle time apart saw the same fingerprint. Times are
seconds of one monotonic clock; a file's own times are only compared with each other, for servers'
clocks are wrong and copies keep old times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from drpwatch.errors import IncompleteMicrograph, MicrographError
from drpwatch.micrograph import Fingerprint, ImageHeader

FoundBy = Literal["hint", "scan"]


@dataclass(frozen=True, slots=True)
class Probe:
    """What one look at a file's content gave.

    The fingerprint is None when the file could not be opened; the header is None when it could not
    be read or makes no sense; the problem is None when the file is whole.
    """

    fingerprint: Fingerprint | None
    header: ImageHeader | None
    problem: MicrographError | None

    def __post_init__(self) -> None:
        if self.problem is None and (self.fingerprint is None or self.header is None):
            raise ValueError("a whole micrograph has a fingerprint and a header")


@dataclass(frozen=True, slots=True)
class Waiting:
    """Not whole yet, not readable now, or not unchanged for long enough."""

    name: str
    reason: str
    since_s: float  # when it was first looked at, on the monotonic clock


@dataclass(frozen=True, slots=True)
class Ready:
    """Whole and settled: to be picked."""

    name: str
    header: ImageHeader
    fingerprint: Fingerprint
    found_by: FoundBy = "scan"  # what brought its name first


@dataclass(frozen=True, slots=True)
class Rejected:
    """Settled, but no micrograph that can be picked; looked at again when its fingerprint changes."""

    name: str
    reason: str
    fingerprint: Fingerprint


Verdict = Waiting | Ready | Rejected


@dataclass(slots=True)
class _Watched:
    """What is remembered of one name between looks."""

    since_s: float
    changed_s: float  # when this fingerprint was first seen
    fingerprint: Fingerprint | None
    due_s: float | None = None  # when a look can bring a new verdict though nothing changes


class Settler:
    """Turns looks into verdicts; remembers a name until it is ready, rejected or forgotten.

    Parameters
    ----------
    settle_s : float
        How far apart the two equal looks must be.
    incomplete_after_s : float
        How long an incomplete file may stay unchanged before it counts as truncated.
    """

    def __init__(self, settle_s: float, incomplete_after_s: float) -> None:
        self._settle_s = settle_s
        self._incomplete_after_s = incomplete_after_s
        self._watched: dict[str, _Watched] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._watched

    def __len__(self) -> int:
        return len(self._watched)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that wait, in the order in which they were first looked at."""
        return tuple(self._watched)

    def observe(self, name: str, probe: Probe, now_s: float) -> Verdict:
        """Take in one look and return what follows from all looks so far."""
        watched = self._watched.get(name)
        first_look = watched is None or probe.fingerprint is None or watched.fingerprint != probe.fingerprint
        if watched is None:
            watched = self._watched[name] = _Watched(now_s, now_s, probe.fingerprint)
        elif first_look:
            watched.fingerprint, watched.changed_s = probe.fingerprint, now_s
        watched.due_s = None
        problem = probe.problem
        if probe.fingerprint is None:
            return Waiting(name, str(problem), watched.since_s)

        incomplete = isinstance(problem, IncompleteMicrograph)
        enough_s = max(self._settle_s, self._incomplete_after_s) if incomplete else self._settle_s
        watched.due_s = watched.changed_s + enough_s
        if first_look or now_s < watched.due_s:
            return Waiting(name, self._explain(problem), watched.since_s)
        del self._watched[name]
        if problem is None:
            assert probe.header is not None
            return Ready(name, probe.header, probe.fingerprint)
        if incomplete:
            unchanged_s = now_s - watched.changed_s
            return Rejected(
                name, f"truncated: {problem}, unchanged for {unchanged_s:.0f} s", probe.fingerprint
            )
        return Rejected(name, str(problem), probe.fingerprint)

    def _explain(self, problem: MicrographError | None) -> str:
        """Return the reason of waiting; the same while nothing changes, so that it is told once."""
        if problem is None:
            return f"settling: whole, and must stay unchanged for {self._settle_s:g} s"
        if isinstance(problem, IncompleteMicrograph):
            return str(problem)
        # A header that is half written looks like junk.
        return f"settling: {problem}"

    def forget(self, name: str) -> None:
        """Drop what is remembered of a name; a later look begins anew."""
        self._watched.pop(name, None)

    def due_s(self, name: str) -> float | None:
        """Return when a look at this name can bring a new verdict though nothing changes."""
        watched = self._watched.get(name)
        return None if watched is None else watched.due_s

    def next_due_s(self) -> float | None:
        """Return the earliest `due_s` of all names."""
        return min(
            (watched.due_s for watched in self._watched.values() if watched.due_s is not None), default=None
        )
