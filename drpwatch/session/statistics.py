"""Questions that people have about a session, answered on a connection that can only read.

A long answer holds up nobody who records: WAL lets readers and the writer go on side by side. What is told
of a micrograph is the generation that stands for it now: the one whose rows the outputs hold, or the newest
if it failed.
"""

from __future__ import annotations

import json
import math
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from drpwatch.errors import JournalError, SessionError
from drpwatch.micrograph import PickParams
from drpwatch.session import rows
from drpwatch.session.records import MicrographState

Candidates = npt.NDArray[np.float32]
_STANDS = "(published = 1 OR (latest = 1 AND state = 'failed'))"
_BLOBS = 200  # candidates of so many micrographs are read at a time


class Show(StrEnum):
    """Which recorded micrographs."""

    ALL = "all"
    PICKED = "picked"  # with picks
    EMPTY = "empty"  # picked, without picks
    FAILED = "failed"


_CONDITIONS = {
    Show.ALL: _STANDS,
    Show.PICKED: "published = 1 AND n_picks > 0",
    Show.EMPTY: "published = 1 AND n_picks = 0",
    Show.FAILED: "latest = 1 AND state = 'failed'",
}


@dataclass(frozen=True, slots=True)
class Recorded:
    """One micrograph that was picked or failed. Times are unix seconds."""

    id: int
    seq: int  # grows with each one that is recorded in the session
    name: str
    generation: int
    failed: bool
    reason: str | None  # why it failed
    n_picks: int | None
    n_candidates: int | None
    threshold: float | None
    shape_yx: tuple[int, int] | None  # of the file, pixels
    diameter_px: float | None  # the particle's, in pixels of the file
    params_version: int | None
    model: str | None
    weights_sha256: str | None
    recorded_at: float
    seconds: dict[str, float]  # per stage


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """All micrographs of a session that are ready or recorded, (n,) each. Times are unix seconds or NaN."""

    id: npt.NDArray[np.int64]
    name: tuple[str, ...]
    written_at: npt.NDArray[np.float64]  # the file, by its own server's clock: good for an order only
    ready_at: npt.NDArray[np.float64]
    recorded_at: npt.NDArray[np.float64]  # NaN: not yet
    generation: npt.NDArray[np.int64]
    n_picks: npt.NDArray[np.int64]  # -1: it failed, or is not picked yet


class Statistics:
    """Reads one journal; safe to call from any thread.

    Raises
    ------
    JournalError
        From any method: the journal cannot be read.
    """

    def __init__(self, journal: Path) -> None:
        self._path = journal
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None

    def close(self) -> None:
        """Close the connection; the next question opens it again."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def session(self, name: str) -> tuple[int, Path]:
        """Return the id of a session, and where its outputs are.

        Raises
        ------
        SessionError
            There is none of that name.
        """
        for row in self._all("SELECT id, out_dir FROM session WHERE name = ?", (name,)):
            return int(row["id"]), Path(row["out_dir"])
        raise SessionError(f"no session named {name}")

    def threshold(self, session_id: int) -> float | None:
        """Return the threshold in force: the user's, else that of the weights, if these are known."""
        (row,) = self._all(
            "SELECT json, default_threshold FROM session JOIN params ON params.id = session.params_id"
            " WHERE session.id = ?",
            (session_id,),
        )
        own = PickParams.from_dict(json.loads(row["json"])).threshold
        return row["default_threshold"] if own is None else own

    def recorded(
        self, session_id: int, show: Show, limit: int, before: int | None = None, since: int | None = None
    ) -> list[Recorded]:
        """Return recorded micrographs, the last recorded first.

        Only those with a `seq` below `before` or above `since`, if one is given; above `since` these are the
        first recorded.
        """
        bounds, values, order = "", [session_id], "DESC"
        if before is not None:
            bounds, values = " AND record_seq < ?", [session_id, before]
        elif since is not None:
            bounds, values, order = " AND record_seq > ?", [session_id, since], "ASC"
        found = self._all(
            f"{_SELECT} WHERE micrograph.session_id = ? AND {_CONDITIONS[show]}{bounds}"
            f" ORDER BY record_seq {order} LIMIT ?",
            (*values, limit),
        )
        return [_recorded(row) for row in (found if order == "DESC" else reversed(found))]

    def one(self, session_id: int, micrograph_id: int) -> Recorded:
        """Return one recorded micrograph.

        Raises
        ------
        SessionError
            The session has none of that id.
        """
        found = self._all(
            f"{_SELECT} WHERE micrograph.session_id = ? AND micrograph.id = ? AND {_STANDS}",
            (session_id, micrograph_id),
        )
        for row in found:
            return _recorded(row)
        raise SessionError(f"no recorded micrograph {micrograph_id}")

    def count(self, session_id: int) -> dict[Show, int]:
        """Return how many recorded micrographs there are of each kind."""
        sums = ", ".join(f'total({condition}) AS "{show}"' for show, condition in _CONDITIONS.items())
        (row,) = self._all(
            f"SELECT {sums} FROM micrograph WHERE session_id = ?",  # noqa: S608 - conditions are ours
            (session_id,),
        )
        return {show: int(row[show]) for show in Show}

    def published_ids(self, session_id: int) -> list[int]:
        """Return the ids of the micrographs whose rows the outputs hold."""
        found = self._all("SELECT id FROM micrograph WHERE session_id = ? AND published = 1", (session_id,))
        return [row["id"] for row in found]

    def candidates(self, ids: Sequence[int]) -> Iterable[tuple[int, Candidates]]:
        """Yield micrographs and their candidates, (n, 3): y, x, score, best first."""
        for start in range(0, len(ids), _BLOBS):
            part = ids[start : start + _BLOBS]
            marks = ", ".join("?" * len(part))
            for row in self._all(
                "SELECT micrograph_id, yx_score FROM candidates"  # noqa: S608 - marks are ours
                f" WHERE micrograph_id IN ({marks})",
                tuple(part),
            ):
                yield row["micrograph_id"], rows.unpack(row["yx_score"])

    def history(self, session_id: int) -> History:
        """Return what the plots of a session are made of, in the order of recording."""
        found = self._all(
            "SELECT id, name, coalesce(mtime_ns * 1e-9, first_seen_at), ready_at, recorded_at,"  # noqa: S608 - ours
            " generation, CASE WHEN published = 1 THEN n_picks ELSE -1 END"
            f" FROM micrograph WHERE session_id = ? AND ({_STANDS} OR (latest = 1 AND state = 'ready'))"
            " ORDER BY record_seq",
            (session_id,),
        )
        columns = list(zip(*found, strict=True)) or [()] * 7
        return History(
            id=np.array(columns[0], dtype=np.int64),
            name=tuple(columns[1]),
            written_at=np.array(columns[2], dtype=np.float64),
            ready_at=np.array(columns[3], dtype=np.float64),
            recorded_at=np.array(columns[4], dtype=np.float64),
            generation=np.array(columns[5], dtype=np.int64),
            n_picks=np.array(columns[6], dtype=np.int64),
        )

    def _all(self, sql: str, values: tuple[Any, ...]) -> list[sqlite3.Row]:
        with self._lock:
            try:
                if self._db is None:
                    self._db = sqlite3.connect(
                        f"{self._path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False
                    )
                    self._db.row_factory = sqlite3.Row
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise JournalError(f"journal {self._path}: cannot be read ({error})") from error


_SELECT = (
    "SELECT micrograph.*, params.version, params.json FROM micrograph"
    " LEFT JOIN params ON params.id = micrograph.params_id"
)


def _recorded(row: sqlite3.Row) -> Recorded:
    params = PickParams.from_dict(json.loads(row["json"])) if row["json"] else None
    return Recorded(
        id=row["id"],
        seq=row["record_seq"],
        name=row["name"],
        generation=row["generation"],
        failed=row["state"] == MicrographState.FAILED,
        reason=row["reason"],
        n_picks=row["n_picks"],
        n_candidates=row["n_candidates"],
        threshold=row["threshold"],
        shape_yx=(row["height_px"], row["width_px"]) if row["height_px"] else None,
        diameter_px=_diameter_px(params, row),
        params_version=row["version"],
        model=params.model if params else None,
        weights_sha256=row["weights_sha256"],
        recorded_at=row["recorded_at"],
        seconds=json.loads(row["seconds"]) if row["seconds"] else {},
    )


def _diameter_px(params: PickParams | None, row: sqlite3.Row) -> float | None:
    """Return the particle's diameter in pixels of the file, None where its scale is not known."""
    if params is None:
        return None
    y, x = row["pixel_y_angstrom"], row["pixel_x_angstrom"]
    pixel_size = params.pixel_size_angstrom or (math.sqrt(y * x) if y and x else None)
    return None if pixel_size is None else params.diameter_angstrom / pixel_size
