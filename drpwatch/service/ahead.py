"""The next micrograph, on its way to the device while the one before is picked."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from drpwatch.errors import DeviceOutOfMemory
from drpwatch.service.channel import Channel
from drpwatch.service.loader import Loaded
from drpwatch.service.pickers import Picker, Uploaded


class Ahead:
    """What a picking thread has taken from the loaders before its turn: one micrograph at most.

    It is not aboard yet: its pixels are copied, and nothing is computed from them.
    """

    def __init__(self, loaded: Channel[Loaded]) -> None:
        self._loaded = loaded
        self._item: Loaded | None = None
        self._uploaded: Uploaded | None = None

    def take(self) -> tuple[Loaded | None, Uploaded | None]:
        """Return the next micrograph, and what came of its upload; waits a little where none is loaded."""
        if self._item is None:
            return self._loaded.get(), None
        taken = self._item, self._uploaded
        self._item = self._uploaded = None
        return taken

    def begin(self, picker: Picker) -> None:
        """Begin to upload the next micrograph, if one is loaded."""
        if self._item is None:
            self._item = self._loaded.get(0)
            if self._item is not None:
                self._uploaded = upload(picker, self._item.pixels)

    def make_room(self) -> None:
        """Leave the memory of the device to the micrograph that is picked now; what is next is uploaded again."""
        if self._uploaded is not None:
            self._uploaded.wait()
            self._uploaded = None

    def give_up(self) -> Loaded | None:
        """Return the next micrograph if it was taken, for others to pick it."""
        self.make_room()
        item, self._item = self._item, None
        return item


def upload(picker: Picker, pixels: npt.NDArray[Any]) -> Uploaded | None:
    """Begin to upload (h, w) pixels; None if that cannot be, of which is told when it is tried once more."""
    try:
        return picker.upload(pixels)
    except (DeviceOutOfMemory, RuntimeError, TypeError, ValueError):
        return None
