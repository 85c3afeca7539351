"""What a reload takes, and what it names as waiting for a restart."""

import re
from pathlib import Path

import pytest

from drpwatch.config import Config, Profile, load_config
from drpwatch.errors import ConfigError
from drpwatch.service.settings import RELOADABLE, Settings

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text("")
    return path


@pytest.fixture
def settings(file: Path) -> Settings:
    return Settings(load_config(file), file)


def test_what_can_change_does_and_the_rest_is_named(settings: Settings, file: Path) -> None:
    file.write_text(
        '[daemon]\nlog_level = "debug"\nhttp_port = 9999\n'
        "[watch]\nsettle_s = 9\n"
        '[pick]\ndevice = "cpu"\nnewest_first_beyond = 3\n'
        "[profile.krios]\nthreshold = 0.3\n"
    )
    profiles = settings.profiles
    settings.reload()
    config = settings.config
    assert (config.daemon.log_level, config.watch.settle_s, config.pick.newest_first_beyond) == (
        "debug",
        9.0,
        3,
    )
    assert (config.daemon.http_port, config.pick.device) == (9478, "auto")
    assert dict(profiles) == {"krios": Profile(threshold=0.3)}
    assert settings.notices == ("the daemon needs a restart to take daemon.http_port, pick.device",)
    file.write_text('[daemon]\nlog_level = "debug"\n')  # somebody thought better of it
    settings.reload()
    assert settings.notices == ()
    assert dict(profiles) == {}


def test_a_wrong_file_changes_nothing_and_stays_told(settings: Settings, file: Path) -> None:
    file.write_text('[daemon]\nlog_level = "debug"\nnonsense = 1\n[watch]\nsettle_s = "x"\n')
    with pytest.raises(ConfigError):
        settings.reload()
    assert settings.config == Config()
    (notice,) = settings.notices
    assert notice.startswith("the configuration is as before its last change: ")
    assert "daemon.nonsense: no such key" in notice
    assert "\n" not in notice
    file.write_text("")
    settings.reload()
    assert settings.notices == ()


def test_without_a_file_the_default_one_is_read_once_it_is_there(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drpwatch.config.DEFAULT_CONFIG", file.with_name("missing.toml"))
    settings = Settings(Config(), None)
    settings.reload()
    assert settings.config == Config()
    file.with_name("missing.toml").write_text("[watch]\nsettle_s = 9\n")
    settings.reload()
    assert settings.config.watch.settle_s == 9.0


def test_reloadable_keys_exist() -> None:
    for section, keys in RELOADABLE.items():
        assert set(keys) <= set(Config.model_fields[section].annotation.model_fields), section
    assert {"profile", *RELOADABLE} == set(Config.model_fields)


def test_the_example_tells_them() -> None:
    head = " ".join(line.lstrip("# ") for line in EXAMPLE.read_text().splitlines() if line.startswith("#"))
    (told,) = re.findall(r"takes changes of (.+?) at once", head)
    keys = {
        f"{section}.{key}"
        for section, names in RELOADABLE.items()
        for key in names
        if f"[{section}]" not in told
    }
    assert set(re.findall(r"\w+\.\w+", told)) == keys
    for section in re.findall(r"\[(\w+)\]", told):
        of_section = Config.model_fields[section].annotation
        if section != "profile":
            assert set(RELOADABLE[section]) == set(of_section.model_fields), section
