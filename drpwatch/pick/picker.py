"""The picker: a model that stays loaded, and three steps from pixels to picks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from drpwatch.micrograph import SCORE_FLOOR, PickParams, Picks, Pictures
from drpwatch.pick.device import faults, memory_bytes, name_of, resolve
from drpwatch.pick.field import Background, noise_twin
from drpwatch.pick.networks import detect_in_tiles, fused, patch_centres, patches_at, usual_tile_px
from drpwatch.pick.peaks import Candidates, find_candidates
from drpwatch.pick.pictures import micrograph_picture, spectrum_picture
from drpwatch.pick.preprocess import Bounds, PreparedImage, prepare
from drpwatch.pick.scoring import features, field_log_odds, probability, told
from drpwatch.pick.weights import Weights, find, load_weights

_CLASSIFIER_BATCH = 256
_LEAST_CLASSIFIER_BATCH = 16
_GPU_TILE_PX = 2048
_LEAST_TILE_PX = 128


@dataclass(frozen=True, slots=True, eq=False)
class CandidateMap:
    """The detector's map, (h, w), over the image that it was made from."""

    prepared: PreparedImage
    distance_map: torch.Tensor
    params: PickParams
    tile_px: int | None = None  # the detector's tiles; None: the usual ones
    classifier_batch: int = _CLASSIFIER_BATCH


class Picker:
    """Picks particles on one device; not to be shared between threads.

    The same micrograph gives the same picks, whatever was picked before: there is no state but the weights.
    """

    def __init__(self, weights: Weights, device: torch.device) -> None:
        self.device = device
        self.weights = weights  # its networks lie on the device from here on
        self.info = weights.info
        self.weights_sha256 = weights.sha256
        self.device_name = name_of(device)
        self.default_threshold = weights.info.threshold
        self._detector = fused(weights.detector.to(device))
        self._classifier = fused(weights.classifier.to(device)) if weights.classifier is not None else None
        self._field_judge = weights.field_judge.to(device) if weights.field_judge is not None else None
        usual_px = usual_tile_px(weights.detector) if device.type == "cpu" else _GPU_TILE_PX
        self.tile_sizes_px = tuple(_halved(usual_px, _LEAST_TILE_PX))
        """In which tiles the detector can run, the usual ones first; the smaller, the less memory is needed."""

    @classmethod
    def load(cls, model: str = "general", device: str = "auto", threads: int = 0) -> Self:
        """Load a model, by the name of a shipped one or the path of a file.

        Raises
        ------
        WeightsError
            The model is missing or damaged.
        DeviceNotReady
            The device cannot be used now.
        """
        target = resolve(device, threads)
        with faults():
            return cls(load_weights(find(model)), target)

    def pick(self, pixels: npt.NDArray[Any], pixel_size_yx: tuple[float, float], params: PickParams) -> Picks:
        """Pick one micrograph, (h, w) of any real type.

        Raises
        ------
        UnusableMicrograph
            The image is blank, or a particle of this diameter does not fit it.
        DeviceFault
            The device failed; the process should end.
        """
        return self.choose(self.detect(self.prepare(pixels, pixel_size_yx, params), params))

    def prepare(
        self, pixels: npt.NDArray[Any], pixel_size_yx: tuple[float, float], params: PickParams
    ) -> PreparedImage:
        """Bring pixels to the device and to the networks' scale and contrast."""
        with faults(), torch.inference_mode():
            on_device = torch.from_numpy(pixels).to(self.device, non_blocking=True)
            return prepare(on_device, pixel_size_yx, params, self.info.preprocessing)

    def detect(self, prepared: PreparedImage, params: PickParams, tile_px: int | None = None) -> CandidateMap:
        """Run the detector; the classifier, later, in batches that are as much smaller as the tiles."""
        usual_px = self.tile_sizes_px[0]
        tile_px = tile_px or usual_px
        batch = max(_LEAST_CLASSIFIER_BATCH, min(_CLASSIFIER_BATCH, _CLASSIFIER_BATCH * tile_px // usual_px))
        with faults(), torch.inference_mode():
            distance_map = detect_in_tiles(self._detector, prepared.image, tile_px)
            return CandidateMap(prepared, distance_map, params, tile_px, batch)

    def choose(self, candidate_map: CandidateMap) -> Picks:
        """Find the peaks, let the classifier judge them, and score them."""
        with faults(), torch.inference_mode():
            prepared, found = candidate_map.prepared, self.candidates(candidate_map)
            x = features(found, self.log_odds(prepared, found, candidate_map.classifier_batch))
            if self._field_judge is not None and len(x):
                x[:, 4] = field_log_odds(self._field_judge, x, self._background(candidate_map))
            score = probability(x, self.info.calibration).astype(np.float32)
        keep = score >= SCORE_FLOOR
        yx_px = found.yx[keep] * np.asarray(prepared.scale_yx, dtype=np.float32)
        order = np.lexsort((yx_px[:, 1], yx_px[:, 0], -score[keep]))
        threshold = candidate_map.params.threshold
        return Picks(
            yx_px=np.ascontiguousarray(yx_px[order], dtype=np.float32),
            score=score[keep][order],
            threshold=self.default_threshold if threshold is None else threshold,
            weights_sha256=self.weights_sha256,
        )

    def draw(self, pixels: npt.NDArray[Any], prepared: PreparedImage) -> Pictures:
        """Make what people see of a micrograph, from its pixels and what `prepare` made of them."""
        with faults(), torch.inference_mode():
            spectrum = spectrum_picture(torch.from_numpy(pixels), prepared.bounds, self.device)
            return Pictures(micrograph_picture(prepared).cpu().numpy(), spectrum.cpu().numpy())

    def candidates(self, candidate_map: CandidateMap) -> Candidates:
        """Find the peaks of the detector's map that keep their distance from the edge of the picture."""
        prepared = candidate_map.prepared
        found = find_candidates(candidate_map.distance_map, prepared.diameter_px, self.info.peaks)
        return found.keep(self._inside(found, prepared))

    def log_odds(
        self, prepared: PreparedImage, found: Candidates, batch: int = _CLASSIFIER_BATCH
    ) -> npt.NDArray[np.float32]:
        """Return the classifier's log-odds, (n,); zeros where the model has no classifier."""
        if self._classifier is None or len(found.yx) == 0:
            return np.zeros(len(found.yx), dtype=np.float32)
        centres = patch_centres(found.yx, prepared.image.shape).to(self.device)
        batches = [
            self._classifier(patches_at(prepared.image, part).contiguous(memory_format=torch.channels_last))
            for part in torch.split(centres, batch)
        ]
        return np.asarray(torch.cat(batches).cpu().numpy(), dtype=np.float32)

    def twin(self, candidate_map: CandidateMap) -> CandidateMap:
        """Run the detector on the noise twin of a field, as it was run on the field."""
        prepared = candidate_map.prepared
        image = noise_twin(prepared.image[prepared.inside])
        h, w = image.shape
        scale_y, scale_x = prepared.scale_yx
        bounds = Bounds(0, round(h * scale_y), 0, round(w * scale_x))
        twin = PreparedImage(
            image, prepared.scale_yx, prepared.diameter_px, bounds, (slice(0, h), slice(0, w))
        )
        return self.detect(twin, candidate_map.params, candidate_map.tile_px)

    def _background(self, candidate_map: CandidateMap) -> Background:
        """Return what the field judge is told of a field besides its candidates."""
        prepared, twin = candidate_map.prepared, self.twin(candidate_map)
        found = self.candidates(twin)
        x = features(found, self.log_odds(twin.prepared, found, twin.classifier_batch))
        return Background.of(prepared.image[prepared.inside], twin.prepared.image, told(x))

    def memory_bytes(self) -> dict[str, int]:
        """Return the device's memory by kind; empty for a CPU."""
        return memory_bytes(self.device)

    def _inside(self, found: Candidates, prepared: PreparedImage) -> npt.NDArray[np.bool_]:
        """Return the mask of candidates that keep the border's distance from the edge of the picture."""
        bounds = prepared.bounds
        margin = self.info.peaks.border * prepared.diameter_px * np.asarray(prepared.scale_yx)
        yx = found.yx * np.asarray(prepared.scale_yx)
        low = np.array([bounds.top, bounds.left]) + margin
        high = np.array([bounds.bottom, bounds.right]) - 1 - margin
        return np.asarray(((yx >= low) & (yx <= high)).all(axis=1))


def _halved(size: int, least: int) -> Iterator[int]:
    """Yield a size, its half, and so on, while it is not below the least."""
    while size >= least:
        yield size
        size //= 2
