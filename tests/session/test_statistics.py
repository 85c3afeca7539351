"""What is told of a session: the micrographs that stand for it now, whatever became of them before."""

from pathlib import Path

import numpy as np
import pytest

from drpwatch.errors import JournalError, SessionError
from drpwatch.session.scores import THRESHOLDS, Scores
from drpwatch.session.series import groups, series
from drpwatch.session.statistics import Show, Statistics
from tests.session.bench import Bench

EMPTY, JUNK = 4, 6  # versions of files that have no picks, and that cannot be picked


@pytest.fixture
def bench(scratch: Path) -> Bench:
    made = Bench(scratch)
    for number in range(3):
        made.appear(f"G1/m{number}.mrc", 1)
    made.appear("G2/empty.mrc", EMPTY)
    made.appear("G2/junk.mrc", JUNK)
    while (ready := made.take()) is not None:
        made.record(ready)
    made.reject("G2/none.mrc")
    return made


@pytest.fixture
def statistics(bench: Bench) -> Statistics:
    return Statistics(bench.journal.path)


def names(statistics: Statistics, show: Show, limit: int = 100, **bounds: int) -> list[str]:
    return [one.name for one in statistics.recorded(1, show, limit, **bounds)]


def test_a_session_is_found_by_name(statistics: Statistics, scratch: Path) -> None:
    assert statistics.session("s1") == (1, scratch / "out")
    with pytest.raises(SessionError, match="no session named s2"):
        statistics.session("s2")


def test_each_kind_is_listed_and_counted_newest_first(statistics: Statistics) -> None:
    picked = ["G1/m0.mrc", "G1/m1.mrc", "G1/m2.mrc"]
    everything = names(statistics, Show.ALL)
    assert everything[0] == "G2/none.mrc"
    assert sorted(names(statistics, Show.PICKED)) == picked
    assert names(statistics, Show.EMPTY) == ["G2/empty.mrc"]
    assert sorted(names(statistics, Show.FAILED)) == ["G2/junk.mrc", "G2/none.mrc"]
    assert statistics.count(1) == {Show.ALL: 6, Show.PICKED: 3, Show.EMPTY: 1, Show.FAILED: 2}


def test_pages_follow_each_other(statistics: Statistics) -> None:
    everything = statistics.recorded(1, Show.ALL, 100)
    seq = everything[2].seq
    assert names(statistics, Show.ALL, 2, before=seq) == [one.name for one in everything[3:5]]
    assert names(statistics, Show.ALL, 1, since=seq) == [everything[1].name]
    assert names(statistics, Show.ALL, 9, since=everything[0].seq) == []


def test_one_micrograph(statistics: Statistics) -> None:
    (one, *_) = statistics.recorded(1, Show.PICKED, 1)
    assert statistics.one(1, one.id) == one
    assert one.shape_yx == (100, 120)
    assert one.diameter_px == pytest.approx(100.0)
    assert one.threshold == 0.5
    ((_, candidates),) = statistics.candidates([one.id])
    assert (candidates[:, 2] >= 0.5).sum() == one.n_picks
    with pytest.raises(SessionError, match="no recorded micrograph 99"):
        statistics.one(1, 99)


def test_a_failed_one_has_its_reason(statistics: Statistics) -> None:
    reasons = {one.name: one.reason for one in statistics.recorded(1, Show.FAILED, 9)}
    assert reasons == {"G2/junk.mrc": "blank", "G2/none.mrc": "junk"}


def test_while_it_is_picked_again_the_older_generation_stands(bench: Bench, statistics: Statistics) -> None:
    before = statistics.recorded(1, Show.ALL, 100)
    bench.repick(["G1/m0.mrc"])
    assert statistics.recorded(1, Show.ALL, 100) == before
    ready = bench.take()
    assert ready is not None
    bench.record(ready)
    after = statistics.recorded(1, Show.ALL, 100)
    assert (after[0].name, after[0].generation) == ("G1/m0.mrc", 2)
    assert len(after) == len(before)


def test_a_rewritten_one_that_fails_stands_as_failed(bench: Bench, statistics: Statistics) -> None:
    bench.reject("G1/m0.mrc")
    assert names(statistics, Show.ALL, 1) == ["G1/m0.mrc"]
    assert "G1/m0.mrc" not in names(statistics, Show.PICKED)
    assert statistics.count(1)[Show.FAILED] == 3


def test_the_threshold_in_force(bench: Bench, statistics: Statistics) -> None:
    assert statistics.threshold(1) == 0.5
    bench.rethreshold(0.25)
    assert statistics.threshold(1) == 0.25


@pytest.mark.parametrize("threshold", [0.0, 0.07, 0.29, 0.57, 0.9, 1.0])
def test_what_is_foretold_of_a_threshold_comes_true(
    bench: Bench, statistics: Statistics, threshold: float
) -> None:
    foretold = Scores(statistics).picks_at_thresholds(1)[round(threshold * 100)]
    bench.rethreshold(threshold)
    assert bench.journal.totals(1).picks == foretold


def test_scores_follow_what_is_recorded_and_picked_again(bench: Bench, statistics: Statistics) -> None:
    scores = Scores(statistics)
    assert scores.picks_at_thresholds(1)[50] == bench.journal.totals(1).picks
    bench.appear("G1/m9.mrc", 1)
    bench.appear("G1/m0.mrc", 2)
    while (ready := bench.take()) is not None:
        bench.record(ready)
    assert scores.picks_at_thresholds(1)[50] == bench.journal.totals(1).picks
    assert list(THRESHOLDS[[0, 50, 100]]) == [0.0, 0.5, 1.0]


def test_history_becomes_series_and_a_map(bench: Bench, statistics: Statistics) -> None:
    bench.appear("G3/late.mrc", 1)
    history = statistics.history(1)
    found = series(history, bench.now)
    assert found is not None
    assert found.failed.sum() == 2
    assert np.nansum(found.per_hour) > 0
    assert found.backlog[-1] == 1
    assert {group.name: group.n_picks.count(-1) for group in groups(history)} == {"G1": 0, "G2": 2}
    (first,) = (group for group in groups(history) if group.name == "G1")
    by_id = {one.id: one.n_picks for one in statistics.recorded(1, Show.ALL, 9)}
    assert [by_id[one] for one in first.id] == list(first.n_picks)


def test_nothing_is_told_of_a_session_without_micrographs(scratch: Path) -> None:
    made = Bench(scratch)
    statistics = Statistics(made.journal.path)
    history = statistics.history(1)
    assert series(history, made.now) is None
    assert groups(history) == []
    assert statistics.recorded(1, Show.ALL, 10) == []
    assert Scores(statistics).picks_at_thresholds(1).sum() == 0


def test_it_cannot_write_and_waits_for_no_writer(bench: Bench, statistics: Statistics) -> None:
    with pytest.raises(JournalError, match="readonly"):
        statistics._all("DELETE FROM micrograph", ())
    with bench.journal.transaction():
        bench.journal.note_waiting(1, "x.mrc", "growing", 5.0)
        assert statistics.count(1)[Show.ALL] == 6


def test_a_journal_that_is_gone_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"journal .*none\.db: cannot be read"):
        Statistics(tmp_path / "none.db").session("s1")
