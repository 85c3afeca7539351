"""The canary: a micrograph that is always the same, so that its picks have to be, too.

A device that computes wrong results without an error, as GPUs do after some faults, is found by it.
"""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from drpwatch.errors import CanaryMoved, MicrographError
from drpwatch.micrograph import SCORE_FLOOR, Picks
from drpwatch.pick import scene
from drpwatch.pick.scene import PARAMS, PIXEL_SIZE_ANGSTROM
from drpwatch.service.clock import Clock
from drpwatch.service.pickers import Picker

_SEED, _DEPTH = 20_160, 0.6
_NEAR_PX = 1.0
_SAME_SCORE = 0.01  # sums are taken in another order now and then


def picture() -> npt.NDArray[np.float32]:
    """Return the canary, (h, w)."""
    return scene.picture(_SEED, _DEPTH)


class Canary:
    """Remembers what each model picked on it first, and compares.

    Parameters
    ----------
    every_s
        Seconds from one check to the next; 0 for never.
    """

    def __init__(self, every_s: float, clock: Clock) -> None:
        self._pixels = picture()
        self._every_s = every_s
        self._clock = clock
        self._first: dict[str, Picks | None] = {}  # by the SHA-256 of the weights
        self._checked_s = 0.0
        self._well_at = 0.0  # unix seconds

    @property
    def is_due(self) -> bool:
        """Whether the last check was too long ago."""
        return 0 < self._every_s <= self._clock.monotonic() - self._checked_s

    def check(self, picker: Picker) -> None:
        """Pick it, which also warms a model up that was just loaded: on a GPU all is run in the same shapes.

        Raises
        ------
        CanaryMoved
            The picks are not those of the first time.
        DeviceError
            The device cannot be used, now or any more.
        """
        try:
            uploaded = picker.upload(self._pixels)
            prepared = picker.prepare(uploaded, (PIXEL_SIZE_ANGSTROM, PIXEL_SIZE_ANGSTROM), PARAMS)
            picks = picker.choose(picker.detect(prepared, PARAMS, picker.tile_sizes_px[0]))
        except MicrographError:
            picks = None  # it said so after the device had its turn
        first = self._first.setdefault(picker.weights_sha256, picks)
        if not _same(first, picks):
            raise CanaryMoved(
                "the picks of the canary micrograph moved: the device computes something else than before;"
                f" what was picked after {datetime.fromtimestamp(self._well_at, UTC):%Y-%m-%d %H:%M:%S} UTC may be"
                " wrong: 'drpwatch session repick' picks it again"
            )
        self._checked_s, self._well_at = self._clock.monotonic(), self._clock.wall()


def _same(one: Picks | None, other: Picks | None) -> bool:
    """Tell whether two results are the same, but for the order of sums."""
    if one is None or other is None:
        return one is other
    return _has(other, one) and _has(one, other)


def _has(picks: Picks, wanted: Picks) -> bool:
    """Tell whether picks have all wanted ones that are clearly above the floor."""
    clear = wanted.score > SCORE_FLOOR + _SAME_SCORE
    apart = wanted.yx_px[clear][:, None] - picks.yx_px[None]  # (n, m, 2)
    near = (np.abs(apart) <= _NEAR_PX).all(axis=2)
    alike = np.abs(wanted.score[clear][:, None] - picks.score[None]) <= _SAME_SCORE
    return bool((near & alike).any(axis=1).all())
