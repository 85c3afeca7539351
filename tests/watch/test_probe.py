"""One look at real files of every kind."""

import errno
import gzip
import os

import numpy as np
import pytest

from drpwatch.errors import IncompleteMicrograph, UnusableMicrograph
from drpwatch.formats import mrc
from drpwatch.watch import probe as probe_module
from drpwatch.watch.probe import probe
from tests.watch.conftest import unprivileged


def test_whole_micrograph(put) -> None:
    path = put("a.mrc")
    seen = probe(path)
    assert seen.problem is None
    assert seen.header.shape_yx == (8, 12)
    assert seen.fingerprint == mrc.fingerprint(path.stat())


@pytest.mark.parametrize("size_bytes", [0, 4, 1023, 1024, 1030, 1407])
def test_every_shorter_file_is_incomplete(put, whole_bytes, size_bytes) -> None:
    seen = probe(put("a.mrc", whole_bytes[:size_bytes]))
    assert isinstance(seen.problem, IncompleteMicrograph)
    assert seen.fingerprint.size_bytes == size_bytes
    assert (seen.header is None) == (size_bytes < 1024)
    assert f"{size_bytes} of {1024 if size_bytes < 1024 else 1408} bytes" in str(seen.problem)


def test_longer_file_is_whole(put, whole_bytes) -> None:
    assert probe(put("a.mrc", whole_bytes + b"tail")).problem is None


@pytest.mark.parametrize(
    "content", [np.random.default_rng(3).bytes(5000), b"II*\0" + bytes(4000), b"\xff" * 3000]
)
def test_other_content_is_unusable(put, content) -> None:
    seen = probe(put("a.mrc", content))
    assert isinstance(seen.problem, UnusableMicrograph)
    assert seen.fingerprint is not None


def test_file_allocated_whole_is_incomplete_until_its_last_row_is_there(put, whole_bytes) -> None:
    for written in (1024, 1100, 1408 - 48):
        seen = probe(put("a.mrc", whole_bytes[:written].ljust(len(whole_bytes), b"\0")))
        if written == 1024:  # nothing but zeros: blank, which is the picker's to judge
            assert seen.problem is None
        else:
            assert str(seen.problem) == "the last row is all zeros: the file is still being filled"
            assert seen.fingerprint is not None


def test_compressed(put, whole_bytes) -> None:
    packed = gzip.compress(whole_bytes)
    assert probe(put("a.mrc.gz", packed)).problem is None
    assert isinstance(probe(put("b.mrc.gz", packed[:30])).problem, IncompleteMicrograph)


def test_things_that_are_no_files_have_no_fingerprint(root) -> None:
    (root / "dir.mrc").mkdir()
    os.mkfifo(root / "fifo.mrc")
    (root / "loop.mrc").symlink_to("loop.mrc")
    for name, why in [
        ("dir", "directory"),
        ("fifo", "FIFO"),
        ("loop", "symbolic links"),
        ("none", "No such file"),
    ]:
        seen = probe(root / f"{name}.mrc")
        assert why in str(seen.problem)
        assert seen.fingerprint is None


def test_file_without_permission(put) -> None:
    path = put("a.mrc")
    path.chmod(0)
    with unprivileged():
        seen = probe(path)
    assert seen.fingerprint is None
    assert "Permission denied" in str(seen.problem)


def test_read_error_does_not_settle(put, monkeypatch) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    path = put("a.mrc")
    for module in (mrc, probe_module):
        with monkeypatch.context() as patch:
            patch.setattr(module.os, "pread", fail)
            seen = probe(path)
        assert seen.fingerprint is None
        assert str(seen.problem) == "cannot be read now: Input/output error"


def test_descriptors_are_closed(put, whole_bytes) -> None:
    paths = [put("a.mrc"), put("b.mrc", b""), put("c.mrc", b"junk" * 999), put("d.mrc", whole_bytes[:1100])]
    before = len(os.listdir("/proc/self/fd"))
    for path in paths:
        probe(path)
    assert len(os.listdir("/proc/self/fd")) == before
