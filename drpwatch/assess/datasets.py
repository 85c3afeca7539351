"""A folder of data sets to measure on: what each is, its micrographs, and what is known of them.

Owns: `dataset.toml`, which describes the data set in whose folder it lies. Does not own: picking and
figures (`suite`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from drpwatch.assess.coordinates import Coordinates, key, pair_names, read_coordinates
from drpwatch.errors import ScanFailed, UsageError
from drpwatch.micrograph import PickParams
from drpwatch.watch.scan import NameFilter, scan

DESCRIPTION = "dataset.toml"


class Description(BaseModel):
    """The keys of `dataset.toml`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    diameter_angstrom: float
    pixel_size_angstrom: float | None = None  # None: read from each header
    negative_stain: bool = False
    glob: str = "**/*.mrc"  # which files are micrographs, by path below the folder
    truth: str | None = None  # STAR file of the known particles, or a folder; relative to the folder
    expected_picks_at_most: Annotated[int, Field(ge=0)] | None = None  # median; for sets without particles
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class DataSet:
    """One data set; micrographs are named as in `coordinates`, without the ending of their files."""

    name: str
    params: PickParams
    micrographs: dict[str, Path | None]  # None: the truth names it, and there is no such file
    truth: dict[str, Coordinates] | None
    expected_picks_at_most: int | None
    not_in_truth: int  # micrographs that are left out, as the truth does not name them
    note: str


def find_data_sets(suite: Path) -> list[Path]:
    """Return the folders in a suite that have a `dataset.toml`, by name; the suite itself if it has one.

    Raises
    ------
    UsageError
        There is none.
    """
    if not suite.is_dir():
        raise UsageError(f"{suite}: no such folder")
    if (suite / DESCRIPTION).is_file():
        return [suite]
    found = sorted(path.parent for path in suite.glob(f"*/{DESCRIPTION}"))
    if not found:
        raise UsageError(f"{suite}: no folder in it has a {DESCRIPTION} that tells the particle's diameter")
    return found


def read_data_set(folder: Path, limit: int | None = None) -> DataSet:
    """Read the description of a data set, its truth, and the names of its micrographs.

    Parameters
    ----------
    folder
        Has a `dataset.toml`.
    limit
        Take only so many micrographs, the first by name.

    Raises
    ------
    UsageError
        The description has a wrong key or value, or there is no micrograph.
    StarError
        The truth cannot be read.
    """
    told = _read_description(folder / DESCRIPTION)
    try:
        params = PickParams(told.diameter_angstrom, told.pixel_size_angstrom, told.negative_stain)
        files = _micrographs(folder, told.glob)
    except UsageError as error:
        raise UsageError(f"{folder / DESCRIPTION}: {error}") from error
    truth, not_in_truth = None, 0
    if told.truth is not None:
        known = read_coordinates(folder / told.truth)
        pairs = pair_names(known, files)
        if not pairs:
            raise UsageError(f"{folder}: {told.truth} names none of its {len(files)} micrographs")
        truth = {pairs.get(name, name): points for name, points in known.items()}
        not_in_truth = len(files) - len(pairs)
    names = sorted(files if truth is None else truth)[:limit]
    return DataSet(
        name=folder.resolve().name,
        params=params,
        micrographs={name: files.get(name) for name in names},
        truth=None if truth is None else {name: truth[name] for name in names},
        expected_picks_at_most=told.expected_picks_at_most,
        not_in_truth=not_in_truth,
        note=told.note,
    )


def find_micrographs(folder: Path, glob: str = "**/*.mrc") -> dict[str, Path]:
    """Return the micrographs below a folder, by their path in it without the ending of the file.

    Raises
    ------
    UsageError
        The folder cannot be read, or the glob makes no sense.
    """
    try:
        names = scan(folder, NameFilter(glob)).names
    except ScanFailed as error:
        raise UsageError(f"{folder}: the folder cannot be read: {error.__cause__}") from error
    return {key(name): folder / name for name in sorted(names)}


def _micrographs(folder: Path, glob: str) -> dict[str, Path]:
    files = find_micrographs(folder, glob)
    if not files:
        raise UsageError(f"no file in {folder} matches glob {glob!r}")
    return files


def _read_description(path: Path) -> Description:
    """Read and check a `dataset.toml`."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error
    try:
        told = Description.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{path}: {'; '.join(_explain(error))}") from error
    if told.truth is not None and told.expected_picks_at_most is not None:
        raise UsageError(f"{path}: give truth or expected_picks_at_most, not both")
    return told


def _explain(error: ValidationError) -> Iterator[str]:
    """Yield what is wrong with each key."""
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            yield f"{name}: no such key; allowed are {', '.join(Description.model_fields)}"
        elif problem["type"] == "missing":
            yield f"{name} must be given"
        else:
            yield f"{name}: {problem['msg'][:1].lower()}{problem['msg'][1:]}, not {problem['input']!r}"
