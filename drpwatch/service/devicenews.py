"""What happens to one picking device, as metrics, log events and sentences that say which device it is."""

from __future__ import annotations

import structlog

from drpwatch.service.publish import Publisher

log = structlog.get_logger(__name__)


class DeviceNews:
    """Tells of one device.

    Parameters
    ----------
    label
        What it is called.
    is_one_of_several
        Whether sentences have to say which one they are about.
    """

    def __init__(self, label: str, publisher: Publisher, *, is_one_of_several: bool) -> None:
        self.label = label
        self._publisher = publisher
        self._metrics = publisher.metrics
        self._is_one_of_several = is_one_of_several

    def sentence(self, reason: str) -> str:
        """Return a reason that tells of which device it speaks, where there are several."""
        if not self._is_one_of_several or f'"{self.label}"' in reason:
            return reason
        return f"{self.label}: {reason}"

    def named(self, name: str | None) -> str | None:
        """Return what people call it, if that is known, after its label where there are several."""
        return name if not self._is_one_of_several else f"{self.label}: {name or 'not known yet'}"

    def usable(self) -> None:
        """Tell that it can be used."""
        self._metrics.device_ready.labels(device=self.label).set(1)
        self._publisher.over("device", "", self.label)

    def unusable(self, sentence: str) -> None:
        """Tell that it cannot be used."""
        self._metrics.device_ready.labels(device=self.label).set(0)
        self._publisher.problem("device", "", sentence, self.label)

    def loaded(self, model: str, weights_sha256: str, precision: str, imprecise: str | None) -> None:
        """Tell that a model lies on it, and in which numbers it computes; or why not in those that were wanted."""
        self._metrics.show_model(model, weights_sha256, self.label)
        self._metrics.device_released.labels(device=self.label).set(0)
        self._metrics.device_half_precision.labels(device=self.label).set(precision != "float32")
        told = log.bind(device=self.label, model=model, weights_sha256=weights_sha256)
        told.info("model_loaded", precision=precision)
        if imprecise is not None:
            told.warning("half_precision_refused", reason=imprecise)

    def unloaded(self, weights_sha256: str) -> None:
        """Tell that a model does not lie on it any more."""
        self._metrics.forget_model(weights_sha256, self.label)

    def released(self) -> None:
        """Tell that nothing lies on it any more, for there is nothing to pick."""
        self._metrics.device_released.labels(device=self.label).set(1)
        log.info("device_released", device=self.label)

    def canary(self, result: str) -> None:
        """Tell what came of the canary: "same" or "moved"."""
        self._metrics.canary_checks.labels(device=self.label, result=result).inc()

    def picked(self, seconds: float, tile_px: int, memory_bytes: dict[str, int]) -> None:
        """Tell how long a micrograph was on it, in which tiles, and what memory is in use."""
        self._metrics.device_busy_seconds.labels(device=self.label).inc(seconds)
        self._metrics.tile_px.labels(device=self.label).set(tile_px)
        for kind, size_bytes in memory_bytes.items():
            self._metrics.device_memory_bytes.labels(device=self.label, kind=kind).set(size_bytes)

    def out_of_memory(self, tile_px: int, reason: str) -> None:
        """Tell that it had too little memory for a micrograph in tiles of some size."""
        self._metrics.errors.labels(kind="memory").inc()
        log.warning("out_of_memory", device=self.label, tile_px=tile_px, reason=reason)
