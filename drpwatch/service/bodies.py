"""What requests to the HTTP API carry: their schema, and what `Control` takes of them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from drpwatch.micrograph import PickParams
from drpwatch.service.control import DEFAULT_GLOB, SessionRequest, Which

ServedPath = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")]

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

    def request(self) -> SessionRequest:
        """Return it as `Control` takes it.

        Raises
        ------
        UsageError
            A parameter is out of its range.
        """
        return SessionRequest(
            name=self.name,
            watch_root=Path(self.watch_root),
            out_dir=None if self.out_dir is None else Path(self.out_dir),
            glob=self.glob,
            micrograph_prefix=self.micrograph_prefix,
            # What is left out keeps the default of PickParams.
            params=PickParams(**self.model_dump(include=_PARAMS, exclude_none=True)),
        )


class SetSession(Body):
    """The body of `PATCH /api/v1/sessions/{name}`: what is to change; null is what was never told."""

    diameter_angstrom: float = 0.0
    pixel_size_angstrom: float | None = None
    negative_stain: bool = False
    threshold: float | None = None
    model: ServedPath = ""
    expected_end_at: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

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
