"""What differs from host to host."""

from pathlib import Path

import pytest

from drpwatch.config import DEFAULT_CONFIG, Config
from drpwatch.deploy.host import Host
from drpwatch.errors import UsageError


def host(writes: tuple[str, ...] = (), user: str = "drpwatch", **daemon: object) -> Host:
    config = Config.model_validate({"daemon": daemon})
    return Host(("/opt/drpwatch/bin/drpwatch",), DEFAULT_CONFIG, config, user, tuple(map(Path, writes)))


def text(of: Host, name: str) -> str:
    (found,) = (file.text for file in of.files() if str(file.path).endswith(name))
    return found


def settings(of: Host, name: str = "host.conf") -> list[str]:
    return [line for line in text(of, name).splitlines() if line and line[0] not in "#["]


def test_a_usual_host_needs_little() -> None:
    assert settings(host()) == [
        "ExecStart=",
        "ExecStart=/opt/drpwatch/bin/drpwatch run",
        "User=drpwatch",
        "Group=",
    ]
    assert settings(host(), "tmpfiles.d/drpwatch.conf") == ["d /etc/drpwatch 0755 root root -"]
    assert settings(host(), "sysusers.d/drpwatch.conf") == ['u drpwatch - "drpwatch" /var/lib/drpwatch -']


def test_where_sessions_write_may_be_missing_and_may_have_spaces() -> None:
    lines = settings(host(("/data/picked", "/mnt/krios 1/50%")))
    assert lines[-2:] == ["ReadWritePaths=-/data/picked", 'ReadWritePaths="-/mnt/krios 1/50%%"']


def test_directories_that_systemd_manages_are_named_as_such() -> None:
    lines = settings(host(state_dir="/var/lib/drp/second", socket="/run/drp/second/control.sock"))
    assert {"StateDirectory=drp/second", "RuntimeDirectory=drp/second"} < set(lines)
    assert not any("ReadWritePaths" in line for line in lines)


def test_other_directories_are_made_and_may_be_written() -> None:
    elsewhere = host(state_dir="/srv/drp", socket="/srv/drp-run/control.sock", user="krios")
    lines = settings(elsewhere)
    assert {"StateDirectory=", "RuntimeDirectory="} < set(lines)
    assert lines[-2:] == ["ReadWritePaths=-/srv/drp", "ReadWritePaths=-/srv/drp-run"]
    assert settings(elsewhere, "tmpfiles.d/drpwatch.conf")[1:] == [
        "d /srv/drp 0750 krios krios -",
        "d /srv/drp-run 0750 krios krios -",
    ]


def test_systemd_waits_for_longer_than_the_daemon() -> None:
    assert "TimeoutStopSec=330" in settings(host(stop_timeout_s=300.0))


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("127.0.0.1", "127.0.0.1:9478"),
        ("0.0.0.0", "127.0.0.1:9478"),
        ("10.1.2.3", "10.1.2.3:9478"),
        ("::1", "[::1]:9478"),
    ],
)
def test_prometheus_finds_it(address: str, target: str) -> None:
    assert f'targets: ["{target}"]' in text(host(http_host=address), "drpwatch.scrape.yml")


@pytest.mark.parametrize("name", ["/data/a\nExecStart=/bin/sh", '/data/"', "/data/$HOME", "/data/\\x20"])
def test_a_path_cannot_become_a_directive(name: str) -> None:
    with pytest.raises(UsageError, match="do not go into a unit"):
        host((name,)).files()


@pytest.mark.parametrize("user", ["", "a b", "x\ny", "%u", "ä"])
def test_a_user_is_a_plain_word(user: str) -> None:
    with pytest.raises(UsageError, match="letters, digits"):
        host(user=user).files()
