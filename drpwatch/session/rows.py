"""Between the journal's SQL rows and the types of the program."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np

from drpwatch.micrograph import Fingerprint, ImageHeader, PickParams, Picks, ReadyMicrograph
from drpwatch.session.lifecycle import SessionState
from drpwatch.session.records import (
    MicrographRecord,
    MicrographState,
    ParamsVersion,
    PinnedWeights,
    PublishedPicks,
    SessionRecord,
    SessionSpec,
)


def pack(picks: Picks) -> bytes:
    """Return all candidates as little-endian float32 (n, 3): y, x, score."""
    return np.column_stack([picks.yx_px, picks.score]).astype("<f4").tobytes()


def unpack(blob: bytes) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return candidates as (n, 3) float32: y, x, score."""
    return np.frombuffer(blob, dtype="<f4").astype(np.float32).reshape(-1, 3)


def session(row: sqlite3.Row) -> SessionRecord:
    """Read a row of `session` joined with its parameters in force."""
    in_force = ParamsVersion(
        id=row["params_id"],
        version=row["version"],
        params=PickParams.from_dict(json.loads(row["json"])),
        weights=_weights(row),
        created_at=row["params_created_at"],
    )
    spec = SessionSpec(
        name=row["name"],
        watch_root=Path(row["watch_root"]),
        out_dir=Path(row["out_dir"]),
        params=in_force.params,
        glob=row["glob"],
        micrograph_prefix=row["micrograph_prefix"],
    )
    return SessionRecord(
        id=row["id"],
        spec=spec,
        params=in_force,
        state=SessionState(row["state"]),
        reason=row["reason"],
        pixel_size_angstrom=row["pixel_size_angstrom"],
        created_at=row["created_at"],
        changed_at=row["changed_at"],
        expected_end_at=row["expected_end_at"],
        backfill=row["backfill"],
    )


def version(row: sqlite3.Row) -> ParamsVersion:
    """Read a row of `params`."""
    params = PickParams.from_dict(json.loads(row["json"]))
    return ParamsVersion(row["id"], row["version"], params, _weights(row), row["created_at"])


def _weights(row: sqlite3.Row) -> PinnedWeights | None:
    if row["weights_sha256"] is None:
        return None
    return PinnedWeights(row["weights_sha256"], row["default_threshold"])


def ready(row: sqlite3.Row, of: SessionRecord) -> ReadyMicrograph:
    """Read a ready row of `micrograph`."""
    pixel_size = None
    if row["pixel_y_angstrom"] is not None:
        pixel_size = (row["pixel_y_angstrom"], row["pixel_x_angstrom"])
    header = ImageHeader(
        shape_yx=(row["height_px"], row["width_px"]),
        dtype=np.dtype(row["dtype"]),
        data_offset_bytes=row["data_offset_bytes"],
        pixel_size_yx_angstrom=pixel_size,
        compressed=bool(row["compressed"]),
    )
    return ReadyMicrograph(
        micrograph_id=row["id"],
        session=of.spec.name,
        name=row["name"],
        generation=row["generation"],
        path=of.spec.watch_root / row["name"],
        header=header,
        fingerprint=Fingerprint(row["size_bytes"], row["mtime_ns"], row["inode"]),
        params_id=of.params_id,
        params=of.spec.params,
        ready_at=row["ready_at"],
        weights_sha256=of.params.weights.sha256 if of.params.weights is not None else None,
        asked=bool(row["asked"]),
    )


def micrograph(row: sqlite3.Row) -> MicrographRecord:
    """Read a row of `micrograph` without its candidates."""
    fingerprint = None
    if row["size_bytes"] is not None:
        fingerprint = Fingerprint(row["size_bytes"], row["mtime_ns"], row["inode"])
    return MicrographRecord(
        id=row["id"],
        name=row["name"],
        generation=row["generation"],
        state=MicrographState(row["state"]),
        reason=row["reason"],
        fingerprint=fingerprint,
        n_picks=row["n_picks"],
        threshold=row["threshold"],
        weights_sha256=row["weights_sha256"],
        first_seen_at=row["first_seen_at"],
        ready_at=row["ready_at"],
        recorded_at=row["recorded_at"],
        seconds=json.loads(row["seconds"]) if row["seconds"] else {},
        params_id=row["params_id"],
        params_version=row["version"],
        outdated=bool(row["outdated"]),
        source_missing=bool(row["source_missing"]),
    )


def published(row: sqlite3.Row) -> PublishedPicks:
    """Read what the outputs hold of one row."""
    candidates = unpack(row["yx_score"])  # (n, 3)
    chosen = candidates[candidates[:, 2] >= np.float32(row["threshold"])]
    return PublishedPicks(row["id"], row["name"], row["threshold"], chosen[:, :2], chosen[:, 2])
