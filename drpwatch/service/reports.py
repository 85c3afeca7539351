"""Reports of sessions: on request, and of each session that is completed, into its output directory."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from drpwatch.errors import DrpwatchError, OutputError
from drpwatch.report.handover import REPORT
from drpwatch.report.making import make_report
from drpwatch.service.aside import Aside
from drpwatch.session import disk
from drpwatch.session.journal import Journal
from drpwatch.session.lifecycle import SessionState
from drpwatch.session.records import SessionRecord

log = structlog.get_logger(__name__)

_LOOK_S = 1.0
_LATELY_S = 86_400.0  # a session that ended so long before the daemon began needs no report now
_TURN_WITHIN_S = 20.0


class Reports(Aside):
    """Makes reports, one at a time; a thread of its own sees to those of completed sessions.

    A report reads micrographs, so a file server that hangs can hold it up, and nothing else.

    Parameters
    ----------
    now
        The wall clock, unix seconds.
    """

    def __init__(self, journal: Journal, now: Callable[[], float]) -> None:
        super().__init__("reports")
        self._journal = journal
        self._now = now
        self._turn = threading.Lock()
        self._done: set[tuple[int, float]] | None = None  # session and time of its end; None: not looked yet

    def make(self, name: str) -> bytes:
        """Return the report of a session; callable from any thread.

        Raises
        ------
        SessionError
            There is no session of that name.
        JournalError
            The journal cannot be read.
        OutputError
            Another report takes too long.
        """
        if not self._turn.acquire(timeout=_TURN_WITHIN_S):
            raise OutputError(f"session {name}: another report is being made and takes long: try again later")
        try:
            return make_report(self._journal.path, name)
        finally:
            self._turn.release()

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_S):
            try:
                self._look()
            except Exception as error:
                log.error("unexpected_error", loop="reports", error=str(error), exc_info=error)

    def _look(self) -> None:
        """Write the reports of the sessions that were completed since the last look."""
        try:
            completed = self._journal.sessions([SessionState.COMPLETED])
        except DrpwatchError:
            return  # others tell of it
        first, self._done = self._done is None, self._done or set()
        for session in completed:
            mark = (session.id, session.changed_at)
            if mark in self._done:
                continue
            self._done.add(mark)
            if not (first and self._has_its_report(session)):
                self._write(session)

    def _has_its_report(self, session: SessionRecord) -> bool:
        """Tell whether an earlier daemon saw to a session."""
        long_ago = self._now() - session.changed_at > _LATELY_S
        return long_ago or (session.spec.out_dir / REPORT).exists()

    def _write(self, session: SessionRecord) -> None:
        path = session.spec.out_dir / REPORT
        try:
            content = self.make(session.spec.name)
            if not self._stop.is_set():
                disk.replace(path, content)
        except (DrpwatchError, OSError) as error:
            why = (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
            log.warning("report_not_written", session=session.spec.name, path=path, reason=why)
        else:
            log.info("report_written", session=session.spec.name, path=path)
