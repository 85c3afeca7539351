"""The picker: a model that stays loaded, and the steps from pixels to picks.

On a GPU the host waits for the device three times for each micrograph: in `prepare`, for where the picture ends
and then for how large its particles are, on which all shapes depend, and in `choose`, for all that the picks are
made of. To be able to, it fixes what is a matter of the micrograph on a CPU: the number of peaks, each of which the
classifier looks at whether or not it turns out a candidate, and the shape in which tiles and patches are run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from drpwatch.micrograph import SCORE_FLOOR, PickParams, Picks, Pictures
from drpwatch.pick import precision as precisions
from drpwatch.pick import scene
from drpwatch.pick.device import (
    exact_arithmetic,
    faults,
    memory_bytes,
    name_of,
    on_host,
    page_locked,
    plain,
    release,
    resolve,
)
from drpwatch.pick.field import Background, noise_twin, twin_phases, twin_shape
from drpwatch.pick.networks import detect_in_tiles, fused, patch_centres, patches_at, usual_tile_px
from drpwatch.pick.peaks import (
    MOST_PEAKS,
    Candidates,
    find_candidates,
    find_peaks,
    most_peaks,
    standing_out,
)
from drpwatch.pick.pictures import micrograph_picture, spectrum_picture
from drpwatch.pick.precision import DTYPES, Precision, Wanted
from drpwatch.pick.preprocess import Bounds, PreparedImage, prepare
from drpwatch.pick.scoring import features, field_log_odds, probability, told
from drpwatch.pick.signature import signature
from drpwatch.pick.weights import Weights, find, load_weights

_CLASSIFIER_BATCH = 256
_LEAST_CLASSIFIER_BATCH = 16
_GPU_TILE_PX = 512  # most working images are one tile with its halos
_LEAST_TILE_PX = 128
_PHASES_KEPT = 4

Odds = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Uploaded:
    """Pixels, (H, W), on their way to the device."""

    pixels: torch.Tensor
    arrived: torch.cuda.Event | None = None  # None: they are there

    def wait(self) -> None:
        """Return when nothing is read any more from where they came from."""
        if self.arrived is not None:
            with faults():
                self.arrived.synchronize()


@dataclass(frozen=True, slots=True, eq=False)
class CandidateMap:
    """The detector's map, (h, w), over the image that it was made from."""

    prepared: PreparedImage
    distance_map: torch.Tensor
    params: PickParams
    tile_px: int | None = None  # the detector's tiles; None: the usual ones
    classifier_batch: int = _CLASSIFIER_BATCH


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """The candidates of a map, the classifier's log-odds (n,), and for a field judge what else there is."""

    found: Candidates
    odds: Odds
    background: Background | None = None

    @property
    def told(self) -> torch.Tensor:
        """What a field judge is told of them, (n, 3)."""
        return told(features(self.found, self.odds))


class Picker:
    """Picks particles on one device; not to be shared between threads.

    The same micrograph gives the same picks, whatever was picked before: there is no state but the weights.
    """

    def __init__(self, weights: Weights, device: torch.device, precision: Precision = "float32") -> None:
        self.device = device
        self.precision: Precision = precision
        """The numbers in which detector and classifier compute."""
        self.imprecise: str | None = None
        """Why they are not of half the bits, where that was wanted."""
        self.uploads_beside = device.type == "cuda"
        """Whether an upload goes on while the device computes."""
        self.host_memory: Callable[[int], npt.NDArray[np.uint8]] = (
            page_locked if device.type == "cuda" else plain
        )
        """Allocates memory, (n,), from which uploads are quickest; raises DeviceNotReady where there is none of it."""
        self._at_once = device.type == "cuda"  # all for the device before a word from it
        if device.type == "cuda":
            exact_arithmetic()
            self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.weights = weights  # its detector and classifier lie on the device from here on
        self.info = weights.info
        self.weights_sha256 = weights.sha256
        self.device_name = name_of(device)
        self.default_threshold = weights.info.threshold
        kind = DTYPES[precision]
        self._detector = fused(weights.detector.to(device)).to(kind)
        self._detector.confine()
        self._classifier = None
        if weights.classifier is not None:
            self._classifier = fused(weights.classifier.to(device)).to(kind)
        self._field_judge = weights.field_judge  # on the host, where its few numbers are
        self._phases: dict[tuple[int, int], torch.Tensor] = {}  # of noise twins, by their shape
        usual_px = usual_tile_px(weights.detector) if device.type == "cpu" else _GPU_TILE_PX
        self.tile_sizes_px = tuple(_halved(usual_px, _LEAST_TILE_PX))
        """In which tiles the detector can run, the usual ones first; the smaller, the less memory is needed."""

    @classmethod
    def load(
        cls, model: str = "general", device: str = "auto", threads: int = 0, precision: Wanted = "auto"
    ) -> Self:
        """Load a model, by the name of a shipped one or the path of a file.

        Its networks compute in half precision if that is wanted, or if it is quicker there and nobody said what is
        wanted; and if simulated micrographs are picked alike.

        Raises
        ------
        WeightsError
            The model is missing or damaged.
        DeviceNotReady
            The device cannot be used now.
        """
        target = resolve(device, threads)
        with faults():
            picker = cls._in_precision(load_weights(find(model)), target, precision)
            if target.type == "cuda":
                picker.pick_scene(scene.picture(0, 0.5))  # all is run once in the shape that it will have
                release()  # what it took to find the quickest way
            return picker

    @classmethod
    def _in_precision(cls, weights: Weights, device: torch.device, precision: Wanted) -> Self:
        """Return a picker that computes as quickly as the picks allow."""
        picker = cls(weights, device)
        for kind in precisions.candidates(precision, device):
            quick = cls(weights, device, kind)
            picker.imprecise = precisions.disagreement(picker.pick_scene, quick.pick_scene)
            if picker.imprecise is None:
                return quick
        return picker

    def pick(self, pixels: npt.NDArray[Any], pixel_size_yx: tuple[float, float], params: PickParams) -> Picks:
        """Pick one micrograph, (h, w) of any real type.

        Raises
        ------
        UnusableMicrograph
            The image is blank, or a particle of this diameter does not fit it.
        DeviceFault
            The device failed; the process should end.
        """
        uploaded = self.upload(pixels)
        return self.choose(self.detect(self.prepare(uploaded, pixel_size_yx, params), params))

    def pick_scene(self, pixels: npt.NDArray[np.float32]) -> Picks:
        """Pick a micrograph that was made by `scene.picture`."""
        return self.pick(pixels, (scene.PIXEL_SIZE_ANGSTROM,) * 2, scene.PARAMS)

    def upload(self, pixels: npt.NDArray[Any]) -> Uploaded:
        """Begin to bring (h, w) pixels to the device, in the type that they have, beside what it computes.

        Out of page-locked memory, it returns at once; the pixels stay as they are until `Uploaded.wait` returns.
        """
        source = torch.from_numpy(pixels)
        if self.device.type != "cuda":
            return Uploaded(source)
        with faults(), torch.cuda.stream(self._copies):
            on_device = source.to(self.device, non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        return Uploaded(on_device, arrived)

    def prepare(
        self, uploaded: Uploaded, pixel_size_yx: tuple[float, float], params: PickParams
    ) -> PreparedImage:
        """Bring pixels to the networks' scale and contrast."""
        with faults(), torch.inference_mode():
            if uploaded.arrived is not None:
                computing = torch.cuda.current_stream(self.device)
                computing.wait_event(uploaded.arrived)
                uploaded.pixels.record_stream(computing)  # its memory is that of the other stream
            return prepare(uploaded.pixels, pixel_size_yx, params, self.info.preprocessing)

    def detect(self, prepared: PreparedImage, params: PickParams, tile_px: int | None = None) -> CandidateMap:
        """Run the detector; the classifier, later, in batches that are as much smaller as the tiles."""
        usual_px = self.tile_sizes_px[0]
        tile_px = tile_px or usual_px
        batch = max(_LEAST_CLASSIFIER_BATCH, min(_CLASSIFIER_BATCH, _CLASSIFIER_BATCH * tile_px // usual_px))
        with faults(), torch.inference_mode():
            distance_map = detect_in_tiles(self._detector, prepared.image, tile_px, self._at_once)
            return CandidateMap(prepared, distance_map, params, tile_px, batch)

    def choose(self, candidate_map: CandidateMap) -> Picks:
        """Find the peaks, let the classifier judge them, and score them."""
        with faults(), torch.inference_mode():
            k = most_peaks(candidate_map.distance_map.shape, candidate_map.prepared.diameter_px)
            at_once = self._at_once and k <= MOST_PEAKS
            seen = self._see_at_once(candidate_map) if at_once else self._see_in_turn(candidate_map)
            x = features(seen.found, seen.odds)
            if self._field_judge is not None and seen.background is not None:
                x[:, 4] = field_log_odds(self._field_judge, x, seen.background)
            score = probability(x, self.info.calibration).astype(np.float32)
        keep = score >= SCORE_FLOOR
        yx_px = seen.found.yx[keep] * np.asarray(candidate_map.prepared.scale_yx, dtype=np.float32)
        order = np.lexsort((yx_px[:, 1], yx_px[:, 0], -score[keep]))
        threshold = candidate_map.params.threshold
        return Picks(
            yx_px=np.ascontiguousarray(yx_px[order], dtype=np.float32),
            score=score[keep][order],
            threshold=self.default_threshold if threshold is None else threshold,
            weights_sha256=self.weights_sha256,
            enlargement=candidate_map.prepared.enlargement,
        )

    def draw(self, uploaded: Uploaded, prepared: PreparedImage) -> Pictures:
        """Make what people see of a micrograph, from its pixels and what `prepare` made of them."""
        with faults(), torch.inference_mode():
            spectrum = spectrum_picture(uploaded.pixels, prepared.bounds)
            return Pictures(*on_host(micrograph_picture(prepared), spectrum))

    def candidates(self, candidate_map: CandidateMap) -> Candidates:
        """Find the peaks of the detector's map that keep their distance from the edge of the picture."""
        prepared = candidate_map.prepared
        found = find_candidates(candidate_map.distance_map, prepared.diameter_px, self.info.peaks)
        return found.keep(self._inside(found, prepared))

    def log_odds(self, prepared: PreparedImage, found: Candidates, batch: int = _CLASSIFIER_BATCH) -> Odds:
        """Return the classifier's log-odds, (n,); zeros where the model has no classifier."""
        if len(found.yx) == 0:
            return np.zeros(0, dtype=np.float32)
        odds = self._odds_at(prepared.image, torch.from_numpy(found.yx).to(self.device), batch)
        return np.asarray(odds.cpu().numpy(), dtype=np.float32)

    def twin(self, candidate_map: CandidateMap) -> CandidateMap:
        """Run the detector on the noise twin of a field, as it was run on the field."""
        prepared = candidate_map.prepared
        picture = prepared.image[prepared.inside]
        image = noise_twin(picture, self._phases_of(twin_shape(picture.shape)))
        h, w = image.shape
        scale_y, scale_x = prepared.scale_yx
        bounds = Bounds(0, round(h * scale_y), 0, round(w * scale_x))
        inside = slice(0, h), slice(0, w)
        twin = replace(prepared, image=image, bounds=bounds, inside=inside)
        return self.detect(twin, candidate_map.params, candidate_map.tile_px)

    def _see_in_turn(self, candidate_map: CandidateMap, alone: bool = False) -> _Seen:
        """Look at the candidates of a map one step after the other, each at what the one before left."""
        prepared, found = candidate_map.prepared, self.candidates(candidate_map)
        odds = self.log_odds(prepared, found, candidate_map.classifier_batch)
        if alone or self._field_judge is None or len(odds) == 0:
            return _Seen(found, odds)
        twin = self.twin(candidate_map)
        noise = self._see_in_turn(twin, alone=True)
        picture = prepared.image[prepared.inside]
        return _Seen(found, odds, Background.of(picture, twin.prepared.image, noise.told, prepared.rings))

    def _see_at_once(self, candidate_map: CandidateMap) -> _Seen:
        """Look at all peaks of a map, and of its twin, then ask the device for everything with one wait."""
        field = self._peaks_and_odds(candidate_map)
        if self._field_judge is None:
            return self._among(on_host(*field), candidate_map)
        twin = self.twin(candidate_map)
        prepared = candidate_map.prepared
        picture = prepared.image[prepared.inside]
        arrays = on_host(*field, *self._peaks_and_odds(twin), signature(picture, prepared.rings))
        seen = self._among(arrays[: len(field)], candidate_map)
        noise = self._among(arrays[len(field) : -1], twin)
        told = torch.from_numpy(arrays[-1].copy())
        background = Background(told, noise.told, picture.numel(), twin.prepared.image.numel())
        return replace(seen, background=background)

    def _peaks_and_odds(self, candidate_map: CandidateMap) -> list[torch.Tensor]:
        """Return the fixed number of peaks of a map, and the log-odds of each, on the device."""
        prepared, distance_map = candidate_map.prepared, candidate_map.distance_map
        k = most_peaks(distance_map.shape, prepared.diameter_px)
        peaks = find_peaks(distance_map, prepared.diameter_px, self.info.peaks, k)
        odds = self._odds_at(prepared.image, peaks.yx, candidate_map.classifier_batch)
        return [*peaks.tensors, odds]

    def _among(self, arrays: list[npt.NDArray[Any]], candidate_map: CandidateMap) -> _Seen:
        """Return the candidates among the peaks of a map, from what `_peaks_and_odds` returned."""
        *peaks, odds = arrays
        prepared = candidate_map.prepared
        found, which = standing_out(peaks, prepared.diameter_px, self.info.peaks)
        inside = self._inside(found, prepared)
        return _Seen(found.keep(inside), odds[which[inside]])

    def _odds_at(self, image: torch.Tensor, yx: torch.Tensor, batch: int) -> torch.Tensor:
        """Return the classifier's log-odds of places yx (n, 2) of an image, (n,) float32."""
        if self._classifier is None:
            return torch.zeros(len(yx), device=self.device)
        kind = next(self._classifier.parameters()).dtype
        odds = []
        for part in torch.split(patch_centres(yx, image.shape), batch):
            if self._at_once:  # batches of one shape
                part = F.pad(part, (0, 0, 0, batch - len(part)))
            patches = patches_at(image, part).to(kind)
            odds.append(self._classifier(patches.contiguous(memory_format=torch.channels_last)))
        return torch.cat(odds)[: len(yx)].float()

    def _phases_of(self, shape_yx: tuple[int, int]) -> torch.Tensor:
        if shape_yx not in self._phases:
            if len(self._phases) >= _PHASES_KEPT:
                self._phases.clear()
            self._phases[shape_yx] = twin_phases(shape_yx, self.device)
        return self._phases[shape_yx]

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
