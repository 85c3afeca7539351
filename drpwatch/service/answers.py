"""What the HTTP API answers, as its schema tells; what is in a session is `control`'s."""

from __future__ import annotations

from dataclasses import dataclass

from drpwatch.service.control import MicrographView, SessionView


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request was refused or failed: one sentence."""

    error: str


@dataclass(frozen=True, slots=True)
class Wellness:
    """The answer of a probe."""

    healthy: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Index:
    """What there is."""

    name: str
    version: str
    routes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sessions:
    """All sessions."""

    sessions: tuple[SessionView, ...]


@dataclass(frozen=True, slots=True)
class Micrographs:
    """Micrographs of a session."""

    micrographs: tuple[MicrographView, ...]
