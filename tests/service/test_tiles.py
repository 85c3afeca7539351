"""Which tile size is handed out, after what."""

import pytest

from drpwatch.service.tiles import RAISE_AFTER, TileSizes

SIZES = (2048, 1024, 512)
A, B = (4096, 4096), (8184, 11520)


def fail(tiles: TileSizes, kind: tuple[int, int] = A) -> bool:
    return tiles.failed(kind, SIZES, "full")


def test_the_usual_size_is_the_first() -> None:
    tiles = TileSizes()
    for _ in range(200):
        assert tiles.of(A, SIZES) == 2048
        tiles.worked(A)


def test_what_worked_is_remembered_for_each_kind_of_image() -> None:
    tiles = TileSizes()
    assert fail(tiles)
    assert fail(tiles)
    assert (tiles.of(A, SIZES), tiles.of(B, SIZES)) == (512, 2048)
    tiles.worked(A)
    assert tiles.of(A, SIZES) == 512
    assert not fail(tiles)
    assert tiles.of(A, SIZES) == 512


def pick_until_raised(tiles: TileSizes) -> int:
    size, picked = tiles.of(A, SIZES), 0
    while tiles.of(A, SIZES) == size:
        tiles.worked(A)
        picked += 1
    return picked


def test_it_is_raised_one_step_after_a_while() -> None:
    tiles = TileSizes()
    fail(tiles)
    fail(tiles)
    assert pick_until_raised(tiles) == RAISE_AFTER
    assert tiles.of(A, SIZES) == 1024
    assert pick_until_raised(tiles) == RAISE_AFTER
    assert tiles.of(A, SIZES) == 2048


def test_a_trial_that_failed_is_repeated_later_and_later() -> None:
    tiles = TileSizes()
    fail(tiles)
    waits = []
    for _ in range(7):
        waits.append(pick_until_raised(tiles) / RAISE_AFTER)
        fail(tiles)
    assert waits == [1, 2, 4, 8, 16, 32, 32]


@pytest.mark.parametrize("sizes", [(512,), (1024, 512)])
def test_another_model_may_have_fewer_sizes(sizes: tuple[int, ...]) -> None:
    tiles = TileSizes()
    fail(tiles)
    fail(tiles)
    assert tiles.of(A, sizes) == 512


def test_each_lack_of_memory_is_told() -> None:
    told: list[tuple[int, str]] = []
    tiles = TileSizes(lambda *what: told.append(what))
    fail(tiles)
    fail(tiles)
    assert told == [(2048, "full"), (1024, "full")]
