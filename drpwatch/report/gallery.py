"""The micrographs that a report shows, and their pictures: those on disk, else made anew from the files.

A file that is gone or has changed is no error: there is a sentence in place of its picture.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
from PIL import Image

from drpwatch.errors import MicrographError
from drpwatch.formats import mrc
from drpwatch.formats.grey import grey
from drpwatch.session.account import Account
from drpwatch.session.records import SessionRecord
from drpwatch.session.statistics import Candidates, History, Recorded
from drpwatch.session.thumbnails import Thumbnails, View

_OF_EACH = 3
_LONGEST_PX = 640
_QUALITY = 80
READ_WITHIN_S = 60.0  # of all micrographs: what a file server has to give by then is enough


@dataclass(frozen=True, slots=True, eq=False)
class Exhibit:
    """One micrograph of the gallery."""

    recorded: Recorded
    picks: Candidates  # (n, 3): y, x, score, in pixels of the file
    jpeg: bytes | None
    missing: str | None  # why there is no picture


@dataclass(frozen=True, slots=True)
class Choice:
    """Micrographs that are shown together, by their ids."""

    title: str
    ids: tuple[int, ...]


def choose(history: History) -> tuple[Choice, ...]:
    """Return up to three micrographs each: most picks, about the median, fewest, and none; none of them twice."""
    order = np.lexsort((history.id, -history.n_picks))  # most picks first
    ids, n_picks = history.id[order], history.n_picks[order]
    left, empty = ids[n_picks > 0].tolist(), ids[n_picks == 0].tolist()
    most, left = left[:_OF_EACH], left[_OF_EACH:]
    split = max(0, len(left) - _OF_EACH)
    left, fewest = left[:split], left[split:]
    middle = max(0, (len(left) - _OF_EACH + 1) // 2)
    around = left[middle : middle + _OF_EACH]
    spread = empty[:: max(1, len(empty) // _OF_EACH)][:_OF_EACH]  # from all of the session
    found = (
        ("Most picks", most),
        ("About the median", around),
        ("Fewest picks", fewest),
        ("No picks", spread),
    )
    return tuple(Choice(title, tuple(chosen)) for title, chosen in found if chosen)


def exhibits(
    account: Account,
    session: SessionRecord,
    choices: tuple[Choice, ...],
    clock: Callable[[], float] = time.monotonic,
) -> dict[int, Exhibit]:
    """Return all that is shown, by id; reading micrographs ends after a while."""
    # One of each kind first: where time runs out, all kinds have a picture.
    turns = zip_longest(*(choice.ids for choice in choices))
    ids = [one for turn in turns for one in turn if one is not None]
    candidates = dict(account.candidates(ids))
    thumbnails = Thumbnails(session.spec.out_dir)
    end_s = clock() + READ_WITHIN_S
    found = {}
    for micrograph_id in ids:
        recorded = account.one(session.id, micrograph_id)
        jpeg, missing = _stored(thumbnails, recorded.name), None
        if jpeg is None and clock() > end_s:
            missing = "no picture: reading micrographs took too long"
        elif jpeg is None:
            jpeg, missing = _from_file(session.spec.watch_root / recorded.name, recorded)
        every = candidates.get(micrograph_id, np.empty((0, 3), np.float32))
        picks = every[
            every[:, 2] >= np.float32(recorded.threshold if recorded.threshold is not None else 2.0)
        ]
        found[micrograph_id] = Exhibit(recorded, picks, jpeg, missing)
    return found


def _stored(thumbnails: Thumbnails, name: str) -> bytes | None:
    """Return the picture on disk, made small enough."""
    try:
        data = thumbnails.read(name, View.LARGE)
        if data is None:
            return None
        with Image.open(io.BytesIO(data)) as image:
            return _jpeg(image.convert("L"))
    except (OSError, ValueError):  # not there, or no picture
        return None


def _from_file(path: Path, recorded: Recorded) -> tuple[bytes | None, str | None]:
    """Return a picture of a micrograph, or why there is none."""
    try:
        header = mrc.read_header(path)
        if header.shape_yx != recorded.shape_yx:
            return None, "no picture: the file is another one now"
        pixels = mrc.read_pixels(path, header)
    except MicrographError as error:
        return None, f"no picture: {error}"
    scale = min(1.0, _LONGEST_PX / max(header.shape_yx))
    diameter_px = recorded.diameter_px or 0.0
    return _jpeg(grey(pixels, diameter_px, scale)), None


def _jpeg(image: Image.Image) -> bytes:
    image.thumbnail((_LONGEST_PX, _LONGEST_PX))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
