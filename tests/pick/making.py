"""Weights made by hand, and images of discs: what picking must do without any training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from drpwatch.pick.field import FieldJudge
from drpwatch.pick.networks import Fcrn, PatchClassifier, QuickPatchClassifier
from drpwatch.pick.peaks import PeakRule
from drpwatch.pick.preprocess import Preprocessing
from drpwatch.pick.signature import SPECTRUM_BINS
from drpwatch.pick.weights import Calibration, WeightsInfo, save_weights

WORKING_PX = 24.0
FloatArray = npt.NDArray[np.float32]


def disc_detector() -> Fcrn:
    """An FCRN that smooths, and answers where the image is dark."""
    detector = Fcrn()
    state = {name: torch.zeros_like(value) for name, value in detector.state_dict().items()}
    offsets = torch.arange(-4, 5, dtype=torch.float32)
    gauss = torch.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / 18)
    state["conv_1.weight"][0, 0] = -gauss / gauss.sum()
    state["conv_2.weight"][0, 0, :2, :2] = 0.25  # half a pixel back from where the pool moves everything
    state["conv_3.weight"][0, 0, 0, 3] = 1
    state["conv_4.weight"][0, 0, 3, 0] = 1
    state["conv_5.weight"][0, 0, 1, 1] = 1
    detector.load_state_dict(state)
    return detector


def disc_model(path: Path, *, classifier: bool = False) -> Path:
    """Write weights that find dark discs; the classifier is random, and hardly counts."""
    torch.manual_seed(1)
    info = WeightsInfo(
        name="discs",
        detector="fcrn",
        classifier="patch-cnn" if classifier else None,
        preprocessing=Preprocessing(working_diameter_px=WORKING_PX, illumination_sigma_px=48.0),
        peaks=PeakRule(smooth_sigma=0.25, least_height=0.2, least_prominence=0.1),
        calibration=Calibration(offset=-5.0, height=10.0, classifier=0.1 if classifier else 0.0),
        threshold=0.5,
        provenance={"made": "by hand"},
    )
    save_weights(path, info, disc_detector(), PatchClassifier() if classifier else None)
    return path


def cascade_model(path: Path) -> Path:
    """Write weights with all parts: that of `disc_model`, and made-up ones of all that comes after it."""
    rng = np.random.default_rng(7)
    classifier, judge = QuickPatchClassifier(), FieldJudge(SPECTRUM_BINS, counts=False, pools=False)
    for network, scale in ((classifier, 1.5), (judge, 1.0)):
        for value in network.parameters():
            fan_in = max(1, value[0].numel()) if value.dim() > 1 else 4.0
            value.data.copy_(
                torch.from_numpy(scale * rng.standard_normal(tuple(value.shape)) / np.sqrt(fan_in))
            )
    info = WeightsInfo(
        name="cascade",
        detector="fcrn",
        classifier="quick-patch-cnn",
        preprocessing=Preprocessing(working_diameter_px=WORKING_PX, illumination_sigma_px=48.0),
        peaks=PeakRule(smooth_sigma=0.1, least_height=0.05, least_prominence=0.02),
        calibration=Calibration(-1.0, height=2.0, log_prominence=0.3, classifier=0.3, field=0.04),
        threshold=0.5,
        field_judge="noise-twin",
        provenance={"made": "by hand"},
    )
    save_weights(path, info, disc_detector(), classifier, judge)
    return path


def discs(
    shape_yx: tuple[int, int], yx: list[tuple[float, float]], diameter_yx: tuple[float, float], seed: int = 0
) -> FloatArray:
    """Dark discs (ellipses in pixels that are not square) two deviations deep in white noise, (h, w)."""
    y, x = np.mgrid[: shape_yx[0], : shape_yx[1]]
    image = np.random.default_rng(seed).standard_normal(shape_yx, dtype=np.float32)
    for cy, cx in yx:
        inside = np.hypot((y - cy) / (diameter_yx[0] / 2), (x - cx) / (diameter_yx[1] / 2)) < 1
        image -= 2 * inside
    return image


def scattered(shape_yx: tuple[int, int], diameter_px: float, seed: int = 0) -> list[tuple[float, float]]:
    """Places on a shaken grid, two diameters apart and one from the edge."""
    rng = np.random.default_rng(seed)
    step = 2 * diameter_px
    return [
        (float(y + rng.uniform(-0.3, 0.3) * diameter_px), float(x + rng.uniform(-0.3, 0.3) * diameter_px))
        for y in np.arange(1.4 * diameter_px, shape_yx[0] - 1.4 * diameter_px, step)
        for x in np.arange(1.4 * diameter_px, shape_yx[1] - 1.4 * diameter_px, step)
    ]
