"""What holds for every test.

Property tests draw their examples afresh on a developer's machine, and always the same ones in CI. The files are
shared among two processes, each file in one of them; a file alone runs in this one, as everything does with `-s`
and `-n 0`.
"""

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import settings

from drpwatch.cores import share_cores

share_cores()  # before a test imports PyTorch

settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("dev", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # in the background of a shell; children would ignore it, too
    signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" in os.environ:  # else each of two, and each daemon, would use all cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes share the tests; what is printed is seen of this one alone."""
    alone = len(config.args) == 1 and ".py" in config.args[0]
    return 0 if alone or config.option.capture == "no" else 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse tests that have one id together: two processes would run the first of them again and again."""
    for nodeid, count in Counter(item.nodeid for item in items).items():
        if count > 1:
            raise pytest.UsageError(f"{nodeid}: {count} tests have this id")


@pytest.fixture(autouse=True)
def _subnormal_numbers() -> Iterator[None]:
    """Undo what a picker on the CPU sets for its thread: hypothesis draws numbers that it would call 0."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_flush_denormal(False)
