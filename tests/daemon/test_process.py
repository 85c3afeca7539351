"""The process itself: starting, refusing to start, systemd, signals, memory."""

import os
import shutil
import signal
import socket
import stat
from contextlib import closing
from pathlib import Path

import pytest

from drpwatch.cli import main
from tests.daemon.rig import Rig
from tests.support import PATIENCE, eventually


def refused(rig: Rig, code: int, sentence: str) -> None:
    rig.start(wait=False)
    rig.ends(code)
    last = rig.log.read_text().splitlines()[-1]
    assert last.startswith("drpwatch: "), last
    assert sentence in last


def test_a_second_daemon_on_the_same_state_is_refused(rig: Rig, tmp_path: Path) -> None:
    rig.start()
    assert rig.process is not None
    other = Rig.__new__(Rig)
    other.__dict__.update(rig.__dict__, log=tmp_path / "other.log", process=None)
    refused(other, 1, f"another daemon (pid {rig.process.pid}) uses {rig.root / 'state'}")


def test_with_an_older_copy_of_the_journal_what_came_since_is_picked_again(rig: Rig) -> None:
    """As after a downgrade: README tells to keep a copy of the state from before the upgrade."""
    rig.start()
    rig.start_session()
    rig.write("a.mrc", 1)
    rig.picked(1)
    assert rig.stop() == 0
    shutil.copytree(rig.root / "state", rig.root / "copy")
    rig.start()
    rig.write("b.mrc", 2)
    rig.picked(2)
    assert rig.stop() == 0
    shutil.rmtree(rig.root / "state")
    (rig.root / "copy").rename(rig.root / "state")
    rig.start()
    rig.picked(2)
    rig.check({"a.mrc": 1, "b.mrc": 2})


def test_a_port_in_use_is_refused(rig: Rig) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", rig.port))
        taken.listen()
        refused(rig, 78, f"daemon.http_port: 127.0.0.1:{rig.port} cannot be bound: address already in use")
    assert not rig.socket.exists()


def test_a_damaged_journal_is_refused(rig: Rig) -> None:
    (rig.root / "state").mkdir()
    (rig.root / "state/journal.db").write_bytes(b"no database at all" * 100)
    refused(rig, 1, "damaged (file is not a database); it was left as it is")


def test_what_a_killed_daemon_left_is_no_obstacle(rig: Rig) -> None:
    rig.start()
    rig.kill()
    assert rig.socket.exists()
    rig.start()
    assert stat.S_IMODE(rig.socket.stat().st_mode) == 0o660
    assert rig.stop() == 0
    assert not rig.socket.exists()


def test_systemd_is_told(rig: Rig, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE * 10)
        device = tmp_path / "device"
        rig.start(
            "--there-with",
            str(device),
            environment={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"},
        )
        messages: list[str] = []

        def told(what: str) -> bool:
            messages.append(manager.recv(4096).decode())
            return what in messages[-1]

        eventually(
            lambda: told("STATUS=not picking: the fake device is not there yet"), 10, "why it is not ready"
        )
        assert rig.process is not None
        rig.process.send_signal(signal.SIGHUP)
        eventually(lambda: told("RELOADING=1"), 5, "reloading")
        eventually(lambda: rig.events("reloaded"), 5, "reloaded")
        device.touch()
        eventually(lambda: told("READY=1"), 10, "ready")
        assert "not picking" not in messages[-1]  # a reload before it is no readiness
        assert any("EXTEND_TIMEOUT_USEC" in message for message in messages)
        messages.clear()
        eventually(lambda: told("WATCHDOG=1"), 2, "the watchdog is fed")
        rig.process.send_signal(signal.SIGHUP)
        eventually(lambda: told("RELOADING=1"), 5, "reloading")
        eventually(lambda: told("READY=1"), 5, "ready again")
        assert rig.stop() == 0
        eventually(lambda: told("STOPPING=1"), 5, "stopping")


def test_a_reload_takes_what_it_can_and_names_what_needs_a_restart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(Rig(tmp_path, settle_s=3600)) as slow:
        slow.start()
        slow.start_session()
        slow.write("a.mrc", 1)
        eventually(lambda: slow.counts()["waiting"] == 1, 10, "it settles, for an hour")

        text = slow.config.read_text()
        port = f"http_port = {slow.port}"
        changed = text.replace("settle_s = 3600", "settle_s = 0.2").replace(port, "http_port = 1")
        slow.config.write_text(
            changed.replace("[daemon]", '[daemon]\nlog_level = "debug"')
            + "[profile.krios]\nthreshold = 0.3\n"
        )
        slow.reload()
        (event,) = eventually(lambda: slow.events("reloaded"), 5, "reloaded")
        assert event["needs_restart"] == ["daemon.http_port"]
        slow.picked(1)
        slow.check({"a.mrc": 1})
        assert slow.events("micrograph_ready"), "a debug event"
        assert slow.start_session("s2", profile="krios")["params"]["threshold"] == 0.3
        assert main(["session", "list", "--socket", str(slow.socket)]) == 0
        assert "! the daemon needs a restart to take daemon.http_port" in capsys.readouterr().out
        waiting = "drpwatch_config_needs_restart 1.0"
        eventually(lambda: waiting in slow.get("/metrics")[1], 5, "a metric tells")

        slow.config.write_text("[daemon]\nnonsense = 1\n")
        slow.reload()
        eventually(lambda: slow.events("reload_failed"), 5, "refused")
        assert "daemon.nonsense: no such key" in " ".join(slow.control.daemon()["notices"])
        failed = "drpwatch_config_reload_failed 1.0"
        eventually(lambda: failed in slow.get("/metrics")[1], 5, "a metric tells")
        slow.write("b.mrc", 2)
        slow.picked(2)


def test_stopping_does_not_wait_for_a_slow_micrograph(rig: Rig) -> None:
    with closing(Rig(rig.root, stop_timeout_s=1.0)) as slow:
        slow.start("--pick-s", "600")
        slow.start_session()
        slow.write("a.mrc", 1)
        eventually(lambda: slow.on_device("a.mrc"), 5, "it is on the device")
        assert slow.stop(within_s=6) == 0
        assert slow.events("stopped_at_once")
        slow.start()
        slow.picked(1)


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_memory_and_descriptors_stay_flat_over_500_micrographs(rig: Rig) -> None:
    rig.start()
    rig.start_session()
    assert rig.process is not None
    measured, descriptors = [], []
    for batch in range(5):
        for n in range(100):
            rig.write(f"mic_{batch}_{n}.mrc", n)
        rig.picked(100 * (batch + 1), within_s=40)
        measured.append(resident_mib(rig.process.pid))
        descriptors.append(len(os.listdir(f"/proc/{rig.process.pid}/fd")))
    print("MiB resident after each 100:", [round(size, 1) for size in measured])
    assert measured[-1] - measured[0] < 6
    assert max(descriptors) - descriptors[0] < 5, descriptors  # one more or less in use at the moment
