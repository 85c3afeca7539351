"""The picking thread: sole owner of the device and of the models on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import Any, Protocol

import numpy.typing as npt

from drpwatch.errors import DeviceFault, DeviceNotReady, DrpwatchError, MicrographError, WeightsError
from drpwatch.micrograph import Outcome, PickParams, Picks, ReadyMicrograph
from drpwatch.service.channel import Channel
from drpwatch.service.dispatch import Dispatcher
from drpwatch.service.heartbeats import Heartbeats
from drpwatch.service.loader import Loaded
from drpwatch.service.publish import Publisher
from drpwatch.session.records import PinnedWeights

LOOP = "picker"
_BACK_OFF_S = (1.0, 2.0, 5.0, 10.0, 30.0)


class Picker(Protocol):
    """A loaded model: pixels to picks in three steps that are timed apart."""

    weights_sha256: str

    def prepare(
        self, pixels: npt.NDArray[Any], pixel_size_yx: tuple[float, float], params: PickParams
    ) -> Any:
        """Bring (h, w) pixels to the device."""
        ...

    def detect(self, prepared: Any, params: PickParams) -> Any:
        """Run the detector."""
        ...

    def choose(self, candidate_map: Any) -> Picks:
        """Turn the detector's map into picks."""
        ...

    def memory_bytes(self) -> dict[str, int]:
        """Return the device's memory by kind; empty for a CPU."""
        ...


class PickerFactory(Protocol):
    """Where pickers come from; a fake one keeps tests away from torch."""

    def __call__(self, weights_sha256: str) -> Picker:
        """Load weights that were pinned and warm them up; raises WeightsError or DeviceNotReady."""
        ...

    def pin(self, model: str) -> PinnedWeights:
        """Check a model and keep its weights as they are now; raises WeightsError. From any thread."""
        ...


def pick_in_steps(
    picker: Picker,
    ready: ReadyMicrograph,
    pixels: npt.NDArray[Any],
    read_s: float,
    beat: Callable[[], None] = lambda: None,
) -> Outcome:
    """Pick one micrograph, (h, w) pixels, and time each step.

    Raises
    ------
    MicrographError
        It cannot be picked.
    DeviceError
        The device cannot be used, now or any more.
    """
    seconds = {"read": read_s}
    pixel_size_yx = ready.params.pixel_size_yx(ready.header)
    started = time.perf_counter()
    prepared = picker.prepare(pixels, pixel_size_yx, ready.params)
    seconds["prepare"] = -started + (started := time.perf_counter())
    candidate_map = picker.detect(prepared, ready.params)
    beat()
    seconds["detect"] = -started + (started := time.perf_counter())
    picks = picker.choose(candidate_map)
    seconds["choose"] = time.perf_counter() - started
    return Outcome(ready, picks, seconds=seconds)


class Picking:
    """Picks what the loaders hand over, one micrograph at a time.

    Parameters
    ----------
    weights_failed
        Called with session and reason when a session's model cannot be loaded: it has to end.
    warmed_up
        Set once `model` is on its device.
    """

    def __init__(
        self,
        factory: PickerFactory,
        model: str,
        loaded: Channel[Loaded],
        outcomes: Channel[Outcome],
        dispatcher: Dispatcher,
        give_back: Callable[[Loaded], None],
        weights_failed: Callable[[str, str], None],
        warmed_up: threading.Event,
        publisher: Publisher,
        heartbeats: Heartbeats,
    ) -> None:
        self._factory = factory
        self._model = model
        self._loaded = loaded
        self._outcomes = outcomes
        self._dispatcher = dispatcher
        self._give_back = give_back
        self._weights_failed = weights_failed
        self._warmed_up = warmed_up
        self._publisher = publisher
        self._heartbeats = heartbeats
        self._pickers: dict[str, Picker] = {}  # by the SHA-256 of their weights
        self._pinned: dict[str, str] = {}  # of models that came without the SHA-256 of their weights
        self._losses = 0  # of the device, since it last picked something
        self.not_ready: str | None = "the model is being loaded"
        """Why nothing can be picked now; None while it can."""

    def run(self, stop: threading.Event, no_more: threading.Event, abandon: threading.Event) -> None:
        """Pick until `no_more` is set and the channel is empty, or abandoned.

        Raises
        ------
        DeviceFault
            The device cannot be trusted any more; nothing of what was in flight was recorded.
        WeightsError
            The configured model cannot be loaded.
        """
        if self._picker(self._sha256_of(self._model), self._model, stop) is not None:
            self._warmed_up.set()
        while not abandon.is_set():
            self._heartbeats.beat(LOOP)
            item = self._loaded.get()
            if item is None:
                if no_more.is_set():
                    break
                continue
            outcome = self._pick(item, stop)
            self._give_back(item)
            if outcome is None or not self._outcomes.put(outcome, abandon):
                self._dispatcher.done(item.ready)
        self._heartbeats.end(LOOP)

    def _pick(self, item: Loaded, stop: threading.Event) -> Outcome | None:
        """Pick one micrograph; None where it stays ready for another time."""
        ready = item.ready
        try:
            weights_sha256 = ready.weights_sha256 or self._sha256_of(ready.params.model)
            picker = self._picker(weights_sha256, ready.params.model, stop)
        except WeightsError as error:
            self._weights_failed(ready.session, str(error))
            return None
        if picker is None:
            return None
        try:
            outcome = pick_in_steps(
                picker, ready, item.pixels, item.read_s, lambda: self._heartbeats.beat(LOOP)
            )
            for kind, size_bytes in picker.memory_bytes().items():
                self._publisher.metrics.device_memory_bytes.labels(kind=kind).set(size_bytes)
            self._losses = 0
            return outcome
        except MicrographError as error:
            return Outcome(ready, None, failure=str(error), seconds={"read": item.read_s})
        except DeviceNotReady as error:
            self._lose_device(str(error), stop)
            return None
        except DeviceFault:
            raise
        except Exception as error:  # noqa: BLE001 - top of a stage thread: it becomes the outcome
            self._publisher.crashed(LOOP, error)
            return Outcome(ready, None, failure=f"unexpected {type(error).__name__} while picking: {error}")

    def _picker(self, weights_sha256: str, model: str, stop: threading.Event) -> Picker | None:
        """Return a loaded model, waiting for the device as long as it takes; None when stopped.

        Loading one drops those that no live session picks with any more.
        """
        while weights_sha256 not in self._pickers:
            self._heartbeats.beat(LOOP)
            self._drop_unused()
            try:
                picker = self._factory(weights_sha256)
            except DeviceNotReady as error:
                self._lose_device(str(error), stop)
                if stop.is_set():
                    return None
                continue
            self._pickers[weights_sha256] = picker
            self._publisher.metrics.show_model(model, weights_sha256)
        self.not_ready = None
        self._publisher.metrics.device_ready.set(1)
        self._publisher.over("device", "")
        return self._pickers[weights_sha256]

    def _sha256_of(self, model: str) -> str:
        """Return what a model's name stands for, in all of the daemon's life."""
        if model not in self._pinned:
            self._pinned[model] = self._factory.pin(model).sha256
        return self._pinned[model]

    def _drop_unused(self) -> None:
        try:
            wanted = {*self._pinned.values(), *self._dispatcher.weights_in_use()}
        except DrpwatchError:  # the journal does not answer now; it is no use to end for that
            return
        self._drop_all_but(wanted)

    def _drop_all_but(self, wanted: Collection[str]) -> None:
        """Let the device have the memory of models that are not wanted."""
        for weights_sha256 in self._pickers.keys() - set(wanted):
            del self._pickers[weights_sha256]
            self._publisher.metrics.forget_model(weights_sha256)

    def _lose_device(self, reason: str, stop: threading.Event) -> None:
        """Note that the device is not usable, and wait; models on it are loaded again when it is."""
        self._drop_all_but(())
        self.not_ready = reason
        self._publisher.metrics.device_ready.set(0)
        self._publisher.problem("device", "", reason)
        self._sleep(_BACK_OFF_S[min(self._losses, len(_BACK_OFF_S) - 1)], stop)
        self._losses += 1

    def _sleep(self, seconds: float, stop: threading.Event) -> None:
        """Wait, still beating."""
        until = time.monotonic() + seconds
        while not stop.is_set() and time.monotonic() < until:
            self._heartbeats.beat(LOOP)
            stop.wait(min(1.0, seconds))
