"""Where the daemon's pickers come from: `drpwatch.pick`, imported when the first model is loaded."""

from __future__ import annotations

import numpy as np

from drpwatch.config import Pick
from drpwatch.errors import MicrographError
from drpwatch.micrograph import PickParams
from drpwatch.service.picking import Picker

_WARM_UP_SIDE_PX = 1024


class Models:
    """Loads models onto the configured device; a `PickerFactory`."""

    def __init__(self, config: Pick) -> None:
        self._config = config

    def __call__(self, model: str) -> Picker:
        """Load a model and pick noise once, so that the first micrograph takes no longer than others.

        Raises
        ------
        WeightsError
            The model is missing or damaged.
        DeviceNotReady
            The device cannot be used now.
        """
        from drpwatch.pick.picker import Picker as TorchPicker

        picker = TorchPicker.load(model, self._config.device, self._config.cpu_threads)
        noise = np.random.default_rng(0).standard_normal((_WARM_UP_SIDE_PX, _WARM_UP_SIDE_PX), np.float32)
        params = PickParams(diameter_angstrom=200.0, pixel_size_angstrom=2.0)
        try:
            picker.pick(noise, (2.0, 2.0), params)
        except MicrographError:
            return picker  # it said so after the device had its turn
        return picker

    def check(self, model: str) -> None:
        """Raise WeightsError if there is no such model."""
        from drpwatch.pick.weights import find

        find(model)
