"""What requests to the HTTP API carry: their schema, and what `Control` takes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from drpwatch.config import Profile
from drpwatch.errors import UsageError
from drpwatch.micrograph import PickParams
from drpwatch.service.control import ALL, DEFAULT_GLOB, SessionRequest, Which

ServedPath = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")]

UnixSeconds = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]

_PARAMS = {field.name for field in fields(PickParams)}


class Body(BaseModel):
    """The body of a request: strict, and nothing beside."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class StartSession(Body):
    """The body of `POST /api/v1/sessions`."""

    name: str
    watch_root: ServedPath
    diameter_angstrom: float
    pixel_size_angstrom: float | None = None
    negative_stain: bool = False
    threshold: float | None = None
    model: ServedPath | None = None
    out_dir: ServedPath | None = None
    glob: ServedPath = DEFAULT_GLOB
    micrograph_prefix: str = ""
    backfill: str = ALL
    expected_end_at: UnixSeconds | None = None
    profile: str | None = None

    def request(self, profiles: Mapping[str, Profile]) -> SessionRequest:
        """Return it as `Control` takes it: what is not given is the profile's, or else has its default.

        Raises
        ------
        UsageError
            A parameter is out of its range, or there is no such profile.
        """
        given = self.model_dump(exclude_unset=True, exclude={"profile"})
        if self.profile is not None:
            if self.profile not in profiles:
                known = ", ".join(sorted(profiles)) or "none"
                raise UsageError(f"profile {self.profile!r}: the daemon's configuration has {known}")
            given = profiles[self.profile].given() | given
        given = {key: value for key, value in given.items() if value is not None}
        params = PickParams(**{key: given.pop(key) for key in _PARAMS & given.keys()})
        for key in ("watch_root", "out_dir"):
            if key in given:
                given[key] = Path(given[key])
        return SessionRequest(params=params, **given)


class SetSession(Body):
    """The body of `PATCH /api/v1/sessions/{name}`: what is to change; null is what was never told."""

    diameter_angstrom: float = 0.0
    pixel_size_angstrom: float | None = None
    negative_stain: bool = False
    threshold: float | None = None
    model: ServedPath = ""
    expected_end_at: UnixSeconds | None = None

    def changes(self) -> dict[str, Any]:
        """Return what was given."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class Rethreshold(Body):
    """The body of `POST /api/v1/sessions/{name}/rethreshold`."""

    threshold: float


class Repick(Body):
    """The body of `POST /api/v1/sessions/{name}/repick`."""

    which: Annotated[Which, Field(strict=False)]
    glob: ServedPath | None = None
