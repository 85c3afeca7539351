"""A device as its picking thread has it: the models that lie on it, and whether it can be used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

from drpwatch.config import Pick
from drpwatch.errors import CanaryMoved, DeviceFault, DeviceNotReady, DrpwatchError
from drpwatch.service.canary import Canary
from drpwatch.service.clock import Clock
from drpwatch.service.devicenews import DeviceNews
from drpwatch.service.dispatch import Dispatcher
from drpwatch.service.pickers import Picker, PickerFactory

_BACK_OFF_S = (1.0, 2.0, 5.0, 10.0, 30.0)


class Pins:
    """What names of models stand for, in all of the daemon's life and on all devices."""

    def __init__(self, factory: PickerFactory) -> None:
        self._factory = factory
        self._lock = threading.Lock()
        self._pinned: dict[str, str] = {}

    def sha256_of(self, model: str) -> str:
        """Return the SHA-256 of the weights of a model that came without one."""
        with self._lock:
            if model not in self._pinned:
                self._pinned[model] = self._factory.pin(model).sha256
            return self._pinned[model]

    @property
    def weights(self) -> frozenset[str]:
        """The SHA-256 of all of these."""
        with self._lock:
            return frozenset(self._pinned.values())


class Device:
    """Loads models when they are wanted, and takes them off the device when they are not.

    Parameters
    ----------
    number
        Which of the configured devices it is, from 0.
    beat
        Called while the device is waited for.
    """

    def __init__(
        self,
        number: int,
        factory: PickerFactory,
        pins: Pins,
        config: Pick,
        dispatcher: Dispatcher,
        news: DeviceNews,
        clock: Clock,
        beat: Callable[[], None],
    ) -> None:
        self._number = number
        self._factory = factory
        self._pins = pins
        self._config = config
        self._dispatcher = dispatcher
        self._news = news
        self._clock = clock
        self._beat = beat
        self._canary = Canary(config.canary_every_s, clock)
        self._pickers: dict[str, Picker] = {}  # by the SHA-256 of their weights
        self._losses = 0  # since it last picked something
        self._used_s = clock.monotonic()
        self.not_ready: str | None = news.sentence("the model is being loaded")
        """Why nothing can be picked now; None while it can."""

    @property
    def is_released(self) -> bool:
        """Whether models are off the device only because there is nothing to pick."""
        return self.not_ready is None and not self._pickers

    def sha256_of(self, model: str) -> str:
        """Return what a model's name stands for."""
        return self._pins.sha256_of(model)

    def picker(self, weights_sha256: str, model: str) -> Picker:
        """Return a loaded model; loading it drops those that no live session picks with any more.

        Raises
        ------
        WeightsError
            The weights cannot be loaded.
        DeviceNotReady
            The device cannot be used now: what was to be picked has to go elsewhere.
        DeviceFault
            The device failed for good.
        """
        if weights_sha256 not in self._pickers:
            self._beat()
            self._drop_unused()
            self._load(weights_sha256, model)
        self._used_s = self._clock.monotonic()
        self.not_ready = None
        self._news.usable()
        return self._pickers[weights_sha256]

    def worked(self) -> None:
        """Say that the device picked something."""
        self._losses = 0
        self._used_s = self._clock.monotonic()

    def look_after(self, stop: threading.Event) -> None:
        """Check that the device still picks the same, and release it when nothing was picked for long.

        Raises
        ------
        DeviceFault
            It does not.
        """
        if not self._pickers:
            return
        limit_s = self._config.release_after_s
        if 0 < limit_s <= self._clock.monotonic() - self._used_s:
            self._take_off(self._pickers.keys())
            self._news.released()
        elif self._canary.is_due:
            try:
                self._check(next(iter(self._pickers.values())))
            except DeviceNotReady as error:
                self.lose(str(error), stop)

    def lose(self, reason: str, stop: threading.Event) -> None:
        """Note that the device is not usable, and wait; models on it are loaded again when it is."""
        self._take_off(self._pickers.keys())
        self._note_unusable(self._news.sentence(reason))
        self._wait(_BACK_OFF_S[min(self._losses, len(_BACK_OFF_S) - 1)], stop)
        self._losses += 1

    def fail(self, fault: DeviceFault) -> None:
        """Note that the device failed for good."""
        self._note_unusable(str(fault))

    def _note_unusable(self, sentence: str) -> None:
        self.not_ready = sentence
        self._news.unusable(sentence)

    def _load(self, weights_sha256: str, model: str) -> None:
        """Load a model, and warm it up."""
        picker = self._factory(weights_sha256, self._number)
        self._check(picker)
        self._pickers[weights_sha256] = picker
        self._news.loaded(model, weights_sha256, picker.precision, picker.imprecise)

    def _check(self, picker: Picker) -> None:
        try:
            self._canary.check(picker)
        except CanaryMoved:
            self._news.canary("moved")
            raise
        self._news.canary("same")

    def _drop_unused(self) -> None:
        try:
            wanted = self._pins.weights | self._dispatcher.weights_in_use()
        except DrpwatchError:  # the journal does not answer now; it is no use to end for that
            return
        self._take_off(self._pickers.keys() - wanted)

    def _take_off(self, sha256s: Collection[str]) -> None:
        """Let others have the memory of models."""
        for weights_sha256 in (gone := list(sha256s)):
            del self._pickers[weights_sha256]
            self._news.unloaded(weights_sha256)
        if gone:
            self._factory.release()

    def _wait(self, seconds: float, stop: threading.Event) -> None:
        """Wait, still beating."""
        until_s = self._clock.monotonic() + seconds
        while not stop.is_set() and self._clock.monotonic() < until_s:
            self._beat()
            stop.wait(min(1.0, seconds))
