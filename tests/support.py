"""Helpers for tests of every part."""

import io
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

T = TypeVar("T")

PATIENCE = 6.0
"""How many times as long as on an idle machine a test waits: others may have this one, too."""


def eventually(check: Callable[[], T], within_s: float, what: str) -> T:
    """Return the first truthy result of `check`; fail by name when there is none in time.

    `within_s` is that of an idle machine. What promises a time is measured by other means.
    """
    deadline = time.monotonic() + PATIENCE * within_s
    while True:
        result = check()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE * within_s:g} s: {what} (last: {result!r})")
        time.sleep(0.01)


def child_cpu_seconds(run: Callable[[], object]) -> float:
    """Return the CPU time of the processes that `run` starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def half_a_second() -> float:
    """Return the limit of a command's start: more on a machine where the libraries alone take so long."""
    imports = [sys.executable, "-c", "import typer, rich.panel, pydantic"]
    return max(0.5, 3 * min(child_cpu_seconds(lambda: subprocess.run(imports, check=True)) for _ in range(3)))


def grey_values(jpeg: bytes) -> npt.NDArray[np.uint8]:
    """Return the pixels of a picture, (h, w)."""
    with Image.open(io.BytesIO(jpeg)) as image:
        return np.asarray(image.convert("L"))
