"""A picking thread: sole owner of its device and of the models on it. There is one for each device."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from drpwatch.errors import DeviceError, DeviceFault, DeviceNotReady, MicrographError, WeightsError
from drpwatch.micrograph import Outcome
from drpwatch.service.ahead import Ahead, upload
from drpwatch.service.channel import Channel
from drpwatch.service.control import DeviceView
from drpwatch.service.device import Device
from drpwatch.service.devicenews import DeviceNews
from drpwatch.service.dispatch import Dispatcher
from drpwatch.service.flight import Seat
from drpwatch.service.heartbeats import Heartbeats
from drpwatch.service.illustrator import Illustrator
from drpwatch.service.loader import Loaded
from drpwatch.service.pickers import Picker, Uploaded, pick_in_steps
from drpwatch.service.publish import Publisher
from drpwatch.service.tiles import TileSizes

LOOP = "picker"


class Picking:
    """Picks what the loaders hand over, one micrograph at a time; the next is uploaded meanwhile.

    What its device cannot pick now goes back to the dispatcher, and so to whichever device takes it next.

    Parameters
    ----------
    name
        Of the loop.
    model
        That is loaded at the start, and stays while anything is picked.
    others_pick
        Tells whether another device can be used.
    weights_failed
        Called with session and reason when a session's model cannot be loaded: it has to end.
    warmed_up
        Called with `model` when it is on its device.
    """

    def __init__(
        self,
        name: str,
        device: Device,
        news: DeviceNews,
        seat: Seat,
        model: str,
        loaded: Channel[Loaded],
        outcomes: Channel[Outcome],
        dispatcher: Dispatcher,
        others_pick: Callable[[], bool],
        give_back: Callable[[Loaded], None],
        weights_failed: Callable[[str, str], None],
        warmed_up: Callable[[Picker], None],
        illustrator: Illustrator,
        publisher: Publisher,
        heartbeats: Heartbeats,
    ) -> None:
        self.name = name
        self._device = device
        self.news = news
        self.seat = seat
        self._model = model
        self._ahead = Ahead(loaded)
        self._outcomes = outcomes
        self._dispatcher = dispatcher
        self._others_pick = others_pick
        self._give_back = give_back
        self._weights_failed = weights_failed
        self._warmed_up = warmed_up
        self._illustrator = illustrator
        self._publisher = publisher
        self._heartbeats = heartbeats
        self._tiles = TileSizes(self._lack_memory)
        self._name: str | None = None
        self._memory_bytes: dict[str, int] = {}

    @property
    def not_ready(self) -> str | None:
        """Why nothing can be picked on this device now; None while it can."""
        return self._device.not_ready

    @property
    def view(self) -> DeviceView:
        """The device for people; from any thread."""
        return DeviceView(
            name=self.news.named(self._name),
            not_ready=self._device.not_ready,
            released=self._device.is_released,
            memory_bytes=self._memory_bytes,
            tile_px=self._tiles.last_px or None,
        )

    def run(self, stop: threading.Event, no_more: threading.Event, abandon: threading.Event) -> None:
        """Pick until `no_more` is set and the channel is empty, or abandoned.

        Once it is to stop, a device that cannot be used leaves what is loaded to those that can.

        Raises
        ------
        DeviceFault
            The device cannot be trusted any more; nothing of what was in flight was recorded.
        WeightsError
            The configured model cannot be loaded.
        """
        try:
            while not abandon.is_set():
                self._beat()
                if not self._is_prepared(stop):
                    self._leave_to_others()
                    if not stop.is_set():
                        continue
                    if self._others_pick():
                        break
                item, uploaded = self._ahead.take()
                if item is not None:
                    self._hand_on(item, uploaded, stop, abandon)
                elif no_more.is_set():
                    break
        except DeviceFault as error:
            abandon.set()  # from here on nothing of this process is recorded
            fault = type(error)(self.news.sentence(str(error)))
            self.seat.fail(fault)
            self._device.fail(fault)
            raise fault from error
        self._heartbeats.end(self.name)

    def _beat(self) -> None:
        self._heartbeats.beat(self.name)

    def _is_prepared(self, stop: threading.Event) -> bool:
        """Try to have a device that can be used, and is well."""
        if self._device.not_ready is None:
            self._device.look_after(stop)
        elif not stop.is_set():
            try:
                picker = self._device.picker(self._device.sha256_of(self._model), self._model)
            except DeviceNotReady as error:
                lost = str(error)
            else:
                lost = ""
                self._note(picker)
                self._warmed_up(picker)
            if lost:  # here, where no traceback holds what was on the device
                self._device.lose(lost, stop)
        return self._device.not_ready is None

    def _hand_on(
        self, item: Loaded, uploaded: Uploaded | None, stop: threading.Event, abandon: threading.Event
    ) -> None:
        """Pick one micrograph and pass the outcome on, if there is one."""
        outcome, lost = None, ""
        try:
            outcome = self._pick(item, uploaded, abandon)
        except DeviceNotReady as error:
            self.seat.leave()
            lost = str(error)
        if uploaded is not None:
            uploaded.wait()  # whatever became of it: nothing else may be read into its buffer before
            uploaded = None
        self._give_back(item)
        if outcome is None or not self._outcomes.put(outcome, abandon):
            self._dispatcher.done(item.ready)
        if lost:  # here, where no traceback holds what was on the device
            self._leave_to_others()
            self._dispatcher.ring()  # another device may have it while this one is waited for
            self._device.lose(lost, stop)

    def _leave_to_others(self) -> None:
        """Let go of what was taken for later."""
        waiting = self._ahead.give_up()
        if waiting is not None:
            self._give_back(waiting)
            self._dispatcher.done(waiting.ready)

    def _pick(self, item: Loaded, uploaded: Uploaded | None, abandon: threading.Event) -> Outcome | None:
        """Pick one micrograph; None where it stays ready for another time."""
        ready = item.ready
        if self._device.not_ready is not None:
            return None
        try:
            weights_sha256 = ready.weights_sha256 or self._device.sha256_of(ready.params.model)
            picker = self._device.picker(weights_sha256, ready.params.model)
        except WeightsError as error:
            self._weights_failed(ready.session, str(error))
            return None
        if not self.seat.take(ready, abandon, self._beat):
            return None
        outcome = self._pick_with(picker, item, uploaded)
        self.seat.leave()
        return outcome

    def _pick_with(self, picker: Picker, item: Loaded, uploaded: Uploaded | None) -> Outcome:
        """Pick one micrograph with a loaded model; what is wrong with it becomes the outcome."""
        ready = item.ready
        if picker.uploads_beside:
            uploaded = uploaded or upload(picker, item.pixels)
            self._ahead.begin(picker)
        try:
            outcome = pick_in_steps(
                picker,
                ready,
                item.pixels,
                item.read_s,
                self._tiles,
                self._beat,
                lambda there, prepared: self._draw(picker, item, there, prepared),
                uploaded,
            )
        except MicrographError as error:
            return Outcome(ready, None, failure=str(error), seconds={"read": item.read_s})
        except DeviceError:
            raise
        except Exception as error:  # noqa: BLE001 - top of a stage thread: it becomes the outcome
            self._publisher.crashed(self.name, error)
            return Outcome(ready, None, failure=f"unexpected {type(error).__name__} while picking: {error}")
        self._device.worked()
        self._note(picker)
        on_device_s = sum(seconds for stage, seconds in outcome.seconds.items() if stage != "read")
        self.news.picked(on_device_s, self._tiles.last_px, self._memory_bytes)
        return replace(outcome, device=self.news.label)

    def _lack_memory(self, tile_px: int, reason: str) -> None:
        """Have all memory for the micrograph that is picked now."""
        self._ahead.make_room()
        self.news.out_of_memory(tile_px, reason)

    def _note(self, picker: Picker) -> None:
        """Note how the device stands, for those who must not ask it themselves."""
        self._name, self._memory_bytes = picker.device_name, picker.memory_bytes()

    def _draw(self, picker: Picker, item: Loaded, uploaded: Any, prepared: Any) -> bool:
        """Have pictures of a micrograph made; that they cannot be made fails nothing."""
        if not self._illustrator.has_room:
            return False
        try:
            self._illustrator.offer(item.ready, picker.draw(uploaded, prepared))
        except DeviceFault:
            raise
        except DeviceError:
            return False  # no memory for pictures
        except Exception as error:  # noqa: BLE001 - pictures are not worth a micrograph
            self._publisher.crashed(self.name, error)
            return False
        return True
