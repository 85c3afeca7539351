"""The configuration file: the example, the schema, and how wrong files are refused."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from drpwatch.cli import main
from drpwatch.config import Config, Profile, load_config
from drpwatch.errors import ConfigError
from drpwatch.places import SERVICE

EXAMPLE = Path(__file__).parents[1] / "config.example.toml"


@pytest.fixture
def refused(tmp_path):
    """Return a function that writes a file and returns the refusal."""

    def refuse(text: str | bytes) -> str:
        path = tmp_path / "config.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ConfigError) as caught:
            load_config(path)
        assert all(line.startswith(f"{path}: ") for line in str(caught.value).splitlines())
        return str(caught.value).replace(f"{path}: ", "")

    return refuse


def _schema_keys(model: type[BaseModel]) -> dict[str, list[str]]:
    return {
        name: list(field.annotation.model_fields)
        for name, field in model.model_fields.items()
        if name != "profile"  # of which there is none unless somebody writes one
    }


def _load(path: Path) -> tuple[Config | None, str | None]:
    """Return the configuration, or the refusal."""
    try:
        return load_config(path, SERVICE), None
    except ConfigError as error:
        return None, str(error)


def test_the_example_has_every_key_of_the_schema_in_its_order():
    values = tomllib.loads(EXAMPLE.read_text())
    assert {section: list(keys) for section, keys in values.items()} == _schema_keys(Config)


def test_the_example_loads_and_says_the_defaults():
    assert load_config(EXAMPLE) == Config() == load_config(None, SERVICE)


def test_the_example_has_a_profile_with_every_key(tmp_path):
    text = EXAMPLE.read_text()
    path = tmp_path / "config.toml"
    begin = text.index("# [profile.")
    path.write_text(text[:begin] + text[begin:].replace("# ", ""))
    (profile,) = load_config(path).profile.values()
    assert list(profile.given()) == list(Profile.model_fields)


def test_every_key_of_the_example_has_a_comment_above_it():
    previous = ""
    for line in EXAMPLE.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            assert previous.startswith("#"), line
        previous = line


def test_an_empty_file_gives_the_defaults(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("")
    assert load_config(path, SERVICE) == Config()


@pytest.mark.parametrize(
    ("pick", "devices", "labels"),
    [
        ("", ("auto",), ("auto",)),
        ('device = "cuda:1"\ndevices = []', ("cuda:1",), ("cuda:1",)),
        ('device = "auto"\ndevices = [0, 1]', ("cuda:0", "cuda:1"), ("cuda:0", "cuda:1")),
        ('devices = ["cuda:3", 0]', ("cuda:3", "cuda:0"), ("cuda:3", "cuda:0")),
        ('device = "cuda:1"\ndevices = [1]', ("cuda:1",), ("cuda:1",)),
        ('devices = ["cpu", "cpu", "cpu"]', ("cpu", "cpu", "cpu"), ("cpu", "cpu#2", "cpu#3")),
    ],
)
def test_what_picks(tmp_path, pick, devices, labels):
    path = tmp_path / "config.toml"
    path.write_text(f"[pick]\n{pick}\n")
    config = load_config(path).pick
    assert (config.picking_devices, config.device_labels) == (devices, labels)


def test_values_are_taken(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('[watch]\nsettle_s = 3\n[daemon]\nstate_dir = "/x"\n[pick]\ndevice = "cuda:1"\n')
    config = load_config(path)
    assert (config.watch.settle_s, config.daemon.state_dir, config.pick.device) == (3.0, Path("/x"), "cuda:1")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[watsch]", "watsch: no such key; allowed here: daemon, watch, pick, session, page, profile"),
        (
            "[watch]\npol_seconds = 5",
            "watch.pol_seconds: no such key; "
            "allowed here: poll_interval_s, settle_s, incomplete_after_s, hints, prefer",
        ),
        (
            "[pick.extra]",
            "pick.extra: no such key; allowed here: device, devices, cpu_threads, precision, loaders, model,"
            " newest_first_beyond, time_limit_s, canary_every_s, release_after_s",
        ),
        (
            "[profile.krios]\ndiameter = 3",
            "profile.krios.diameter: no such key; allowed here: pixel_size_angstrom, negative_stain, threshold,"
            " model, glob, micrograph_prefix, backfill",
        ),
        ("[profile]\nkrios = 3", "profile.krios: must be a section, written [profile.krios], not 3"),
        ("daemon = 3", "daemon: must be a section, written [daemon], not 3"),
        ("[[watch]]", "watch: must be a section, written [watch], not [{}]"),
        ("[watch]\nsettle_s = true", "watch.settle_s: Input should be a valid number, not True"),
        ('[watch]\nsettle_s = "5"', "watch.settle_s: Input should be a valid number, not '5'"),
        ("[watch]\nhints = 1", "watch.hints: Input should be a valid boolean, not 1"),
        ("[daemon]\nhttp_port = 9478.0", "daemon.http_port: Input should be a valid integer, not 9478.0"),
        ("[daemon]\nstate_dir = 3", "daemon.state_dir: must be an absolute path in quotes, not 3"),
        ('[daemon]\nstate_dir = ""', "daemon.state_dir: must be an absolute path, not ''"),
        ('[daemon]\nsocket = "run/s"', "daemon.socket: must be an absolute path, not 'run/s'"),
        ('[daemon]\nsocket = "/a\\u0000b"', "daemon.socket: must be an absolute path, not '/a\\x00b'"),
        ("[watch]\nsettle_s = -1", "watch.settle_s: Input should be greater than or equal to 0, not -1"),
        ("[watch]\nsettle_s = nan", "watch.settle_s: Input should be a finite number, not nan"),
        ("[watch]\npoll_interval_s = inf", "watch.poll_interval_s: Input should be a finite number, not inf"),
        ("[watch]\npoll_interval_s = 0", "watch.poll_interval_s: Input should be greater than 0, not 0"),
        (
            "[daemon]\nhttp_port = 70000",
            "daemon.http_port: Input should be less than or equal to 65535, not 70000",
        ),
        (
            '[daemon]\nlog_level = "loud"',
            "daemon.log_level: Input should be 'debug', 'info', 'warning' or 'error', not 'loud'",
        ),
        ('[pick]\ndevice = "gpu"', "pick.device: must be auto, cpu, cuda or cuda:N, not 'gpu'"),
        (
            '[pick]\ndevice = "cuda:1234"',
            "pick.device: must be auto, cpu, cuda or cuda:N, not 'cuda:1234'",
        ),
        (
            '[pick]\ndevice = "cuda:1"\ndevices = [0, 1]',
            'pick.devices: must be left out where pick.device is "cuda:1", not [0, 1]',
        ),
        ("[pick]\ndevices = [0, 1, 0]", "pick.devices: must have cuda:0 once, not [0, 1, 0]"),
        (
            '[pick]\ndevices = ["cpu", 0]',
            "pick.devices: must be GPUs or the CPU alone, for their picks differ in the last digits,"
            " not ['cpu', 0]",
        ),
        *(
            (
                f"[pick]\ndevices = {value}",
                f'pick.devices: must be GPUs in brackets, such as [0, 1] or ["cuda:0", "cuda:1"], not {told}',
            )
            for value, told in [
                ("2", "2"),
                ("[true]", "[True]"),
                ("[-1]", "[-1]"),
                ('["cuda"]', "['cuda']"),
                ('["auto"]', "['auto']"),
                ("[1.0]", "[1.0]"),
            ]
        ),
        (
            f"[pick]\ndevices = {['cpu'] * 17}",
            f"pick.devices: must be 16 devices at most, not {['cpu'] * 17}",
        ),
        (
            "[watch]\npoll_interval_s = 1e300",
            "watch.poll_interval_s: Input should be less than or equal to 31622400, not 1e+300",
        ),
        (
            "[daemon]\nstop_timeout_s = 1e18",
            "daemon.stop_timeout_s: Input should be less than or equal to 31622400, not 1e+18",
        ),
        ('[daemon]\nhttp_host = ""', "daemon.http_host: String should have at least 1 character, not ''"),
        ("[pick]\nloaders = 0", "pick.loaders: Input should be greater than or equal to 1, not 0"),
    ],
)
def test_a_wrong_file_is_refused_by_name_with_what_is_allowed(refused, text, sentence):
    assert refused(text) == sentence


@pytest.mark.parametrize("text", ["[watch", "x = ", b"\xff", b"\0", b"a = " + b"[" * 5000])
def test_what_is_no_toml_is_refused(refused, text):
    assert refused(text).startswith("not valid TOML: ")


def test_a_mistake_in_the_syntax_has_its_line(refused):
    assert "at line 2" in refused("[watch]\nx y\n")


def test_each_problem_has_its_line(refused):
    assert refused("[watch]\na = 1\nb = 2\n").count("no such key") == 2


def test_a_missing_file_and_a_directory_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"none.toml: cannot be read \(No such file or directory\)"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        load_config(tmp_path)


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_garbage_is_refused_or_says_nothing(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "garbage.toml"
    path.write_bytes(content)
    taken, refusal = _load(path)
    assert taken == Config() if refusal is None else refusal.startswith(f"{path}: ")


_TOML = st.recursive(
    st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text("ab/\\\"'é\n", max_size=6),
    lambda inner: st.lists(inner, max_size=3),
)


def _toml(value: object) -> str:
    """Write a value as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return '"' + "".join(f"\\u{ord(letter):04x}" for letter in value) + '"'
    return repr(value)


@given(
    st.sampled_from([(section, key) for section, keys in _schema_keys(Config).items() for key in keys]), _TOML
)
def test_any_value_of_any_key_is_taken_as_it_is_or_refused(tmp_path_factory, place, value):
    section, key = place
    path = tmp_path_factory.getbasetemp() / "value.toml"
    path.write_text(f"[{section}]\n{key} = {_toml(value)}\n")
    config, refusal = _load(path)
    if refusal is not None:
        assert refusal.startswith(f"{path}: {section}.{key}: ")
        return
    taken = getattr(getattr(config, section), key)
    if key == "devices":
        value = tuple(f"cuda:{one}" if isinstance(one, int) else one for one in value)
    assert taken == (Path(value) if isinstance(taken, Path) else value)
    assert isinstance(taken, bool) == isinstance(value, bool)


def test_the_command_line_refuses_a_wrong_file_with_78(tmp_path, capsys):
    path = tmp_path / "config.toml"
    path.write_text("[watch]\nsettle = 5\nhints = 2\n")
    assert main(["run", "--config", str(path), "--check"]) == 78
    assert capsys.readouterr().err.splitlines() == [
        f"drpwatch: error: {path}: watch.hints: Input should be a valid boolean, not 2",
        f"drpwatch: error: {path}: watch.settle: no such key; "
        "allowed here: poll_interval_s, settle_s, incomplete_after_s, hints, prefer",
    ]
    assert main(["run", "--config", str(path)]) == 78
    assert main(["run", "--config", str(tmp_path / "none.toml")]) == 78


def test_a_refusal_is_short_and_steers_no_terminal(tmp_path, capsys):
    path = tmp_path / "config.toml"
    path.write_text('"\\u001b[2J" = 1\n[pick]\ndevice = "' + "\\u009b" * 100_000 + '"\n')
    assert main(["run", "--config", str(path), "--check"]) == 78
    told = capsys.readouterr().err
    assert len(told) < 2000
    assert not {one for one in told if not one.isprintable()} - {"\n"}
    assert told.count("\n") == 2


def test_the_command_line_checks_the_example(capsys):
    assert main(["run", "--config", str(EXAMPLE), "--check"]) == 0
    assert capsys.readouterr().out == f"{EXAMPLE}: fine\n"
