"""Pooled buffers, and a queue that is full."""

import threading

import pytest

from drpwatch.service.channel import Buffers, Channel


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


def test_what_is_offered_waits_for_no_place() -> None:
    channel: Channel[int] = Channel(1)
    assert channel.offer(1)
    assert not channel.offer(2)
    assert channel.get() == 1
    assert channel.offer(3)
