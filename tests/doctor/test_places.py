"""Directories: there or not, on which file system, open to us, with room."""

import os
import threading
from pathlib import Path

import pytest

from drpwatch.doctor import places
from drpwatch.session.journal import Journal


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places.disk, "free_bytes", lambda _: 1_000_000_000)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be written, as root cannot find out otherwise."""
    monkeypatch.setattr(places.os, "access", lambda *_: False)


@pytest.fixture
def on_nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "filesystem_type", lambda _: "nfs4")


def state(directory: Path) -> list[tuple[str, str]]:
    return [(check.name, check.level.value) for check in places.check_state(directory)]


def test_a_state_directory_that_is_well(tmp_path: Path) -> None:
    Journal(tmp_path / "journal.db").close()
    assert state(tmp_path) == [("state directory", "ok"), ("journal", "ok")]
    assert state(tmp_path / "not/there/yet") == [("state directory", "ok")]


@pytest.mark.usefixtures("small_disk")
def test_a_small_disk_is_told(tmp_path: Path) -> None:
    assert state(tmp_path)[0] == ("state directory", "warn")
    assert places.check_output(tmp_path).level == "warn"


@pytest.mark.usefixtures("on_nfs")
def test_a_network_file_system_is_for_data_not_for_the_state(tmp_path: Path) -> None:
    assert state(tmp_path) == [("state directory", "fail")]
    check = places.check_watch_root(tmp_path)
    assert (check.level, "found by scans alone" in check.found) == ("ok", True)
    assert places.check_output(tmp_path).level in ("ok", "warn")


@pytest.mark.usefixtures("closed")
def test_what_is_closed_to_us(tmp_path: Path) -> None:
    assert state(tmp_path) == [("state directory", "fail")]
    assert state(tmp_path / "missing") == [("state directory", "warn")]  # systemd makes it
    assert places.check_output(tmp_path / "s1").found == f"{tmp_path / 's1'}: permission denied"


def test_a_journal_that_the_daemon_would_refuse(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"no database at all" * 100)
    assert state(tmp_path)[1] == ("journal", "fail")
    assert (tmp_path / "journal.db").read_bytes() == b"no database at all" * 100


def test_a_file_server_that_is_silent_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silence = threading.Event()
    monkeypatch.setattr(places, "PATIENCE_S", 0.1)
    monkeypatch.setattr(places, "filesystem_type", lambda _: str(silence.wait(300)))
    for check in (places.check_watch_root(tmp_path), places.check_output(tmp_path)):
        assert check.found == f"{tmp_path}: its file system does not answer within 0.1 s"
    silence.set()


def test_a_watch_root_that_is_missing_or_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing", tmp_path / "file"):
        assert places.check_watch_root(path).level == "fail"


def test_an_output_that_is_mounted_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(tmp_path)

    class ReadOnly:
        f_flag = real.f_flag | os.ST_RDONLY

    monkeypatch.setattr(places.os, "statvfs", lambda _: ReadOnly)
    assert places.check_output(tmp_path).found.endswith("mounted read-only")
