"""The configuration file: its schema, and reading it into a frozen `Config`.

The schema is the documentation: `config.example.toml` shows every key with its default, and a test
holds the two together. Nothing is guessed: a wrong key, type or value is a `ConfigError`.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from drpwatch import places
from drpwatch.errors import ConfigError
from drpwatch.places import SERVICE, Places
from drpwatch.text import shown

DEFAULT_CONFIG = Path("/etc/drpwatch/config.toml")


def _absolute(path: Path) -> Path:
    # A relative path would mean another place under systemd than in a shell.
    if not path.is_absolute() or "\0" in str(path):
        raise ValueError("must be an absolute path")
    return path


# TOML has no path type, so paths alone are converted from strings. All else is strict, which still
# takes a whole number for seconds; `true` and "5" are refused.
FilePath = Annotated[Path, Field(strict=False), AfterValidator(_absolute)]
_LONGEST_S = 366 * 86_400.0  # a thread cannot wait for some of the numbers beyond
Seconds = Annotated[float, Field(ge=0, le=_LONGEST_S, allow_inf_nan=False)]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$")]
_ONE_OF_SEVERAL = re.compile(r"cpu|cuda:(0|[1-9][0-9]{0,2})")
_MOST_DEVICES = 16


def _named(devices: object) -> tuple[str, ...]:
    """Return the names of devices; a number stands for a GPU."""
    listed = devices if isinstance(devices, list | tuple) else [None]
    names = tuple(f"cuda:{one}" if type(one) is int else str(one) for one in listed)
    if not all(map(_ONE_OF_SEVERAL.fullmatch, names)):
        raise ValueError('must be GPUs in brackets, such as [0, 1] or ["cuda:0", "cuda:1"]')
    if len(names) > _MOST_DEVICES:
        raise ValueError(f"must be {_MOST_DEVICES} devices at most")
    return names


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Daemon(_Section):
    """`[daemon]`: where the daemon keeps its state and how it is reached."""

    state_dir: FilePath = SERVICE.state_dir
    socket: FilePath = SERVICE.socket
    http_host: Annotated[str, Field(min_length=1, max_length=253)] = "127.0.0.1"
    http_port: Annotated[int, Field(ge=0, le=65535)] = 9478
    stop_timeout_s: Seconds = 30.0
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class Watch(_Section):
    """`[watch]`: how micrographs are found, and when one counts as whole."""

    poll_interval_s: Annotated[float, Field(gt=0, le=_LONGEST_S, allow_inf_nan=False)] = 5.0
    settle_s: Seconds = 5.0
    incomplete_after_s: Seconds = 1800.0
    hints: bool = True
    prefer: Literal["dose-weighted", "plain", "both"] = "dose-weighted"


class Pick(_Section):
    """`[pick]`: the device and the resources of the picker."""

    device: Device = "auto"
    devices: Annotated[tuple[str, ...], BeforeValidator(_named)] = ()
    cpu_threads: Annotated[int, Field(ge=0, le=1024)] = 0
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    loaders: Annotated[int, Field(ge=1, le=64)] = 2
    model: str = "general"
    newest_first_beyond: Annotated[int, Field(ge=0, le=10**9)] = 20
    time_limit_s: Annotated[float, Field(gt=0, le=240)] = 120.0
    canary_every_s: Seconds = 300.0
    release_after_s: Seconds = 900.0

    @field_validator("devices")
    @classmethod
    def _make_sense(cls, devices: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        twice = [one for one in devices if one != "cpu" and devices.count(one) > 1]
        if twice:
            raise ValueError(f"must have {twice[0]} once")
        if len({one == "cpu" for one in devices}) > 1:
            raise ValueError("must be GPUs or the CPU alone, for their picks differ in the last digits")
        device = info.data.get("device", "auto")
        if devices and device != "auto" and devices != (device,):
            raise ValueError(f'must be left out where pick.device is "{device}"')
        return devices

    @property
    def picking_devices(self) -> tuple[str, ...]:
        """What picks: `devices`, or else the one `device`."""
        return self.devices or (self.device,)

    @property
    def device_labels(self) -> tuple[str, ...]:
        """What each of them is called: one that is there twice has a number."""
        names = self.picking_devices
        times = [names[: n + 1].count(name) for n, name in enumerate(names)]
        return tuple(f"{name}#{nth}" if nth > 1 else name for name, nth in zip(names, times, strict=True))


class Session(_Section):
    """`[session]`: sessions to which nothing comes any more."""

    idle_after_s: Seconds = 3600.0
    auto_complete_after_s: Seconds = 0.0


class Page(_Section):
    """`[page]`: the pictures of micrographs that the page shows."""

    most_pictures: Annotated[int, Field(ge=0)] = 5000
    most_pictures_mb: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1000.0


class Profile(_Section):
    """`[profile.NAME]`: what a session has that is started with this profile and not told otherwise."""

    pixel_size_angstrom: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    negative_stain: bool | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    model: str | None = None
    glob: str | None = None
    micrograph_prefix: str | None = None
    backfill: str | None = None

    def given(self) -> dict[str, Any]:
        """Return the values that the profile has."""
        return self.model_dump(exclude_none=True)


class Config(_Section):
    """The whole file."""

    daemon: Daemon = Daemon()
    watch: Watch = Watch()
    pick: Pick = Pick()
    session: Session = Session()
    page: Page = Page()
    profile: dict[str, Profile] = {}


def find_default() -> Path | None:
    """Return the path of the configuration that is read where none is named; None if there is none."""
    try:
        DEFAULT_CONFIG.stat()
    except FileNotFoundError:
        return None
    except OSError:
        pass  # it is there, or its directory is, but closed to us: reading it will tell
    return DEFAULT_CONFIG


def load_config(path: Path | None, where: Places | None = None) -> Config:
    """Read a configuration file; None gives the defaults.

    Parameters
    ----------
    where
        Places that count where the file names none; None for those that are usual for this user.

    Raises
    ------
    ConfigError
        The file cannot be read, is no TOML, or has a wrong key, type or value; the text names
        the file, the key and what is allowed, one line for each.
    """
    values = {} if path is None else _read(path)
    where = where or places.usual()
    daemon = values.setdefault("daemon", {})
    if isinstance(daemon, dict):  # what else it may be is refused below
        daemon.setdefault("state_dir", str(where.state_dir))
        daemon.setdefault("socket", str(where.socket))
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(path, error))) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _explain(path: Path | None, error: ValidationError) -> list[str]:
    """Return one line for each wrong key."""
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{path}: {key}: no such key; allowed here: {_siblings(problem['loc'])}")
        else:
            allowed = _ALLOWED.get(problem["type"], problem["msg"].removeprefix("Value error, "))
            lines.append(f"{path}: {key}: {allowed.replace('{key}', key)}, not {shown(problem['input'])}")
    return lines


# Where pydantic's own words would not tell a user what to write.
_ALLOWED = {
    "model_type": "must be a section, written [{key}]",
    "path_type": "must be an absolute path in quotes",
    "string_pattern_mismatch": "must be auto, cpu, cuda or cuda:N",
}


def _siblings(location: tuple[int | str, ...]) -> str:
    """Return the keys that the schema has beside a wrong one."""
    model: type[BaseModel] = Config
    for part in location[:-1]:
        if str(part) not in model.model_fields:
            continue  # the name of a profile
        annotation = model.model_fields[str(part)].annotation
        annotation = (get_args(annotation) or (annotation,))[-1]  # of a table of sections, the section
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return ", ".join(model.model_fields)
