"""The unit that `drpwatch deploy` writes, run by a real systemd."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drpwatch.formats import mrc
from tests.daemon.container import Container, unavailable
from tests.daemon.rig import free_port
from tests.support import eventually

MISSING = unavailable()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

CONFIG = "[daemon]\\nhttp_port = {port}\\n[watch]\\npoll_interval_s = 0.3\\nsettle_s = 0.3\\n"
QUICK = "[Service]\\nWatchdogSec=4\\nTimeoutAbortSec=1\\nRestartSec=100ms\\n"
"""For a test that does not wait a minute for the watchdog."""
FAKE = "ExecStart=\\nExecStart=/opt/drpwatch/bin/python3 -m tests.daemon.fake_daemon /etc/drpwatch/config.toml\\n"
"""Where it does not matter what picks, and PyTorch need not be loaded at each start."""


class Service:
    """drpwatch, deployed in a container as its own output says."""

    def __init__(self, container: Container, data: Path, more: str) -> None:
        self.container = container
        self.data = data
        self.run = container.run
        self.show = container.show
        self.run("mkdir", "/etc/drpwatch")
        self.port = free_port()  # the container has this machine's network
        self.put("/etc/drpwatch/config.toml", CONFIG.format(port=self.port))
        answer = json.loads(self.run("drpwatch", "deploy", "/root/dep", "--writes", "/data/picked", "--json"))
        copy, users, enable, self.reload = next(iter(answer["steps"].values()))
        self.run("sh", "-c", copy)
        self.run("sh", "-c", users)
        self.run("install", "-d", "-o", "drpwatch", "/data/picked", "/data/closed")
        self.put("/etc/systemd/system/drpwatch.service.d/test.conf", QUICK + more)
        self.run("sh", "-c", enable)

    def put(self, path: str, text: str) -> None:
        self.run("sh", "-c", f"printf '{text}' > {path}")

    def start_session(self, out_dir: str) -> None:
        start = ["session", "start", "s1", "--watch", "/data/mics", "--diameter-angstrom", "150"]
        self.run("drpwatch", *start, "--out", out_dir)

    def write(self, name: str) -> None:
        (self.data / "mics").mkdir(exist_ok=True)
        random = np.random.default_rng(len(name)).normal(100, 10, (256, 256))
        mrc.write_mrc(self.data / f".{name}", random.astype(np.float32), 4.0)
        (self.data / f".{name}").rename(self.data / "mics" / name)

    def picked(self, count: int) -> None:
        eventually(lambda: self.count() == count, 60, f"{count} picked")

    def count(self) -> int:
        address = f"http://127.0.0.1:{self.port}/api/v1/sessions/s1"
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return int(json.load(answer)["micrographs"]["picked"])
        except OSError:
            return -1

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = self.run("journalctl", "--unit=drpwatch", "--output=cat").splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return [one for one in events if one["event"] == event]

    def restarted(self, times: int) -> None:
        def well_again() -> bool:
            return (self.show("NRestarts"), self.show("SubState")) == (str(times), "running")

        eventually(well_again, 60, f"restarted {times} times")


@pytest.fixture
def service(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Service]:
    data = tmp_path / "data"
    data.mkdir()
    container = Container(tmp_path / "scratch", data)
    try:
        yield Service(container, data, request.param)
    finally:
        container.close()


@pytest.mark.parametrize("service", [""], ids=["real"], indirect=True)
def test_it_picks_with_what_the_unit_leaves_it(service: Service) -> None:
    # `systemctl enable --now` came back when the model was warm.
    assert (service.show("ActiveState"), service.show("SubState")) == ("active", "running")
    assert service.show("StatusText") == "0 sessions, 0 micrographs picked, 0 to pick"
    process = service.run("cat", f"/proc/{service.show('MainPID')}/status")
    user = service.run("id", "-u", "drpwatch")
    assert f"Uid:\t{user}\t{user}" in process
    assert "NoNewPrivs:\t1" in process
    assert "Seccomp:\t2" in process
    assert "CapBnd:\t0000000000000000" in process

    service.write("a.mrc")
    with pytest.raises(AssertionError, match=r"read-only file system.*drpwatch deploy.*--writes"):
        service.start_session("/data/closed/s1")
    service.start_session("/data/picked/s1")
    service.picked(1)
    assert (service.data / "picked/s1/particles.star").stat().st_size > 0

    doctor = ["/opt/drpwatch/bin/drpwatch", "doctor", "--json"]
    answer = json.loads(service.run("runuser", "-u", "drpwatch", "--", *doctor))
    found = {check["name"]: check["level"] for check in answer["checks"]}
    for name in ("daemon", "port", "watch root", "journal", "user"):
        assert found[name] == "ok", answer

    service.run("systemctl", "stop", "drpwatch")
    assert (service.show("ActiveState"), service.show("Result")) == ("inactive", "success")
    assert service.run("ls", "/run/drpwatch", check=False) == ""


@pytest.mark.parametrize("service", [FAKE], ids=["fake"], indirect=True)
def test_a_session_goes_on_through_a_reload_a_crash_and_a_hang(service: Service) -> None:
    service.start_session("/data/picked/s1")
    service.run("sh", "-c", service.reload)
    eventually(lambda: service.logged("reloaded"), 10, "the configuration was read again")
    assert service.show("ActiveState") == "active"
    service.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "drpwatch")
    service.restarted(1)
    service.write("a.mrc")
    service.picked(1)
    service.run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", "drpwatch")
    service.restarted(2)
    assert "Watchdog timeout" in service.run("journalctl", "--unit=drpwatch")
    service.write("bb.mrc")
    service.picked(2)

    # A wrong configuration is told once, and not tried again and again.
    service.put("/etc/drpwatch/config.toml", "[daemon]\\nnonsense = 1\\n")
    service.run("systemctl", "restart", "drpwatch", check=False)
    assert (service.show("ActiveState"), service.show("ExecMainStatus")) == ("failed", "78")
    assert service.show("NRestarts") == "0"
    assert "daemon.nonsense: no such key" in service.run("journalctl", "--unit=drpwatch")
