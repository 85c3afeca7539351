"""The loaders: threads that read ready micrographs into pooled buffers, ahead of the picker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from drpwatch.errors import ChangedWhileReading, DrpwatchError, IncompleteMicrograph, MicrographError
from drpwatch.formats import mrc
from drpwatch.micrograph import Outcome, ReadyMicrograph
from drpwatch.service.channel import Buffers, Channel
from drpwatch.service.dispatch import Dispatcher
from drpwatch.service.heartbeats import Heartbeats
from drpwatch.service.publish import Publisher
from drpwatch.service.reads import Reads
from drpwatch.service.repeats import Repeats, checksum

_IDLE_WAIT_S = 1.0
_RETRY_S = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A micrograph in memory: (h, w) pixels in the dtype of the file, in a buffer to give back."""

    ready: ReadyMicrograph
    pixels: npt.NDArray[Any]
    buffer: npt.NDArray[np.uint8] | None  # None: the pixels have memory of their own
    read_s: float


class Loader:
    """Reads one micrograph after the other.

    Parameters
    ----------
    put_back
        Called with a micrograph that has to settle again, and why; it stays on its way until that is done.
    """

    def __init__(
        self,
        name: str,
        dispatcher: Dispatcher,
        buffers: Buffers,
        loaded: Channel[Loaded],
        outcomes: Channel[Outcome],
        put_back: Callable[[ReadyMicrograph, str], None],
        repeats: Repeats,
        reads: Reads,
        publisher: Publisher,
        heartbeats: Heartbeats,
    ) -> None:
        self.name = name
        self._dispatcher = dispatcher
        self._buffers = buffers
        self._loaded = loaded
        self._outcomes = outcomes
        self._put_back = put_back
        self._repeats = repeats
        self._reads = reads
        self._replaced = threading.Event()
        self._publisher = publisher
        self._heartbeats = heartbeats

    def replace(self) -> bool:
        """End after what is being read now, for another one is in its place; False if that is known already."""
        if self._replaced.is_set():
            return False
        self._replaced.set()
        self._buffers.grow()
        self._heartbeats.end(self.name)  # a restart would bring nothing
        return True

    @property
    def is_replaced(self) -> bool:
        """Whether another one is in its place."""
        return self._replaced.is_set()

    def run(self, stop: threading.Event, abandon: threading.Event) -> None:
        """Read until stopped; what is read by then is still handed on, until abandoned."""
        seen = 0
        while not (stop.is_set() or self._replaced.is_set()):
            self._beat()
            try:
                ready = self._dispatcher.take(self._reads.hanging_sessions)
            except DrpwatchError as error:
                self._publisher.problem("journal", "", str(error))
                stop.wait(_RETRY_S)
                continue
            if ready is None:
                seen = self._dispatcher.wait(seen, _IDLE_WAIT_S)
                continue
            self._load(ready, abandon)
        if self._replaced.is_set():
            self._buffers.shrink()
        self._heartbeats.end(self.name)

    def _load(self, ready: ReadyMicrograph, abandon: threading.Event) -> None:
        """Read one micrograph and hand it on, or say why not."""
        buffer = None
        try:
            if not ready.header.compressed:  # the size of what is in a gzip file is only a claim
                buffer = self._buffers.take(ready.header.data_bytes, abandon, self._beat)
                if buffer is None:
                    self._dispatcher.done(ready)
                    return
            started = time.perf_counter()
            with self._reads.reading(self.name, ready):
                pixels = mrc.read_pixels(ready.path, ready.header, ready.fingerprint, buffer)
        except (ChangedWhileReading, IncompleteMicrograph) as error:
            self._return(buffer)
            self._put_back(ready, str(error))
        except MicrographError as error:
            self._return(buffer)
            self._fail(ready, str(error), abandon)
        except Exception as error:  # noqa: BLE001 - top of a stage thread: it becomes the outcome
            self._return(buffer)
            self._publisher.crashed(self.name, error)
            self._fail(ready, f"unexpected {type(error).__name__} while reading: {error}", abandon)
        else:
            ready = replace(ready, content=checksum(ready.header, pixels))
            item = Loaded(ready, pixels, buffer, time.perf_counter() - started)
            if not self._is_repeat(item, abandon) and not self._loaded.put(item, abandon, self._beat):
                self._return(buffer)
                self._dispatcher.done(ready)

    def _is_repeat(self, item: Loaded, abandon: threading.Event) -> bool:
        """Record what was picked of the same pixels before, if anything was."""
        ready = item.ready
        try:
            kept, picks = self._repeats.keep(ready), None
            if not kept:
                picks = self._repeats.picks(ready)
        except DrpwatchError as error:  # pick it, then
            self._publisher.problem("journal", ready.session, str(error))
            return False
        if kept:
            self._dispatcher.done(ready)
        elif picks is None:
            return False
        elif not self._outcomes.put(
            Outcome(ready, picks, seconds={"read": item.read_s}), abandon, self._beat
        ):
            self._dispatcher.done(ready)
        self._return(item.buffer)
        return True

    def _fail(self, ready: ReadyMicrograph, reason: str, abandon: threading.Event) -> None:
        if not self._outcomes.put(Outcome(ready, None, failure=reason), abandon, self._beat):
            self._dispatcher.done(ready)

    def _return(self, buffer: npt.NDArray[np.uint8] | None) -> None:
        if buffer is not None:
            self._buffers.give_back(buffer)

    def _beat(self) -> None:
        """Say that all is well; waiting for a place is, however long the device or a disk takes to come."""
        self._heartbeats.beat(self.name)
