"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"  # it works, and may not for long, or not as well as it could
    FAIL = "fail"  # drpwatch cannot do its work like this


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the answer."""

    name: str
    level: Level
    found: str
    advice: str = ""  # what to do; empty where all is well


def ok(name: str, found: str) -> Check:
    """Return a check that found all well."""
    return Check(name, Level.OK, found)


def warn(name: str, found: str, advice: str) -> Check:
    """Return a check that found what may become trouble."""
    return Check(name, Level.WARN, found, advice)


def fail(name: str, found: str, advice: str) -> Check:
    """Return a check that found what keeps drpwatch from its work."""
    return Check(name, Level.FAIL, found, advice)


def gigabytes(size_bytes: float) -> str:
    """Return a size as people say it."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes < 1e11 else f"{size_bytes / 1e9:.0f} GB"
