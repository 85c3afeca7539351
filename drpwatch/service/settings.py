"""The configuration in force: what a reload takes at once, and what waits for a restart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from drpwatch.config import Config, Profile, find_default, load_config
from drpwatch.errors import ConfigError

RELOADABLE = {
    "daemon": ("stop_timeout_s", "log_format", "log_level"),
    "watch": ("poll_interval_s", "settle_s", "incomplete_after_s", "hints", "prefer"),
    "pick": ("newest_first_beyond",),
    "session": ("idle_after_s", "auto_complete_after_s"),
    "page": (),
}
"""Keys that a reload takes, and all profiles; a key that is not named here needs a restart."""


class Settings:
    """Holds the configuration; a reload replaces it as a whole, so any thread may read it.

    Parameters
    ----------
    config, path
        The configuration at the start and the file it came from; None: the default one, if there is one.
    """

    def __init__(self, config: Config, path: Path | None) -> None:
        self.config = config
        self.needs_restart: tuple[str, ...] = ()
        """Keys that the file has otherwise than they are in force."""
        self.failure: str | None = None
        """Why the last reload took nothing."""
        self._path = path

    @property
    def profiles(self) -> Mapping[str, Profile]:
        """The profiles, also those of later reloads."""
        return _Profiles(self)

    @property
    def notices(self) -> tuple[str, ...]:
        """What somebody should know about the configuration, one sentence each."""
        notices = []
        if self.failure is not None:
            notices.append(f"the configuration is as before its last change: {self.failure}")
        if self.needs_restart:
            notices.append(f"the daemon needs a restart to take {', '.join(self.needs_restart)}")
        return tuple(notices)

    def reload(self) -> None:
        """Read the file again and take what can change.

        Raises
        ------
        ConfigError
            It is wrong; nothing is taken.
        """
        try:
            wanted = load_config(self._path or find_default())
        except ConfigError as error:
            self.failure = "; ".join(str(error).splitlines())
            raise
        self.failure = None
        self.config, self.needs_restart = _merged(self.config, wanted)


class _Profiles(Mapping[str, Profile]):
    """The profiles in force at each look."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __getitem__(self, name: str) -> Profile:
        return self._settings.config.profile[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._settings.config.profile)

    def __len__(self) -> int:
        return len(self._settings.config.profile)


def _merged(now: Config, wanted: Config) -> tuple[Config, tuple[str, ...]]:
    """Return what is in force after a reload, and the keys that wait for a restart."""
    sections: dict[str, object] = {"profile": wanted.profile}
    waiting = []
    for name, reloadable in RELOADABLE.items():
        old, new = getattr(now, name), getattr(wanted, name)
        sections[name] = old.model_copy(update={key: getattr(new, key) for key in reloadable})
        waiting += [
            f"{name}.{key}"
            for key in type(old).model_fields
            if key not in reloadable and getattr(old, key) != getattr(new, key)
        ]
    return now.model_copy(update=sections), tuple(waiting)
