"""Where the daemon's pickers come from: `drpwatch.pick`, imported when the first model is loaded.

Weights that a session was given are copied into the state directory under their SHA-256. So what a
session picks with changes when somebody says so, and neither with an upgrade nor with the file of its model.
"""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

from drpwatch.config import Pick
from drpwatch.errors import OutputError, WeightsError
from drpwatch.service.pickers import Picker
from drpwatch.session import disk
from drpwatch.session.records import PinnedWeights


class Models:
    """Loads models onto the configured devices; a `PickerFactory`.

    Parameters
    ----------
    config
        The devices, and their resources.
    store
        Directory of the copies; made when it is needed.
    """

    def __init__(self, config: Pick, store: Path) -> None:
        self._config = config
        self._store = store
        self._pinning = threading.Lock()

    def __call__(self, weights_sha256: str, device: int) -> Picker:
        """Load weights that `pin` knows, onto a device that is the calling thread's from then on.

        Raises
        ------
        WeightsError
            The copy is gone or damaged.
        DeviceNotReady
            The device cannot be used now.
        """
        from drpwatch.pick.device import resolve, settle_on
        from drpwatch.pick.picker import Picker as TorchPicker

        copy = self._copy(weights_sha256)
        if not copy.is_file():
            raise WeightsError(f"{copy}: the copy of these weights is gone: give the session its model again")
        threads = self._config.cpu_threads
        target = resolve(self._config.picking_devices[device], threads)
        settle_on(target)
        picker = TorchPicker.load(str(copy), str(target), threads, self._config.precision)
        if picker.weights_sha256 != weights_sha256:
            raise WeightsError(
                f"{copy}: the copy of these weights was changed: give the session its model again"
            )
        return picker

    def release(self) -> None:
        """Give memory of the device that no picker uses any more to others."""
        from drpwatch.pick.device import release

        release()

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
