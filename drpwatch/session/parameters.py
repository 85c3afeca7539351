"""The versions of a session's parameters, and what becomes of recorded micrographs when they change.

A micrograph is picked with one version. Its candidates follow from that version and the weights; where
they are cut into picks, the threshold, can move afterwards. So a micrograph is outdated if the version in
force would find other candidates, or cut them elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from drpwatch.errors import SessionError, UsageError
from drpwatch.micrograph import Outcome, PickParams
from drpwatch.session import rows
from drpwatch.session.lifecycle import ACTIVE, SessionState
from drpwatch.session.records import PinnedWeights, SessionRecord, SessionSpec
from drpwatch.session.views import BATCH_ROWS, Views

CHANGEABLE = ACTIVE | {SessionState.FAILED}
"""States in which parameters may change; one that failed for its weights is given others, then reopened."""


class Parameters(Views):
    """Changing parameters, and re-cutting what is recorded."""

    def _add_version(
        self, session_id: int, params: PickParams, weights: PinnedWeights | None, now: float
    ) -> int:
        """Put a new version of the parameters in force and return its id."""
        cursor = self._db.execute(
            "INSERT INTO params (session_id, version, json, created_at, weights_sha256, default_threshold)"
            " SELECT ?, coalesce(max(version), 0) + 1, ?, ?, ?, ? FROM params WHERE session_id = ?",
            (session_id, json.dumps(params.as_dict()), now, *_columns(weights), session_id),
        )
        assert cursor.lastrowid is not None
        # The revision, for an outcome that is being written just now may be cut elsewhere: see `record`.
        self._db.execute(
            "UPDATE session SET params_id = ?, revision = revision + 1 WHERE id = ?",
            (cursor.lastrowid, session_id),
        )
        return cursor.lastrowid

    def set_params(
        self, name: str, params: PickParams, weights: PinnedWeights | None, now: float
    ) -> SessionRecord:
        """Put other parameters in force for what is picked from now on; the same ones change nothing.

        Raises
        ------
        SessionError
            There is no such session, or it is completed.
        UsageError
            The pixel size is to come from headers, and those of the picked micrographs do not tell it.
        """
        with self.transaction():
            session = self.session(name)
            if session.state not in CHANGEABLE:
                raise SessionError(
                    f"session {name}: cannot change a session that is {session.state}; reopen it first"
                )
            if (params, weights) == (session.params.params, session.params.weights):
                return session
            self._add_version(session.id, params, weights, now)
            if params.pixel_size_angstrom != session.spec.params.pixel_size_angstrom:
                self._set_output_pixel_size(session, params)
            return self.session(name)

    def _set_output_pixel_size(self, session: SessionRecord, params: PickParams) -> None:
        """Let the outputs carry another pixel size: the user's, else that of the headers."""
        size = params.pixel_size_angstrom
        if size is None:
            found = self._all(
                "SELECT pixel_y_angstrom AS y, pixel_x_angstrom AS x FROM micrograph"
                " WHERE session_id = ? AND published = 1 LIMIT 1",
                (session.id,),
            )
            if found and found[0]["y"] is None:
                raise UsageError(
                    f"session {session.spec.name}: the headers of its micrographs give no pixel size"
                )
            size = (found[0]["y"] * found[0]["x"]) ** 0.5 if found else None
        self._db.execute("UPDATE session SET pixel_size_angstrom = ? WHERE id = ?", (size, session.id))
        self._soil(session.id)

    def set_expected_end(self, name: str, expected_end_at: float | None) -> None:
        """Note when the session is expected to end, in unix seconds; None for unknown."""
        with self.transaction():
            self._db.execute("UPDATE session SET expected_end_at = ? WHERE name = ?", (expected_end_at, name))

    def respecify(self, spec: SessionSpec, now: float) -> SessionRecord:
        """Give a session another specification; other parameters become a new version of them.

        The outputs become dirty where they would look different. Other parameters leave the pixel size of
        the outputs open again, unless they have it. What was picked stays as it is: see `withdraw`.

        Raises
        ------
        SessionError
            There is no session of that name.
        """
        with self.transaction():
            session = self.session(spec.name)
            if spec == session.spec:
                return session
            self._db.execute(
                "UPDATE session SET watch_root = ?, out_dir = ?, glob = ?, micrograph_prefix = ? WHERE id = ?",
                (str(spec.watch_root), str(spec.out_dir), spec.glob, spec.micrograph_prefix, session.id),
            )
            if spec.params != session.spec.params:
                self._add_version(session.id, spec.params, None, now)
                self._db.execute(
                    "UPDATE session SET pixel_size_angstrom = ? WHERE id = ?",
                    (spec.params.pixel_size_angstrom, session.id),
                )
            self._soil(session.id)
            return self.session(spec.name)

    def set_pixel_size(self, session_id: int, pixel_size_angstrom: float) -> None:
        """Fix the pixel size that the outputs carry; those written with another one become dirty."""
        with self.transaction():
            self._soil(session_id)
            self._db.execute(
                "UPDATE session SET pixel_size_angstrom = ? WHERE id = ?", (pixel_size_angstrom, session_id)
            )

    # ---- thresholds -----------------------------------------------------------------------------

    def in_force(self, outcome: Outcome) -> Outcome:
        """Return an outcome cut at the threshold in force, which may have moved while it was picked.

        It counts as picked with the parameters in force if these would find the same candidates.
        """
        ready, picks = outcome.ready, outcome.picks
        session = self.session(ready.session)
        if picks is None or ready.params_id == session.params_id:
            return outcome
        (then,) = (one for one in self.versions(session.id) if one.id == ready.params_id)
        threshold = session.params.threshold_for(then)
        params_id = session.params_id if session.params.picks_like(then) else then.id
        return replace(
            outcome,
            ready=replace(ready, params_id=params_id),
            picks=picks if threshold is None else replace(picks, threshold=threshold),
        )

    def rethreshold(self, name: str, threshold: float, now: float) -> SessionRecord:
        """Cut all recorded candidates at another threshold, and what will be recorded too.

        Raises
        ------
        SessionError
            There is no such session.
        UsageError
            The threshold is no probability.
        """
        with self.transaction():
            session = self.session(name)
            params = replace(session.spec.params, threshold=threshold)
            if params != session.spec.params:
                self._add_version(session.id, params, session.params.weights, now)
                session = self.session(name)
            like = {one.id for one in self.versions(session.id) if session.params.picks_like(one)}
            for picks in self._cut_anew(session.id, threshold):
                self._db.execute(
                    "UPDATE micrograph SET threshold = :threshold, n_picks = :n_picks, file_dirty ="
                    " file_dirty OR n_picks <> :n_picks, params_id = coalesce(:params_id, params_id) WHERE id = :id",
                    {
                        "id": picks["id"],
                        "threshold": threshold,
                        "n_picks": picks["n_picks"],
                        "params_id": session.params_id if picks["params_id"] in like else None,
                    },
                )
            self._soil(session.id)
            return session

    def _cut_anew(self, session_id: int, threshold: float) -> Iterator[dict[str, Any]]:
        """Yield id, parameters and the new number of picks of each published micrograph."""
        last = 0
        while found := self._all(
            "SELECT id, params_id, yx_score FROM micrograph JOIN candidates ON micrograph_id = id"
            " WHERE session_id = ? AND published = 1 AND id > ? ORDER BY id LIMIT ?",
            (session_id, last, BATCH_ROWS),
        ):
            last = found[-1]["id"]
            for row in found:
                score = rows.unpack(row["yx_score"])[:, 2]
                n_picks = int((score >= np.float32(threshold)).sum())
                yield {"id": row["id"], "params_id": row["params_id"], "n_picks": n_picks}

    # ---- outputs --------------------------------------------------------------------------------

    def request_rebuild(self, session_id: int) -> None:
        """Have every file of the outputs written anew."""
        with self.transaction():
            self._soil(session_id)
            self.soil_picks_files(session_id)

    def soil_picks_files(self, session_id: int) -> None:
        """Have every picks file written anew."""
        with self.transaction():
            self._db.execute(
                "UPDATE micrograph SET file_dirty = 1 WHERE session_id = ? AND published = 1", (session_id,)
            )

    def clean_picks_files(self, thresholds: Mapping[int, float]) -> None:
        """Note that the picks files of some micrographs, by id, hold the candidates that reach a threshold."""
        if thresholds:
            with self.transaction():
                self._db.executemany(
                    "UPDATE micrograph SET file_dirty = 0 WHERE id = ? AND threshold = ?", thresholds.items()
                )

    def _soil(self, session_id: int) -> None:
        """Note that the tables do not hold what the journal says now."""
        self._db.execute("UPDATE output SET dirty = 1 WHERE session_id = ?", (session_id,))
        self._db.execute("UPDATE session SET revision = revision + 1 WHERE id = ?", (session_id,))


def _columns(weights: PinnedWeights | None) -> tuple[str | None, float | None]:
    return (None, None) if weights is None else (weights.sha256, weights.threshold)
