"""The life of a session: its states, and which verb leads from where to where.

    created ──start──> waiting ──found──> running <──pause/resume──> paused
                          │                  │                         │
                          └─────── stop ─────┴──────────stop───────────┘
                                             v
    waiting <──reopen── completed <──drained── draining          any ──fail──> failed ──reopen──> waiting

Pure: the journal makes each step a row, the service decides when to take it.
"""

from __future__ import annotations

from enum import StrEnum

from drpwatch.errors import SessionError


class SessionState(StrEnum):
    """Where a session stands."""

    CREATED = "created"  # in the journal, nothing else done yet
    WAITING = "waiting"  # watching, nothing found yet
    RUNNING = "running"
    PAUSED = "paused"  # finds files, picks none
    DRAINING = "draining"  # takes nothing new, finishes what it has
    COMPLETED = "completed"
    FAILED = "failed"  # cannot go on; the last transition says why


class Verb(StrEnum):
    """What can happen to a session."""

    START = "start"
    FOUND = "found"  # the first micrograph was seen
    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    DRAINED = "drained"  # nothing is left to finish
    FAIL = "fail"
    REOPEN = "reopen"


_S, _V = SessionState, Verb

TRANSITIONS: dict[tuple[SessionState, Verb], SessionState] = {
    (_S.CREATED, _V.START): _S.WAITING,
    (_S.WAITING, _V.FOUND): _S.RUNNING,
    (_S.WAITING, _V.PAUSE): _S.PAUSED,
    (_S.RUNNING, _V.PAUSE): _S.PAUSED,
    (_S.PAUSED, _V.RESUME): _S.RUNNING,
    (_S.WAITING, _V.STOP): _S.DRAINING,
    (_S.RUNNING, _V.STOP): _S.DRAINING,
    (_S.PAUSED, _V.STOP): _S.DRAINING,
    (_S.DRAINING, _V.DRAINED): _S.COMPLETED,
    (_S.COMPLETED, _V.REOPEN): _S.WAITING,
    (_S.FAILED, _V.REOPEN): _S.WAITING,
} | {(state, _V.FAIL): _S.FAILED for state in _S if state is not _S.FAILED}

WATCHING = frozenset({_S.WAITING, _S.RUNNING, _S.PAUSED, _S.DRAINING})
"""States in which files are looked at; a draining session looks only at those it knows."""

PICKING = frozenset({_S.WAITING, _S.RUNNING, _S.DRAINING})
"""States in which ready micrographs are picked."""

ACTIVE = frozenset({_S.CREATED}) | WATCHING
"""States in which a session owns its output directory."""


def advance(state: SessionState, verb: Verb) -> SessionState:
    """Return the state that `verb` leads to.

    Raises
    ------
    SessionError
        The verb means nothing in this state; the text says what is possible.
    """
    try:
        return TRANSITIONS[state, verb]
    except KeyError:
        raise SessionError(_refusal(state, verb)) from None


def _refusal(state: SessionState, verb: Verb) -> str:
    """Say why a verb is refused and what a user can do instead."""
    by_user = {_V.PAUSE, _V.RESUME, _V.STOP, _V.REOPEN}
    possible = sorted(v for (s, v) in TRANSITIONS if s is state and v in by_user)
    instead = f"; possible now: {', '.join(possible)}" if possible else ""
    return f"cannot {verb} a session that is {state}{instead}"
