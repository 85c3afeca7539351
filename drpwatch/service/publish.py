"""Telling the world: what happens in the stages becomes metrics and log events.

One place, so that a stage says what happened once, in its own terms. Nothing here can fail a stage.
"""

from __future__ import annotations

import threading

import structlog

from drpwatch.micrograph import Outcome
from drpwatch.service.clock import Clock
from drpwatch.service.metrics import Metrics
from drpwatch.session.records import Crash, SessionRecord
from drpwatch.web.events import Events

log = structlog.get_logger(__name__)


class Publisher:
    """Turns events of the pipeline into metrics and log events; safe to call from any thread."""

    def __init__(self, metrics: Metrics, clock: Clock | None = None, events: Events | None = None) -> None:
        self.metrics = metrics
        self._events = events or Events()
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._told: dict[tuple[str, str], str] = {}  # (kind, session or device) -> the problem told last

    def found(self, session: str, name: str, by: str, *, rewritten: bool) -> None:
        """Tell that a micrograph is whole."""
        self.metrics.found.labels(by=by).inc()
        log.debug("micrograph_ready", session=session, micrograph=name, found_by=by, rewritten=rewritten)
        self._events.tell("found", session=session)

    def waiting(self, session: str, name: str, reason: str) -> None:
        """Tell why a micrograph waits."""
        log.debug("micrograph_waiting", session=session, micrograph=name, reason=reason)

    def rejected(self, session: str, name: str, reason: str) -> None:
        """Tell that a micrograph failed before it was read."""
        self.metrics.micrographs.labels(session=session, outcome="failed").inc()
        self.metrics.errors.labels(kind="file").inc()
        log.warning("micrograph_failed", session=session, micrograph=name, reason=reason)
        self._events.tell("micrograph", session=session, name=name, picks=None)

    def only_touched(self, session: str, name: str) -> None:
        """Tell that a file changed and has the same pixels as before."""
        log.info("micrograph_only_touched", session=session, micrograph=name)

    def moved(self, session: str, before: str, name: str) -> None:
        """Tell that a micrograph has the pixels of one that is not there any more."""
        log.info("micrograph_moved", session=session, micrograph=name, before=before)

    def left_out(self, session: str, name: str) -> None:
        """Tell that a file is no micrograph, for there is a preferred one beside it."""
        log.info("micrograph_left_out", session=session, micrograph=name)

    def source(self, session: str, name: str, *, missing: bool) -> None:
        """Tell that a file of which something is recorded is not there any more, or there again."""
        log.info("source_missing" if missing else "source_back", session=session, micrograph=name)

    def put_back(self, session: str, name: str, reason: str) -> None:
        """Tell that a micrograph was no longer whole when it was read."""
        log.info("micrograph_put_back", session=session, micrograph=name, reason=reason)

    def scanned(self, session: str, seconds: float, *, ok: bool, no_events: str | None) -> None:
        """Tell that a watch root was looked through, and why events do not tell of its files, if so."""
        self.metrics.watch_events.labels(session=session).set(int(no_events is None))
        self.metrics.scans.labels(result="ok" if ok else "failed").inc()
        self.metrics.watch_root_readable.labels(session=session).set(int(ok))
        if ok:
            self.metrics.scan_seconds.observe(seconds)

    def hangs(self, session: str, sentence: str) -> None:
        """Tell that a look at a watch root does not come to an end."""
        self.metrics.watch_root_readable.labels(session=session).set(0)
        self.problem("scan", session, sentence)

    def recorded(self, outcome: Outcome, record_s: float) -> None:
        """Tell that an outcome is durable."""
        ready, picks, now = outcome.ready, outcome.picks, self._clock.wall()
        seconds = {**outcome.seconds, "record": record_s}
        for stage, duration in seconds.items():
            self.metrics.stage_seconds.labels(stage=stage).observe(duration)
        told = log.bind(
            session=ready.session,
            micrograph=ready.name,
            generation=ready.generation,
            device=outcome.device,
            seconds={stage: round(duration, 4) for stage, duration in seconds.items()},
        )
        if picks is None:
            self.metrics.micrographs.labels(session=ready.session, outcome="failed").inc()
            self.metrics.errors.labels(kind="pick").inc()
            told.warning("micrograph_failed", reason=outcome.failure)
            self._events.tell("micrograph", session=ready.session, name=ready.name, picks=None)
            return
        kind = "rewritten" if ready.generation > 1 else "picked" if picks.count else "zero"
        self.metrics.micrographs.labels(session=ready.session, outcome=kind).inc()
        self.metrics.picks.labels(session=ready.session).inc(picks.count)
        self.metrics.picks_per_micrograph.observe(picks.count)
        if ready.generation == 1:  # what is picked again on request may have been whole for days
            self.metrics.finished_to_recorded_seconds.observe(max(0.0, now - ready.ready_at))
        self.metrics.last_pick_timestamp_seconds.set(now)
        larger = {} if picks.enlargement == 1 else {"enlargement": round(picks.enlargement, 2)}
        told.info("micrograph_picked", picks=picks.count, candidates=len(picks.score), **larger)
        self._events.tell("micrograph", session=ready.session, name=ready.name, picks=picks.count)

    def illustrated(self, session: str, name: str) -> None:
        """Tell that there are pictures of a micrograph."""
        self._events.tell("picture", session=session, name=name)

    def free(self, session: str, free_bytes: int) -> None:
        """Tell how much room a session's outputs have; of one that ended long ago nobody asks."""
        if session in self.metrics.sessions:
            self.metrics.output_free_bytes.labels(session=session).set(free_bytes)

    def problem(self, kind: str, session: str, sentence: str, device: str | None = None) -> None:
        """Tell of something that holds work up; the same sentence is logged once until it is over."""
        self.metrics.errors.labels(kind=kind).inc()
        with self._lock:
            known = self._told.get((kind, device or session)) == sentence
            self._told[kind, device or session] = sentence
        if not known:
            self._events.tell("session", session=session or None)
            log.warning("held_up", **_about(kind, session, device), reason=sentence)

    def over(self, kind: str, session: str, device: str | None = None) -> None:
        """Tell that what `problem` told of is over."""
        with self._lock:
            was = self._told.pop((kind, device or session), None)
        if was is not None:
            self._events.tell("session", session=session or None)
            log.info("going_on", **_about(kind, session, device))

    def state(self, session: str, state: str, reason: str | None = None) -> None:
        """Tell that a session is in another state."""
        self.metrics.show_state(session, state)
        log.info("session_state", session=session, state=state, reason=reason)
        self._events.tell("session", session=session)

    def params(self, session: SessionRecord) -> None:
        """Tell which parameters are in force."""
        weights = session.params.weights
        self._events.tell("session", session=session.spec.name)
        log.info(
            "session_params",
            session=session.spec.name,
            version=session.params.version,
            weights_sha256=None if weights is None else weights.sha256,
            **session.spec.params.as_dict(),
        )

    def not_page_locked(self, reason: str) -> None:
        """Tell that micrographs are read into usual memory, from which uploads take longer."""
        log.warning("buffers_not_page_locked", reason=reason)

    def recalled(self, crash: Crash, words: str) -> None:
        """Tell how the process before this one ended."""
        log.error(
            "previous_crash",
            kind=crash.kind,
            reason=crash.reason,
            micrographs=[suspect.name for suspect in crash.suspects],
            last_words=words,
        )

    def crashed(self, loop: str, error: BaseException) -> None:
        """Tell of an error that nobody foresaw, with its traceback."""
        self.metrics.errors.labels(kind="internal").inc()
        log.error("unexpected_error", loop=loop, error=str(error), exc_info=error)


def _about(kind: str, session: str, device: str | None) -> dict[str, str | None]:
    """Return the fields that tell what a problem is about."""
    about = {"kind": kind, "session": session or None}
    return about if device is None else {**about, "device": device}
