"""`drpwatch export`: picks for programs that do not read STAR."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from drpwatch.errors import OutputError, UsageError

if TYPE_CHECKING:
    from drpwatch.assess.coordinates import Coordinates


class Format(StrEnum):
    """What can be written."""

    BOX = "box"
    CBOX = "cbox"
    TOPAZ = "topaz"
    CSV = "csv"


def export(
    picks: Annotated[Path, typer.Argument(help="particles.star, or a folder of *_autopick.star.")],
    file_format: Annotated[Format, typer.Option("--format", help="EMAN, crYOLO, Topaz, or a plain table.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="box, cbox: a folder, one file a micrograph; else a file.")
    ],
    box_size_px: Annotated[
        int | None, typer.Option(min=1, help="Side of the boxes; box and cbox need it.", show_default=False)
    ] = None,
) -> None:
    """Write picks as EMAN .box, crYOLO .cbox, a Topaz table or CSV.

    Nothing is flipped: y counts the rows in the order of the file, as in the STAR files.
    """
    from drpwatch.assess.coordinates import read_coordinates

    found = read_coordinates(picks)
    if file_format in (Format.BOX, Format.CBOX):
        if box_size_px is None:
            raise UsageError(f"--format {file_format} needs --box-size-px")
        files = _boxes(found, file_format, box_size_px)
    else:
        files = {output: _table(found, file_format)}
        output = Path()
    for name, content in files.items():
        _write(output / name, content)
    print(f"{sum(len(one.yx_px) for one in found.values())} picks of {len(found)} micrographs written")


def _boxes(found: dict[str, Coordinates], file_format: Format, box_size_px: int) -> dict[Path, bytes]:
    """Return the content of one file for each micrograph, by its path below the output folder."""
    import numpy as np

    from drpwatch.formats import exports

    files = {}
    for name, one in found.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise UsageError(f"{name!r} leads out of the output folder: use names relative to a folder")
        score = np.zeros(len(one.yx_px)) if one.score is None else one.score
        files[Path(f"{path}.{file_format}")] = (
            exports.box(one.yx_px, box_size_px)
            if file_format is Format.BOX
            else exports.cbox(one.yx_px, score, box_size_px, float(box_size_px))
        )
    return files


def _table(found: dict[str, Coordinates], file_format: Format) -> bytes:
    """Return one table with the picks of all micrographs."""
    import numpy as np

    from drpwatch.formats import exports

    header, rows = exports.csv_header, exports.csv_rows
    if file_format is Format.TOPAZ:
        header, rows = exports.topaz_header, exports.topaz_rows
    parts = [header()]
    for name, one in sorted(found.items()):
        score = np.zeros(len(one.yx_px)) if one.score is None else one.score
        parts.append(rows(name, one.yx_px, score))
    return b"".join(parts)


def _write(path: Path, content: bytes) -> None:
    """Write a file and the folders above it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
