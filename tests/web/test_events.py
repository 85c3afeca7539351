"""Server-sent events: in order, each once, and nothing is missed without being told."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

from drpwatch.web import events as module
from drpwatch.web.events import Events


async def read(stream: AsyncIterator[bytes], count: int) -> list[tuple[str, str, Any]]:
    """Return id, kind and data of the next events."""
    found: list[tuple[str, str, Any]] = []
    while len(found) < count:
        chunk = (await asyncio.wait_for(anext(stream), 5)).decode()
        fields = dict(line.split(": ", 1) for line in chunk.splitlines() if ": " in line)
        if "event" in fields:
            found.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return found


def test_a_page_is_told_what_happens_from_any_thread() -> None:
    async def run() -> None:
        events = Events()
        stream = events.stream()
        assert (await read(stream, 1))[0][1] == "hello"
        threading.Thread(target=events.tell, args=("micrograph",), kwargs={"name": "ä.mrc"}).start()
        ((_, kind, data),) = await read(stream, 1)
        assert (kind, data) == ("micrograph", {"name": "ä.mrc"})
        await stream.aclose()

    asyncio.run(run())


def test_a_page_that_was_away_is_told_what_it_missed_and_nothing_twice() -> None:
    async def run() -> None:
        events = Events()
        stream = events.stream()
        await read(stream, 1)
        for number in range(3):
            events.tell("found", n=number)
        told = await read(stream, 2)
        await stream.aclose()
        events.tell("found", n=3)
        again = events.stream(told[-1][0])
        assert [data["n"] for _, _, data in await read(again, 2)] == [2, 3]
        await again.aclose()

    asyncio.run(run())


def test_a_page_that_missed_too_much_looks_at_everything_anew() -> None:
    async def run() -> None:
        events = Events()
        stream = events.stream()
        ((first, _, _),) = await read(stream, 1)
        await stream.aclose()
        for number in range(module._KEPT + 1):
            events.tell("found", n=number)
        for last_id in (first, "dead-5", "nonsense", f"{first.partition('-')[0]}-99999999999999999999"):
            late = events.stream(last_id)
            ((place, kind, _),) = await read(late, 1)
            assert kind == "reset", last_id
            assert place.endswith(f"-{module._KEPT + 1}")
            events_after = asyncio.ensure_future(read(late, 1))
            await asyncio.sleep(0)
            assert not events_after.done()
            events_after.cancel()

    asyncio.run(run())


def test_streams_end_with_the_daemon_and_are_counted() -> None:
    async def run() -> None:
        events = Events()
        streams = [events.stream() for _ in range(module.MOST_STREAMS)]
        for stream in streams:
            await read(stream, 1)
        assert events.full
        ends = [asyncio.ensure_future(drained(stream)) for stream in streams]
        await asyncio.sleep(0.05)
        events.close()
        await asyncio.wait_for(asyncio.gather(*ends), 5)
        assert not events.full

    asyncio.run(run())


def test_silence_is_broken(monkeypatch) -> None:
    monkeypatch.setattr(module, "_KEEP_ALIVE_S", 0.02)

    async def run() -> None:
        stream = Events().stream()
        await read(stream, 1)
        assert (await asyncio.wait_for(anext(stream), 5)).startswith(b":")
        await stream.aclose()

    asyncio.run(run())


async def drained(stream: AsyncIterator[bytes]) -> None:
    async for _ in stream:
        pass
