"""What a session is, told beside its outputs: with it, outputs are understood without the journal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from drpwatch.errors import UsageError
from drpwatch.micrograph import Fingerprint, PickParams
from drpwatch.session.records import PinnedWeights, SessionRecord, SessionSpec

DESCRIPTION = "session.json"


@dataclass(frozen=True, slots=True)
class Description:
    """What `describe` told of a session."""

    spec: SessionSpec
    weights: PinnedWeights | None
    created_at: float
    expected_end_at: float | None
    backfill: str
    passed_over: dict[str, Fingerprint]


def describe(session: SessionRecord, passed_over: Mapping[str, Fingerprint]) -> bytes:
    """Return the content of `session.json`; where the outputs lie is where it lies."""
    spec, weights = session.spec, session.params.weights
    told = {
        "name": spec.name,
        "watch_root": str(spec.watch_root),
        "glob": spec.glob,
        "micrograph_prefix": spec.micrograph_prefix,
        "parameters": spec.params.as_dict(),
        "weights": None if weights is None else {"sha256": weights.sha256, "threshold": weights.threshold},
        "created_at": session.created_at,
        "expected_end_at": session.expected_end_at,
        "backfill": session.backfill,
        "passed_over": {
            name: [marks.size_bytes, marks.mtime_ns, marks.inode] for name, marks in passed_over.items()
        },
    }
    return f"{json.dumps(told, indent=1)}\n".encode()


def read(directory: Path) -> Description:
    """Return what is told of the session whose outputs lie in a directory.

    Raises
    ------
    UsageError
        Nothing is, or it makes no sense.
    """
    path = directory / DESCRIPTION
    try:
        told = json.loads(path.read_bytes())
        weights = told["weights"]
        return Description(
            spec=SessionSpec(
                name=told["name"],
                watch_root=Path(told["watch_root"]),
                out_dir=directory,
                params=PickParams.from_dict(told["parameters"]),
                glob=told["glob"],
                micrograph_prefix=told["micrograph_prefix"],
            ),
            weights=None if weights is None else PinnedWeights(weights["sha256"], weights["threshold"]),
            created_at=float(told["created_at"]),
            expected_end_at=told["expected_end_at"],
            backfill=told["backfill"],
            passed_over={name: Fingerprint(*marks) for name, marks in told["passed_over"].items()},
        )
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise UsageError(
            f"{path}: cannot be read ({why}): it tells what the session in {directory} watches and how it picks"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: does not tell what the session is ({error!r})") from error
