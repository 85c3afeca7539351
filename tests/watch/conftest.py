"""Files as microscopes, copies and accidents leave them."""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from drpwatch.formats.mrc import write_mrc

NOBODY = 65534


@pytest.fixture
def root() -> Iterator[Path]:
    """A watch root that other users can enter (pytest's own directories are closed to them)."""
    with tempfile.TemporaryDirectory(prefix="drpwatch-test-") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


@pytest.fixture(scope="session")
def crowded_root() -> Iterator[Path]:
    """A root with 20,000 names in 50 directories."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        for grid in range(50):
            (Path(directory) / f"grid{grid}").mkdir()
            for index in range(400):
                path = os.path.join(directory, f"grid{grid}", f"FoilHole_{index:05d}_frames_DW.mrc")
                os.close(os.open(path, os.O_CREAT))
        yield Path(directory)


@pytest.fixture(scope="session")
def whole_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a good 8 x 12 micrograph."""
    path = tmp_path_factory.mktemp("whole") / "m.mrc"
    write_mrc(path, np.random.default_rng(1).normal(size=(8, 12)).astype(np.float32), 1.5)
    return path.read_bytes()


@pytest.fixture
def put(root: Path, whole_bytes: bytes) -> Callable[..., Path]:
    """Write a micrograph, or given bytes, under a name below the root."""

    def write(name: str, content: bytes | None = None) -> Path:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(whole_bytes if content is None else content)
        return path

    return write


def best_cpu_s(call: Callable[[], object]) -> float:
    """Return the processor seconds of the best of three calls; other work shares the machine."""
    seconds = []
    for _ in range(3):
        start_s = time.thread_time()
        call()
        seconds.append(time.thread_time() - start_s)
    return min(seconds)


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Do without root's right to read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
