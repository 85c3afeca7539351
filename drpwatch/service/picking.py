"""The picking thread: sole owner of the device and of the models on it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from drpwatch.errors import DeviceError, DeviceFault, DeviceNotReady, MicrographError, WeightsError
from drpwatch.micrograph import Outcome
from drpwatch.service.channel import Channel
from drpwatch.service.control import DeviceView
from drpwatch.service.device import Device
from drpwatch.service.dispatch import Dispatcher
from drpwatch.service.flight import Flight
from drpwatch.service.heartbeats import Heartbeats
from drpwatch.service.illustrator import Illustrator
from drpwatch.service.loader import Loaded
from drpwatch.service.pickers import Picker, pick_in_steps
from drpwatch.service.publish import Publisher
from drpwatch.service.tiles import TileSizes

LOOP = "picker"


class Picking:
    """Picks what the loaders hand over, one micrograph at a time.

    Parameters
    ----------
    model
        That is loaded at the start, and stays while anything is picked.
    weights_failed
        Called with session and reason when a session's model cannot be loaded: it has to end.
    warmed_up
        Set once `model` is on its device.
    """

    def __init__(
        self,
        device: Device,
        model: str,
        loaded: Channel[Loaded],
        outcomes: Channel[Outcome],
        dispatcher: Dispatcher,
        flight: Flight,
        give_back: Callable[[Loaded], None],
        weights_failed: Callable[[str, str], None],
        warmed_up: threading.Event,
        illustrator: Illustrator,
        publisher: Publisher,
        heartbeats: Heartbeats,
    ) -> None:
        self._device = device
        self._model = model
        self._loaded = loaded
        self._outcomes = outcomes
        self._dispatcher = dispatcher
        self._flight = flight
        self._give_back = give_back
        self._weights_failed = weights_failed
        self._warmed_up = warmed_up
        self._illustrator = illustrator
        self._publisher = publisher
        self._heartbeats = heartbeats
        self._tiles = TileSizes(publisher.out_of_memory)
        self._name: str | None = None
        self._memory_bytes: dict[str, int] = {}

    @property
    def not_ready(self) -> str | None:
        """Why nothing can be picked now; None while it can."""
        return self._device.not_ready

    @property
    def view(self) -> DeviceView:
        """The device for people; from any thread."""
        return DeviceView(
            name=self._name,
            not_ready=self._device.not_ready,
            released=self._device.is_released,
            memory_bytes=self._memory_bytes,
            tile_px=self._tiles.last_px or None,
        )

    def run(self, stop: threading.Event, no_more: threading.Event, abandon: threading.Event) -> None:
        """Pick until `no_more` is set and the channel is empty, or abandoned.

        Raises
        ------
        DeviceFault
            The device cannot be trusted any more; nothing of what was in flight was recorded.
        WeightsError
            The configured model cannot be loaded.
        """
        try:
            while not abandon.is_set():
                self._heartbeats.beat(LOOP)
                self._prepare(stop)
                item = self._loaded.get()
                if item is not None:
                    self._hand_on(item, stop, abandon)
                elif no_more.is_set():
                    break
        except DeviceFault as fault:
            abandon.set()  # from here on nothing of this process is recorded
            self._flight.fail(fault)
            self._device.fail(fault)
            raise
        self._heartbeats.end(LOOP)

    def _prepare(self, stop: threading.Event) -> None:
        """Have a device that can be used, and is well."""
        if self._device.not_ready is None:
            self._device.look_after(stop)
        elif not stop.is_set():
            picker = self._device.picker(self._device.sha256_of(self._model), self._model, stop)
            if picker is not None:
                self._note(picker)
                self._warmed_up.set()

    def _hand_on(self, item: Loaded, stop: threading.Event, abandon: threading.Event) -> None:
        """Pick one micrograph and pass the outcome on, if there is one."""
        outcome, lost = None, ""
        try:
            outcome = self._pick(item, stop)
        except DeviceNotReady as error:
            self._flight.end()
            lost = str(error)
        self._give_back(item)
        if outcome is None or not self._outcomes.put(outcome, abandon):
            self._dispatcher.done(item.ready)
        if lost:  # here, where no traceback holds what was on the device
            self._device.lose(lost, stop)

    def _pick(self, item: Loaded, stop: threading.Event) -> Outcome | None:
        """Pick one micrograph; None where it stays ready for another time."""
        ready = item.ready
        try:
            weights_sha256 = ready.weights_sha256 or self._device.sha256_of(ready.params.model)
            picker = self._device.picker(weights_sha256, ready.params.model, stop)
        except WeightsError as error:
            self._weights_failed(ready.session, str(error))
            return None
        if picker is None:
            return None
        self._flight.begin(ready)
        outcome = self._pick_with(picker, item)
        self._flight.end()
        return outcome

    def _pick_with(self, picker: Picker, item: Loaded) -> Outcome:
        """Pick one micrograph with a loaded model; what is wrong with it becomes the outcome."""
        ready = item.ready
        try:
            outcome = pick_in_steps(
                picker,
                ready,
                item.pixels,
                item.read_s,
                self._tiles,
                lambda: self._heartbeats.beat(LOOP),
                lambda prepared: self._draw(picker, item, prepared),
            )
        except MicrographError as error:
            return Outcome(ready, None, failure=str(error), seconds={"read": item.read_s})
        except DeviceError:
            raise
        except Exception as error:  # noqa: BLE001 - top of a stage thread: it becomes the outcome
            self._publisher.crashed(LOOP, error)
            return Outcome(ready, None, failure=f"unexpected {type(error).__name__} while picking: {error}")
        self._device.worked()
        self._publisher.metrics.tile_px.set(self._tiles.last_px)
        self._note(picker)
        return outcome

    def _note(self, picker: Picker) -> None:
        """Note how the device stands, for those who must not ask it themselves."""
        self._name, self._memory_bytes = picker.device_name, picker.memory_bytes()
        for kind, size_bytes in self._memory_bytes.items():
            self._publisher.metrics.device_memory_bytes.labels(kind=kind).set(size_bytes)

    def _draw(self, picker: Picker, item: Loaded, prepared: Any) -> bool:
        """Have pictures of a micrograph made; that they cannot be made fails nothing."""
        if not self._illustrator.has_room:
            return False
        try:
            self._illustrator.offer(item.ready, picker.draw(item.pixels, prepared))
        except DeviceFault:
            raise
        except DeviceError:
            return False  # no memory for pictures
        except Exception as error:  # noqa: BLE001 - pictures are not worth a micrograph
            self._publisher.crashed(LOOP, error)
            return False
        return True
