"""What is plotted, from histories made by hand."""

import numpy as np
import pytest

from drpwatch.session.series import groups, series
from drpwatch.session.statistics import History

HOUR_S = 3600.0


def history(
    recorded_at: list[float],
    n_picks: list[int] | None = None,
    ready_at: list[float] | None = None,
    generation: list[int] | None = None,
    name: list[str] | None = None,
) -> History:
    n = len(recorded_at)
    ready = [at - 2.0 for at in recorded_at] if ready_at is None else ready_at
    return History(
        id=np.arange(1, n + 1),
        name=tuple(name or [f"m{number}.mrc" for number in range(n)]),
        written_at=np.arange(n, dtype=float),
        ready_at=np.array(ready),
        recorded_at=np.array(recorded_at),
        generation=np.array(generation or [1] * n),
        n_picks=np.array(n_picks or [100] * n),
    )


def test_a_steady_session_has_one_rate() -> None:
    found = series(history([60.0 + 10 * n for n in range(2880)]), now=60.0 + 28_800)
    assert found is not None
    assert found.per_hour[1:-1] == pytest.approx(360.0, rel=0.02)
    assert 50 <= len(found.begins_at) <= 120
    assert found.begins_at[0] % found.step_s == 0


@pytest.mark.parametrize("span_s", [0.0, 3.0, 50.0, HOUR_S, 48 * HOUR_S, 400 * HOUR_S])
def test_there_are_never_many_intervals(span_s: float) -> None:
    found = series(history(list(np.linspace(1e9, 1e9 + span_s, 500))), now=1e9 + span_s)
    assert found is not None
    assert len(found.begins_at) <= 120
    total = sum(rate * found.step_s / HOUR_S for rate in found.per_hour[:-1])
    assert total <= 501


def test_few_micrographs_have_long_intervals() -> None:
    found = series(history([0.0, 1800.0, 3600.0, 5400.0]), now=5400.0)
    assert found is not None
    assert len(found.begins_at) <= 3


def test_the_rate_of_an_interval_that_has_just_begun_is_not_told() -> None:
    made = history([*(10.0 * n for n in range(361)), 3661.0])
    rates = []
    for now in (3661.0, 3690.0, 3720.0):
        found = series(made, now)
        assert found is not None
        assert (found.begins_at[-1], found.step_s) == (3660.0, 60.0)
        rates.append(found.per_hour[-1])
    assert np.isnan(rates[0])
    assert rates[1:] == pytest.approx([120.0, 60.0])


def test_picks_have_their_spread_and_failures_are_apart() -> None:
    found = series(history([100.0 + n for n in range(11)], [*range(0, 100, 10), -1]), now=200.0)
    assert found is not None
    assert np.nanmin(found.picks_low) < np.nanmedian(found.picks_median) < np.nanmax(found.picks_high)
    assert found.failed.sum() == 1


def test_latency_is_of_first_generations() -> None:
    found = series(
        history([100.0, 101.0, 102.0], ready_at=[99.0, 98.0, 2.0], generation=[1, 1, 2]), now=102.0
    )
    assert found is not None
    assert np.nanmax(found.latency_most_s) == 3.0


def test_backlog_is_what_is_ready_and_not_recorded() -> None:
    nan = float("nan")
    found = series(
        history([50.0, 150.0, nan, nan], ready_at=[10.0, 20.0, 30.0, 40.0], n_picks=[1, 1, -1, -1]), now=200.0
    )
    assert found is not None
    assert found.backlog[-1] == 2
    assert found.backlog.max() == 4 or found.step_s > 40
    assert found.failed.sum() == 0


def test_directories_are_in_the_order_of_their_first_file() -> None:
    made = history([1.0, 2.0, 3.0, 4.0], [5, 6, -1, 8], name=["b/1", "a/1", "b/2", "top"])
    found = groups(made)
    assert [(group.name, group.n_picks) for group in found] == [("b", (5, -1)), ("a", (6,)), ("", (8,))]
    assert (found[0].first_at, found[0].last_at) == (0.0, 2.0)
