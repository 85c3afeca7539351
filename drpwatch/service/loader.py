"""The loaders: threads that read ready micrographs into pooled buffers, ahead of the picker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
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
from drpwatch.session.journal import Journal

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
        Called with session and name of a micrograph that has to settle again.
    """

    def __init__(
        self,
        name: str,
        journal: Journal,
        dispatcher: Dispatcher,
        buffers: Buffers,
        loaded: Channel[Loaded],
        outcomes: Channel[Outcome],
        put_back: Callable[[str, str], None],
        publisher: Publisher,
        heartbeats: Heartbeats,
    ) -> None:
        self.name = name
        self._journal = journal
        self._dispatcher = dispatcher
        self._buffers = buffers
        self._loaded = loaded
        self._outcomes = outcomes
        self._put_back = put_back
        self._publisher = publisher
        self._heartbeats = heartbeats

    def run(self, stop: threading.Event, abandon: threading.Event) -> None:
        """Read until stopped; what is read by then is still handed on, until abandoned."""
        seen = 0
        while not stop.is_set():
            self._heartbeats.beat(self.name)
            try:
                ready = self._dispatcher.take()
            except DrpwatchError as error:
                self._publisher.problem("journal", "", str(error))
                stop.wait(_RETRY_S)
                continue
            if ready is None:
                seen = self._dispatcher.wait(seen, _IDLE_WAIT_S)
                continue
            self._load(ready, abandon)
        self._heartbeats.end(self.name)

    def _load(self, ready: ReadyMicrograph, abandon: threading.Event) -> None:
        """Read one micrograph and hand it on, or say why not."""
        buffer = None
        if not ready.header.compressed:  # the size of what is in a gzip file is only a claim
            buffer = self._buffers.take(ready.header.data_bytes, abandon)
            if buffer is None:
                self._dispatcher.done(ready)
                return
        started = time.perf_counter()
        try:
            pixels = mrc.read_pixels(ready.path, ready.header, ready.fingerprint, buffer)
        except (ChangedWhileReading, IncompleteMicrograph) as error:
            self._return(buffer)
            self._wait_again(ready, str(error))
        except MicrographError as error:
            self._return(buffer)
            self._fail(ready, str(error), abandon)
        except Exception as error:  # noqa: BLE001 - top of a stage thread: it becomes the outcome
            self._return(buffer)
            self._publisher.crashed(self.name, error)
            self._fail(ready, f"unexpected {type(error).__name__} while reading: {error}", abandon)
        else:
            item = Loaded(ready, pixels, buffer, time.perf_counter() - started)
            if not self._loaded.put(item, abandon):
                self._return(buffer)
                self._dispatcher.done(ready)

    def _wait_again(self, ready: ReadyMicrograph, reason: str) -> None:
        """Let a micrograph settle anew."""
        try:
            self._journal.put_back(ready.micrograph_id, reason)
        except DrpwatchError as error:  # it stays ready and is read again
            self._publisher.problem("journal", ready.session, str(error))
        else:
            self._publisher.put_back(ready.session, ready.name, reason)
            self._put_back(ready.session, ready.name)
        self._dispatcher.done(ready)

    def _fail(self, ready: ReadyMicrograph, reason: str, abandon: threading.Event) -> None:
        if not self._outcomes.put(Outcome(ready, None, failure=reason), abandon):
            self._dispatcher.done(ready)

    def _return(self, buffer: npt.NDArray[np.uint8] | None) -> None:
        if buffer is not None:
            self._buffers.give_back(buffer)
