"""Storage that lies, fails, hangs or goes away, under the real process."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from drpwatch.errors import DrpwatchError
from drpwatch.service import desk
from drpwatch.service.reads import HANGS_AFTER_S
from tests.daemon.file_server import FileServer, can_mount, mount, unmount
from tests.daemon.rig import Rig
from tests.support import eventually

mounting = pytest.mark.skipif(not can_mount(), reason="may not mount file systems")

UNCHANGED_S = 1.0  # several scans


@contextmanager
def serving(rig: Rig, session: str = "s1") -> Iterator[FileServer]:
    """Let a file server of ours serve the watch directory; what is written to `backing` appears there."""
    backing, target = rig.root / f"backing-{session}", rig.watch_dir(session)
    backing.mkdir()
    target.mkdir(parents=True)
    with FileServer(backing, target) as server:
        yield server


def put(rig: Rig, server: FileServer, name: str, seed: int) -> None:
    """Copy a whole micrograph to the server, by another way than the mount."""
    rig.write(name, seed, session="elsewhere")
    beside = server.backing / f".{Path(name).name}"
    shutil.copy(rig.watch_dir("elsewhere") / name, beside)
    (server.backing / name).parent.mkdir(parents=True, exist_ok=True)
    beside.rename(server.backing / name)


def problems(rig: Rig, name: str = "s1") -> str:
    return " ".join(rig.control.session(name)["problems"])


@mounting
def test_a_server_that_does_not_answer_holds_up_its_own_session_alone(rig: Rig) -> None:
    rig.start()
    with serving(rig) as server:
        rig.start_session("s1")
        rig.start_session("s2")
        put(rig, server, "a.mrc", 1)
        rig.picked(1, "s1")
        assert rig.control.session("s1")["no_events"] == (
            f"{rig.watch_dir('s1')} is on fuse.sshfs, where other machines' writes cause no events"
        )
        assert rig.control.session("s2")["no_events"] is None
        page = rig.get("/metrics")[1]
        assert 'drpwatch_watch_events{session="s1"} 0.0' in page
        assert 'drpwatch_watch_events{session="s2"} 1.0' in page
        assert 'drpwatch_found_total{by="scan"} 1.0' in page
        server.hang()
        for number in range(3):
            rig.write(f"{number}.mrc", number, session="s2")
            rig.picked(number + 1, "s2", within_s=5)
        put(rig, server, "born later/late.mrc", 2)
        time.sleep(UNCHANGED_S)
        assert rig.counts("s1") == {"waiting": 0, "ready": 0, "picked": 1, "failed": 0}
        assert rig.get("/livez")[0] == 200
        rig.start_session("s3")  # the other sessions can be changed, too
        rig.control.change("s2", "stop")
        eventually(lambda: rig.control.session("s2")["state"] == "completed", 20, "completed")
        server.mend()
        rig.picked(2, "s1", within_s=5)
        rig.check({"a.mrc": 1, "born later/late.mrc": 2}, "s1")


@mounting
def test_files_that_cannot_be_read_to_their_end_hold_up_their_own_session_alone(rig: Rig) -> None:
    rig.start()
    with serving(rig) as server:
        rig.start_session("s1")
        rig.start_session("s2")
        rig.control.change("s1", "pause")
        for number in range(4):  # more than there are loaders
            put(rig, server, f"{number}.mrc", number)
        eventually(lambda: rig.counts("s1")["ready"] == 4, 10, "they are queued")
        server.hang()
        rig.control.change("s1", "resume")
        for number in range(3):
            rig.write(f"{number}.mrc", number, session="s2")
        rig.picked(3, "s2", within_s=HANGS_AFTER_S + 10)
        assert "its file server may not answer" in problems(rig)
        rig.write("at once.mrc", 9, session="s2")
        rig.picked(4, "s2", within_s=5)
        assert rig.get("/livez")[0] == 200
        server.mend()
        rig.picked(4, "s1", within_s=10)
        rig.check({f"{number}.mrc": number for number in range(4)}, "s1")
        eventually(lambda: problems(rig) == "", 5, "no problem any more")


@mounting
def test_a_daemon_stops_though_a_server_does_not_answer(rig: Rig) -> None:
    rig.start()
    with serving(rig) as server:
        rig.start_session()
        put(rig, server, "a.mrc", 1)
        rig.picked(1)
        server.hang()
        time.sleep(UNCHANGED_S)
        assert rig.stop(within_s=6) == 0
        server.mend()
        rig.start()
        put(rig, server, "b.mrc", 2)
        rig.picked(2)
        rig.check({"a.mrc": 1, "b.mrc": 2})


@mounting
def test_outputs_on_a_server_that_does_not_answer_hold_up_their_own_session_alone(rig: Rig) -> None:
    rig.start()
    for session in ("s1", "s2"):
        rig.start_session(session)
        rig.write("a.mrc", 1, session)
        rig.picked(1, session)
    rig.control.change("s1", "pause")
    files = rig.root / "files"
    shutil.copytree(rig.out_dir("s1"), files)
    with FileServer(files, rig.out_dir("s1"), hangs=True) as server:  # from now on it is on a server
        rig.control.change("s1", "resume")
        seeds = {f"{number}.mrc": number for number in range(2 * desk.MOST_HELD)}
        for name, seed in seeds.items():
            rig.write(name, seed, session="s1")
            rig.write(name, seed, session="s2")
        rig.picked(1 + len(seeds), "s2")
        rig.check({"a.mrc": 1, **seeds}, "s2")
        eventually(
            lambda: "its file server may not answer" in problems(rig, "s1"), desk.HANGS_AFTER_S + 10, "told"
        )
        assert rig.counts("s1")["picked"] == 1
        assert problems(rig, "s2") == ""
        assert (rig.get("/livez")[0], rig.get("/readyz")[0]) == (200, 503)
        eventually(lambda: rig.metric('drpwatch_output_writable{session="s1"}') == 0.0, 5, "the metric")
        assert rig.metric('drpwatch_output_writable{session="s2"}') == 1.0
        rig.write("at once.mrc", 9, session="s2")
        rig.picked(2 + len(seeds), "s2")
        server.mend()  # it can be read, and not be written
        eventually(lambda: "cannot write" in problems(rig, "s1"), 20, "another problem")
    rig.picked(1 + len(seeds), "s1")
    rig.check({"a.mrc": 1, **seeds}, "s1")
    eventually(lambda: rig.get("/readyz")[0] == 200, 5, "no problem any more")


@mounting
def test_sessions_start_and_stop_though_the_server_of_others_outputs_does_not_answer(rig: Rig) -> None:
    rig.start()
    for session in ("s1", "s2"):
        rig.start_session(session)
        rig.write("a.mrc", 1, session)
        rig.picked(1, session)
    files = rig.root / "files"
    shutil.copytree(rig.out_dir("s1"), files)
    with FileServer(files, rig.out_dir("s1"), hangs=True):

        def start_there() -> None:
            with suppress(DrpwatchError):  # the server serves what can only be read
                rig.start_session("s3", out_dir=str(rig.out_dir("s1") / "below"))

        there = threading.Thread(target=start_there)
        there.start()
        time.sleep(UNCHANGED_S)
        rig.start_session("s4")
        rig.write("a.mrc", 1, "s4")
        rig.picked(1, "s4")
        rig.control.change("s2", "pause")
        rig.control.set("s4", {"threshold": 0.5})
        with pytest.raises(DrpwatchError, match="is the output directory of session s4"):
            rig.start_session("s5", out_dir=str(rig.out_dir("s4")))
        assert there.is_alive()
    there.join(20)
    assert not there.is_alive()


@mounting
def test_a_daemon_stops_and_starts_though_the_server_of_outputs_does_not_answer(tmp_path: Path) -> None:
    with closing(Rig(tmp_path, stop_timeout_s=1.0)) as rig:
        rig.start()
        rig.start_session("s1")
        rig.start_session("s2")
        rig.write("a.mrc", 1, "s1")
        rig.picked(1, "s1")
        files = rig.root / "files"
        shutil.copytree(rig.out_dir("s1"), files)
        with FileServer(files, rig.out_dir("s1"), hangs=True):
            rig.write("b.mrc", 2, session="s1")
            rig.write("b.mrc", 2, session="s2")
            rig.picked(1, "s2")
            assert rig.stop(within_s=6) == 0
            rig.start()
            rig.write("c.mrc", 3, session="s2")
            rig.picked(2, "s2")
            rig.check({"b.mrc": 2, "c.mrc": 3}, "s2")
            assert rig.stop(within_s=6) == 0
        rig.start()
        rig.picked(2, "s1")
        rig.check({"a.mrc": 1, "b.mrc": 2}, "s1")


@mounting
def test_nothing_is_concluded_from_a_directory_that_fails(rig: Rig) -> None:
    rig.start()
    with serving(rig) as server:
        rig.start_session()
        put(rig, server, "a.mrc", 0)
        put(rig, server, "grid/a.mrc", 100)
        rig.picked(2)
        put(rig, server, "short.mrc", 3)
        os.truncate(server.backing / "short.mrc", 5000)
        eventually(lambda: rig.counts()["waiting"] == 1, 5, "waiting")
        for number, error in enumerate((errno.ESTALE, errno.EIO, errno.EACCES, errno.ENOENT), start=1):
            before = rig.control.session("s1")
            server.fail(error)
            why = f"cannot be read ({os.strerror(error).lower()})"
            eventually(lambda why=why: why in problems(rig), 5, f"it is told: {problems(rig)}")
            assert rig.get("/readyz")[0] == 503
            assert 'drpwatch_watch_root_readable{session="s1"} 0.0' in rig.get("/metrics")[1]
            put(rig, server, f"{number}.mrc", number)
            time.sleep(UNCHANGED_S)
            during = rig.control.session("s1")
            for kept in ("micrographs", "picks", "waiting", "newest", "failed"):
                assert during[kept] == before[kept]
            server.mend()
            rig.picked(2 + number, within_s=5)
            eventually(lambda: problems(rig) == "", 5, "no problem any more")
        assert rig.get("/readyz")[0] == 200
        rig.check({"a.mrc": 0, "grid/a.mrc": 100, **{f"{number}.mrc": number for number in range(1, 5)}})


@mounting
def test_an_unmounted_directory_is_waited_for_also_by_the_next_daemon(rig: Rig) -> None:
    rig.start()
    server = rig.root / "server"
    server.mkdir()
    rig.watch_dir().mkdir(parents=True)
    mount("tmpfs", server, "tmpfs", "size=4m")
    try:
        _bind(server, rig.watch_dir())
        rig.start_session()
        rig.write("a.mrc", 1)
        rig.picked(1)
        unmount(rig.watch_dir())
        eventually(lambda: "seems to be unmounted" in problems(rig), 5, "it is told")
        rig.kill()
        rig.start()
        time.sleep(UNCHANGED_S)
        assert rig.counts()["picked"] == 1
        _bind(server, rig.watch_dir())
        rig.write("b.mrc", 2)
        rig.picked(2)
        eventually(lambda: problems(rig) == "", 5, "no problem any more")
        rig.check({"a.mrc": 1, "b.mrc": 2})
    finally:
        unmount(rig.watch_dir())
        unmount(server)


def _bind(source: Path, target: Path) -> None:
    mount(str(source), target, "bind")
