"""Pooled buffers, and a queue that is full."""

import threading

import numpy as np
import pytest

from drpwatch.errors import DeviceNotReady
from drpwatch.service.channel import Buffer, Buffers, Channel


def test_buffers_are_used_again_and_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    buffers, never = Buffers(1), threading.Event()
    small = buffers.take(10, never)
    assert small is not None
    buffers.give_back(small)
    large = buffers.take(100, never)
    assert large is not None
    assert large.size == 100
    buffers.give_back(large)
    assert buffers.take(10, never) is large


def test_a_buffer_that_memory_has_no_room_for_costs_none() -> None:
    buffers, never = Buffers(1), threading.Event()
    with pytest.raises(MemoryError):
        buffers.take(1 << 60, never)
    assert buffers.take(10, never) is not None


def test_who_waits_beats_until_it_is_over() -> None:
    buffers, over = Buffers(0), threading.Event()
    assert buffers.take(10, over, over.set) is None


def test_a_pool_grows_and_shrinks_by_what_is_free_or_comes_back() -> None:
    buffers, over = Buffers(1), threading.Event()
    held = buffers.take(10, over)
    assert held is not None
    buffers.grow()
    second = buffers.take(10, over)
    assert second is not None
    buffers.shrink()
    buffers.give_back(held)  # this is the one that goes
    over.set()
    assert buffers.take(10, over) is None
    buffers.give_back(second)
    assert buffers.take(10, over) is second
    buffers.give_back(second)
    buffers.shrink()
    assert buffers.take(10, over) is None


def test_buffers_that_are_allocated_otherwise_take_the_place_of_those_before() -> None:
    made: list[Buffer] = []

    def allocate(size_bytes: int) -> Buffer:
        made.append(np.empty(size_bytes, np.uint8))
        return made[-1]

    buffers, never = Buffers(2), threading.Event()
    held, free = buffers.take(10, never), buffers.take(10, never)
    assert held is not None
    assert free is not None
    buffers.give_back(free)
    for _ in range(2):  # a device that was lost is ready once more
        buffers.allocate_by(allocate, pytest.fail)
    first = buffers.take(10, never)
    buffers.give_back(held)
    second = buffers.take(10, never)
    assert first is made[0]
    assert second is made[1]
    assert second is not None
    buffers.give_back(second)
    assert buffers.take(5, never) is second  # from now on the same ones
    assert len(made) == 2


def test_where_there_is_no_memory_of_a_kind_the_usual_is_taken_and_it_is_told_once() -> None:
    told: list[str] = []

    def allocate(size_bytes: int) -> Buffer:
        raise DeviceNotReady("no page-locked memory")

    buffers, never = Buffers(2), threading.Event()
    for _ in range(2):
        buffers.allocate_by(allocate, told.append)
        assert buffers.take(10, never) is not None
    assert told == ["no page-locked memory"]


def test_what_is_offered_waits_for_no_place() -> None:
    channel: Channel[int] = Channel(1)
    assert channel.offer(1)
    assert not channel.offer(2)
    assert channel.get() == 1
    assert channel.offer(3)
