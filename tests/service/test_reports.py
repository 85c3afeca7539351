"""Which sessions get a report by themselves, and what becomes of one that cannot be written."""

import threading
from contextlib import closing

import pytest
import structlog

from drpwatch.errors import OutputError
from drpwatch.report.handover import REPORT
from drpwatch.report.making import make_report
from drpwatch.service import reports as module
from drpwatch.service.reports import Reports
from drpwatch.session.lifecycle import Verb
from tests.report.making import Session
from tests.support import PATIENCE, eventually

DAY_S = 86_400.0


@pytest.fixture
def session(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LOOK_S", 0.02)
    made = Session(tmp_path)
    made.add(["a.mrc"])
    (tmp_path / "out").mkdir()
    with closing(made.journal):
        yield made


@pytest.fixture
def run(session):
    """Return a function that begins to see to reports, some time after the session ended."""
    running = []

    def start(later_s: float = 1.0) -> Reports:
        ended_at = session.journal.session("s1").changed_at
        reports = Reports(session.journal, lambda: ended_at + later_s)
        running.append(reports)
        reports.start()
        return reports

    with structlog.testing.capture_logs() as logged:
        start.logged = logged
        yield start
        for one in running:
            one.stop()


def has_looked(reports: Reports) -> None:
    eventually(lambda: reports._done is not None, 5, "the first look")
    reports.stop()


def test_each_end_of_a_session_is_followed_by_a_report(session, run):
    report = session.root / "out" / REPORT
    run()
    session.end()
    eventually(report.exists, 10, "a report")
    report.unlink()
    for verb in (Verb.REOPEN, Verb.STOP, Verb.DRAINED):
        session.journal.advance("s1", verb, session.journal.session("s1").changed_at + 60)
    eventually(report.exists, 10, "a report of the second end")


def test_one_that_ended_while_no_daemon_ran_gets_it_too(session, run):
    session.end()
    run()
    eventually((session.root / "out" / REPORT).exists, 10, "a report")


@pytest.mark.parametrize(("later_s", "there"), [(1.0, True), (2 * DAY_S, False)])
def test_one_that_has_it_or_ended_long_ago_is_left_alone(session, run, later_s, there):
    report = session.root / "out" / REPORT
    session.end()
    if there:
        report.write_text("mine")
    has_looked(run(later_s))
    assert [one for one in run.logged if one["event"] == "report_written"] == []
    assert report.exists() is there


def test_one_that_cannot_be_written_is_told_and_asked_for_no_more(session, run):
    (session.root / "out").rmdir()
    session.end()
    run()
    eventually(lambda: run.logged, 10, "a word")
    (told,) = run.logged
    assert told["event"] == "report_not_written"
    assert told["reason"] == "no such file or directory"


def test_a_report_that_hangs_holds_up_no_more_than_itself(session, monkeypatch):
    entered, released = threading.Event(), threading.Event()

    def slow(*given):
        entered.set()
        assert released.wait(300)
        return make_report(*given)

    monkeypatch.setattr(module, "make_report", slow)
    monkeypatch.setattr(module, "_TURN_WITHIN_S", 0.05)
    reports = Reports(session.journal, lambda: 0.0)
    first = threading.Thread(target=reports.make, args=("s1",))
    first.start()
    assert entered.wait(PATIENCE * 5)
    with pytest.raises(OutputError, match="another report is being made"):
        reports.make("s1")
    released.set()
    first.join(PATIENCE * 10)
