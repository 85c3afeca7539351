"""Where a daemon has its state and its socket unless told, by who starts it."""

from pathlib import Path

import pytest

from drpwatch import places
from drpwatch.config import load_config
from drpwatch.places import SERVICE, Places, usual

SCIENTIST = 1001


@pytest.fixture(autouse=True)
def somebody(monkeypatch, tmp_path):
    """An ordinary user with a home, on a host without the service."""
    monkeypatch.setattr("os.geteuid", lambda: SCIENTIST)
    monkeypatch.setattr(places, "SERVICE", Places(tmp_path / "var" / "drpwatch", tmp_path / "run" / "c.sock"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_STATE_HOME", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)


def below(directory: Path) -> Places:
    return Places(directory / "drpwatch", directory / "drpwatch" / "control.sock")


def test_anybody_has_them_below_the_home_directory(tmp_path):
    assert usual() == below(tmp_path / "home/.local/state")


def test_the_home_of_states_can_be_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "scratch"))
    assert usual() == below(tmp_path / "scratch")
    monkeypatch.setenv("XDG_STATE_HOME", "scratch")
    assert usual() == below(tmp_path / "home/.local/state")


@pytest.mark.parametrize("which", ["root", "unit", "state", "socket"])
def test_the_service_s_are_for_root_its_unit_and_its_user(which, monkeypatch):
    if which == "root":
        monkeypatch.setattr("os.geteuid", lambda: 0)
    elif which == "unit":
        monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/drpwatch")
    else:
        directory = places.SERVICE.state_dir if which == "state" else places.SERVICE.socket.parent
        directory.mkdir(parents=True)
    assert usual() == places.SERVICE


def test_who_has_no_home_has_none_of_their_own(monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert usual() == places.SERVICE


def test_a_configuration_has_them_where_it_names_none(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('[daemon]\nsocket = "/there/s"\n')
    daemon = load_config(file).daemon
    assert (daemon.state_dir, daemon.socket) == (usual().state_dir, Path("/there/s"))
    assert load_config(None).daemon.socket == usual().socket
    assert load_config(file, SERVICE).daemon.state_dir == SERVICE.state_dir
