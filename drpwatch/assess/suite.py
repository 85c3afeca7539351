"""Picks a data set and measures the picks: what `drpwatch evaluate --suite` prints a line of.

Owns: picking a `DataSet`, one micrograph after the other, and its figures. Does not own: what a data set
is (`datasets`), the matching (`detection`), nor loading a model: whoever calls has done so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from drpwatch.assess.coordinates import Coordinates
from drpwatch.assess.datasets import DESCRIPTION, DataSet
from drpwatch.assess.detection import Evaluation, SweepPoint, evaluate
from drpwatch.errors import DeviceError, MicrographError, UnusableMicrograph, UsageError
from drpwatch.formats import mrc
from drpwatch.micrograph import SCORE_FLOOR, PickParams, Picks
from drpwatch.watch.probe import probe

_SWEEP = (SCORE_FLOOR, *(round(0.05 * step, 2) for step in range(1, 20)))
_PIXEL_SIZE_TOLERANCE = 0.005  # headers round; two magnifications differ by far more


class Picker(Protocol):
    """A loaded model."""

    def pick(self, pixels: npt.NDArray[Any], pixel_size_yx: tuple[float, float], params: PickParams) -> Picks:
        """Pick one micrograph, (h, w) pixels."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Picked:
    """What picking one micrograph gave; with a failure, no candidates."""

    micrograph: str
    candidates: Coordinates  # all that reach `SCORE_FLOOR`
    picks: Coordinates  # those of them that reach the threshold
    threshold: float | None  # in force
    seconds: float  # of picking; reading is not in it
    failure: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """The figures of one data set; what has no value is NaN or None."""

    data_set: DataSet
    diameter_px: float
    micrographs: tuple[Picked, ...]
    result: Evaluation | None  # at the threshold in force; None: there is no truth
    best: SweepPoint | None  # of thresholds 0.05 apart, and the one in force

    @property
    def failures(self) -> dict[str, str]:
        """Reasons by micrograph; these count as without picks."""
        return {one.micrograph: one.failure for one in self.micrographs if one.failure is not None}

    @property
    def median_picks(self) -> float:
        """Median number of picks of a micrograph."""
        return float(np.median([len(one.picks.yx_px) for one in self.micrographs]))

    @property
    def median_error_diameters(self) -> float:
        """Median distance of the right picks from their particles, in particle diameters."""
        return float("nan") if self.result is None else self.result.pooled.median_error_px / self.diameter_px

    @property
    def seconds(self) -> float:
        """Median seconds of picking one micrograph: the first, which warms up, does not weigh."""
        taken = [one.seconds for one in self.micrographs if one.failure is None]
        return float(np.median(taken)) if taken else float("nan")


def measure(
    picker: Picker,
    data_set: DataSet,
    step: Callable[[Picked], None] = lambda _: None,
    diameter_factor: float = 1.0,
) -> Measured:
    """Pick all micrographs of a data set at default settings, and hold the picks against what is known.

    Parameters
    ----------
    picker
        A loaded model.
    data_set
        What to pick.
    step
        Called after each micrograph.
    diameter_factor
        The picker is told the diameter times this; what is right is judged by the true one.

    Raises
    ------
    UsageError
        Nobody tells the pixel size, or the truth has no micrograph that can be scored.
    DeviceError
        The device cannot be used, now or any more.
    """
    pixel_size = _pixel_size_angstrom(data_set)
    diameter_px = data_set.params.diameter_angstrom / pixel_size
    params = replace(data_set.params, diameter_angstrom=data_set.params.diameter_angstrom * diameter_factor)
    done = []
    for name, path in data_set.micrographs.items():
        done.append(_pick(picker, name, path, params, pixel_size))
        step(done[-1])
    result = best = None
    if data_set.truth is not None:
        radius_px = diameter_px / 2
        result = evaluate({one.micrograph: one.picks for one in done}, data_set.truth, radius_px)
        candidates = {one.micrograph: one.candidates for one in done}
        thresholds = {*_SWEEP, *(one.threshold for one in done if one.threshold is not None)}
        best = evaluate(candidates, data_set.truth, radius_px, sorted(thresholds)).best
    return Measured(data_set, diameter_px, tuple(done), result, best)


def read_pixels(path: Path) -> npt.NDArray[Any]:
    """Return the (h, w) pixels of a micrograph that is whole, in the dtype of its file.

    Raises
    ------
    MicrographError
        It is not whole, or no micrograph.
    """
    found = probe(path)
    if found.problem is not None:
        raise found.problem
    assert found.header is not None
    return mrc.read_pixels(path, found.header, found.fingerprint)


def _pixel_size_angstrom(data_set: DataSet) -> float:
    """Return the pixel size that is given, else that of the first header that tells one."""
    if data_set.params.pixel_size_angstrom is not None:
        return data_set.params.pixel_size_angstrom
    for path in data_set.micrographs.values():
        header = None if path is None else probe(path).header
        if header is not None and header.pixel_size_yx_angstrom is not None:
            y, x = header.pixel_size_yx_angstrom
            return float((y * x) ** 0.5)
    raise UsageError(
        f"{data_set.name}: no header tells a pixel size: give pixel_size_angstrom in its {DESCRIPTION}"
    )


def _pick(
    picker: Picker, name: str, path: Path | None, params: PickParams, pixel_size_angstrom: float
) -> Picked:
    """Pick one micrograph; what is wrong with it becomes its failure."""
    try:
        if path is None:
            raise UnusableMicrograph("the truth names it, and there is no such file")
        pixels, size_yx = _read(path, params, pixel_size_angstrom)
        started = time.perf_counter()
        found = picker.pick(pixels, size_yx, params)
        seconds = time.perf_counter() - started
    except DeviceError:
        raise
    except MicrographError as error:
        failure = str(error)
    except Exception as error:  # noqa: BLE001 - one file must leave its neighbours alone
        failure = f"unexpected {type(error).__name__} while picking: {error}"
    else:
        yx_px, score = found.yx_px.astype(np.float64), found.score.astype(np.float64)
        return Picked(
            micrograph=name,
            candidates=Coordinates(yx_px, score),
            picks=Coordinates(yx_px[found.chosen], score[found.chosen]),
            threshold=float(np.float32(found.threshold)),
            seconds=seconds,
        )
    return Picked(name, Coordinates.none(), Coordinates.none(), None, 0.0, failure)


def _read(
    path: Path, params: PickParams, pixel_size_angstrom: float
) -> tuple[npt.NDArray[Any], tuple[float, float]]:
    """Return the (h, w) pixels of a micrograph, and their size along y and x."""
    size_yx = params.pixel_size_yx(mrc.read_header(path))
    size = (size_yx[0] * size_yx[1]) ** 0.5
    if abs(size / pixel_size_angstrom - 1) > _PIXEL_SIZE_TOLERANCE:
        raise UnusableMicrograph(
            f"its pixel size is {size:.4g} Å, that of the set's first {pixel_size_angstrom:.4g} Å"
        )
    return read_pixels(path), size_yx
