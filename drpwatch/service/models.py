"""Where the daemon's pickers come from: `drpwatch.pick`, imported when the first model is loaded.

Weights that a session was given are copied into the state directory under their SHA-256. So what a
session picks with changes when somebody says so, and neither with an upgrade nor with the file of its model.
"""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import numpy as np

from drpwatch.config import Pick
from drpwatch.errors import MicrographError, OutputError, WeightsError
from drpwatch.micrograph import PickParams
from drpwatch.service.picking import Picker
from drpwatch.session import disk
from drpwatch.session.records import PinnedWeights

_WARM_UP_SIDE_PX = 1024


class Models:
    """Loads models onto the configured device; a `PickerFactory`.

    Parameters
    ----------
    config
        The device, and its resources.
    store
        Directory of the copies; made when it is needed.
    """

    def __init__(self, config: Pick, store: Path) -> None:
        self._config = config
        self._store = store
        self._pinning = threading.Lock()

    def __call__(self, weights_sha256: str) -> Picker:
        """Load weights that `pin` knows, and pick noise once, so that the first micrograph takes no longer.

        Raises
        ------
        WeightsError
            The copy is gone or damaged.
        DeviceNotReady
            The device cannot be used now.
        """
        from drpwatch.pick.picker import Picker as TorchPicker

        copy = self._copy(weights_sha256)
        if not copy.is_file():
            raise WeightsError(f"{copy}: the copy of these weights is gone: give the session its model again")
        picker = TorchPicker.load(str(copy), self._config.device, self._config.cpu_threads)
        if picker.weights_sha256 != weights_sha256:
            raise WeightsError(
                f"{copy}: the copy of these weights was changed: give the session its model again"
            )
        noise = np.random.default_rng(0).standard_normal((_WARM_UP_SIDE_PX, _WARM_UP_SIDE_PX), np.float32)
        params = PickParams(diameter_angstrom=200.0, pixel_size_angstrom=2.0)
        try:
            picker.pick(noise, (2.0, 2.0), params)
        except MicrographError:
            return picker  # it said so after the device had its turn
        return picker

    def pin(self, model: str) -> PinnedWeights:
        """Read a model as a whole, keep a copy, and return what it is; callable from any thread.

        Raises
        ------
        WeightsError
            There is no such model, or it is damaged.
        OutputError
            The copy cannot be written.
        """
        from drpwatch.pick.weights import find, load_weights

        source = find(model)
        with self._pinning:  # the picking thread and the API may want the same one at once
            weights = load_weights(source)
            copy = self._copy(weights.sha256)
            try:
                if not copy.is_file():
                    content = source.read_bytes()
                    if hashlib.sha256(content).hexdigest() != weights.sha256:
                        raise WeightsError(f"{source}: changed while it was read: try again")
                    disk.make_directory(self._store)
                    disk.replace(copy, content)
            except OSError as error:
                why = (error.strerror or type(error).__name__).lower()
                raise OutputError(f"{copy}: a copy of the weights cannot be kept: {why}") from error
        return PinnedWeights(weights.sha256, weights.info.threshold)

    def _copy(self, weights_sha256: str) -> Path:
        return self._store / f"{weights_sha256}.safetensors"
