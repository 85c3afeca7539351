"""Helpers for tests of every part."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(check: Callable[[], T], within_s: float, what: str) -> T:
    """Return the first truthy result of `check`; fail by name when there is none in time."""
    deadline = time.monotonic() + within_s
    while True:
        result = check()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {what} (last: {result!r})")
        time.sleep(0.01)
