"""What holds for every test.

Property tests draw their examples afresh on a developer's machine, and always the same ones in CI.
"""

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from drpwatch.cores import share_cores

share_cores()  # before a test imports PyTorch

settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("dev", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(autouse=True)
def _subnormal_numbers() -> Iterator[None]:
    """Undo what a picker on the CPU sets for its thread: hypothesis draws numbers that it would call 0."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_flush_denormal(False)
