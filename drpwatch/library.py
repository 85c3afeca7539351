"""What Python programs and notebooks use: `from drpwatch import Picker`.

Owns: what may be given as a micrograph, and the words that refuse it. Does not own: picking (`pick.picker`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from drpwatch.errors import MicrographError, UsageError
from drpwatch.formats import mrc
from drpwatch.micrograph import PickParams, Picks
from drpwatch.pick import picker
from drpwatch.watch.probe import probe

MicrographLike: TypeAlias = str | os.PathLike[str] | npt.ArrayLike
"""The path of an MRC file, or the pixels themselves: (h, w) of any real type."""

_TAKEN_AS_THEY_ARE = ("i1", "u1", "i2", "u2", "f2", "f4")  # all others become float32


class Picker:
    """Picks particles in arrays and files; the model is loaded once, here, and stays loaded.

    Not to be shared between threads.

    Parameters
    ----------
    model
        Name of shipped weights, or the path of a weights file.
    device
        `auto`, `cpu`, `cuda` or `cuda:N`; `auto` is the GPU of a machine that has one.
    threads
        CPU threads, for all that this process does with torch; 0 leaves them as they are.

    Raises
    ------
    WeightsError
        The model is missing or damaged.
    DeviceNotReady
        The device cannot be used now.
    """

    def __init__(self, model: str | os.PathLike[str] = "general", device: str = "auto", threads: int = 0):
        self._picker = picker.Picker.load(os.fspath(model), device, threads)

    @property
    def default_threshold(self) -> float:
        """Least probability of a pick, where none is given."""
        return self._picker.default_threshold

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights file."""
        return self._picker.weights_sha256

    def pick(
        self,
        micrograph: MicrographLike,
        diameter_angstrom: float,
        *,
        pixel_size_angstrom: float | None = None,
        negative_stain: bool = False,
        threshold: float | None = None,
    ) -> Picks:
        """Pick one micrograph; the same one gives the same picks, whatever was picked before.

        Parameters
        ----------
        micrograph
            The path of an MRC file, or (h, w) pixels of any real type, which are left as they are.
        diameter_angstrom
            The particle's diameter.
        pixel_size_angstrom
            Angstrom per pixel; None is for files, whose headers tell it.
        negative_stain
            Whether particles are bright.
        threshold
            Least probability of a pick, 0 to 1; None for that of the model. At 0 every candidate is a pick.

        Returns
        -------
        picks
            Best first: `yx_px`, (n, 2) pixels of the micrograph, row and column, from 0; and `score`, (n,)
            probabilities. `enlargement` is over 1 where particles were seen to be so many times the diameter across.

        Raises
        ------
        UsageError
            There is no such file, a value has no meaning, or nobody gives a pixel size.
        MicrographError
            The file is no whole micrograph, the image is blank, or the particle does not fit it.
        DeviceError
            The device failed, or its memory is full.
        """
        params = PickParams(diameter_angstrom, pixel_size_angstrom, negative_stain, threshold)
        pixels, pixel_size_yx = _read(micrograph, pixel_size_angstrom)
        found = self._picker.pick(pixels, pixel_size_yx, params)
        keep = found.chosen
        return Picks(
            found.yx_px[keep], found.score[keep], found.threshold, found.weights_sha256, found.enlargement
        )


def _read(
    micrograph: MicrographLike, pixel_size_angstrom: float | None
) -> tuple[npt.NDArray[Any], tuple[float, float]]:
    """Return the (h, w) pixels of what a user gave, and angstrom per pixel along y and x."""
    if isinstance(micrograph, str | os.PathLike):
        pixels, from_header = _read_file(Path(micrograph).expanduser())
        what = f"{os.fspath(micrograph)}: the header gives no pixel size"
    else:
        pixels, from_header = _as_pixels(micrograph), None
        what = "an array does not tell its pixel size"
    if pixel_size_angstrom is not None:
        return pixels, (pixel_size_angstrom, pixel_size_angstrom)
    if from_header is None:
        raise UsageError(f"{what}: give pixel_size_angstrom")
    return pixels, from_header


def _read_file(path: Path) -> tuple[npt.NDArray[Any], tuple[float, float] | None]:
    if not os.path.lexists(path):
        raise UsageError(f"{path}: no such file")
    found = probe(path)
    try:
        if found.problem is not None:
            raise found.problem
        assert found.header is not None
        return mrc.read_pixels(path, found.header, found.fingerprint), found.header.pixel_size_yx_angstrom
    except MicrographError as error:
        raise type(error)(f"{path}: {error}") from error


def _as_pixels(values: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return an array as picking takes it, the same one where that is possible."""
    try:
        pixels = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise UsageError(f"not an array of numbers: {error}") from error
    if pixels.ndim != 2:
        raise UsageError(f"an array of shape {pixels.shape}: give one micrograph, (height, width)")
    if pixels.dtype.kind not in "biuf":
        raise UsageError(f"an array of {pixels.dtype}: give real numbers")
    code = pixels.dtype.str[1:]
    return np.require(pixels, dtype=code if code in _TAKEN_AS_THEY_ARE else "f4", requirements=["C", "W"])
