"""Conversion of the detector published with the DRPnet paper (`drpnet_cnet_1.mat`) into a weights file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drpwatch.errors import UsageError, WeightsError
from drpwatch.pick.networks import DETECTORS, build
from drpwatch.pick.peaks import PeakRule
from drpwatch.pick.preprocess import Preprocessing
from drpwatch.pick.weights import Calibration, WeightsInfo, save_weights

LICENCE = (
    "DRPnet weights: academic use only, (c) the authors of Nguyen, Ersoy, White, Bunyak, DRPnet "
    "(BMC Bioinformatics 2021); see the licence file that came with them"
)

_GROUPS = {"conv_1": "d", "conv_2": "f", "conv_3": "h", "conv_4": "j", "conv_5": "m"}
_THRESHOLD = 3 / 255  # of the map's maximum, level 1: two of the reference's three parameter files

# The reference finds extended maxima (h-maxima) on a map in shares of its maximum, blurred by sigma 2 and then 6,
# in a working image in which a particle is about 36 px across; its boxes are 1.3 diameters, and a candidate whose
# box with a quarter-box margin leaves the image is dropped.
_PEAKS = PeakRule(
    smooth_sigma=float(np.hypot(2, 6)) / 36,
    least_height=_THRESHOLD / 4,
    least_prominence=_THRESHOLD / 4,
    spacing=0.3,
    border=0.75 * 1.3,
    of_maximum=True,
)
_PREPROCESSING = Preprocessing(
    kind="reference", working_diameter_px=36.0, illumination_sigma_px=100.0, smooth_sigma_px=3.0
)

# There is no second network to ask, so the score only orders: p / (p + threshold), one half at the threshold.
_CALIBRATION = Calibration(offset=-float(np.log(_THRESHOLD)), log_prominence=1.0)


def import_matlab(source: Path, target: Path) -> WeightsInfo:
    """Convert a MATLAB v7.3 file, and repeat its licence in the metadata.

    MATLAB stores the axes reversed, (out, in, w, h), and drops the last layer's axis of length 1.

    Raises
    ------
    UsageError
        h5py is not installed.
    WeightsError
        The file is not the published detector.
    """
    try:
        import h5py
    except ImportError as error:
        raise UsageError("reading MATLAB files needs h5py: pip install 'drpwatch[matlab]'") from error
    tensors: dict[str, torch.Tensor] = {}
    try:
        with h5py.File(source, "r") as file:
            for layer, group in _GROUPS.items():
                kernel = np.asarray(file[f"#refs#/{group}/Weights/Value"], dtype=np.float32)
                bias = np.asarray(file[f"#refs#/{group}/Bias/Value"], dtype=np.float32).reshape(-1)
                kernel = kernel if kernel.ndim == 4 else kernel[None]
                tensors[f"{layer}.weight"] = torch.from_numpy(np.swapaxes(kernel, 2, 3).copy())
                tensors[f"{layer}.bias"] = torch.from_numpy(bias)
    except (OSError, KeyError) as error:
        raise WeightsError(f"{source}: not the published DRPnet detector ({error})") from error
    detector = build(DETECTORS, "fcrn", tensors)
    info = WeightsInfo(
        name="drpnet-2021",
        detector="fcrn",
        classifier=None,
        preprocessing=_PREPROCESSING,
        peaks=_PEAKS,
        calibration=_CALIBRATION,
        threshold=0.5,
        licence=LICENCE,
        provenance=_provenance(source),
    )
    save_weights(target, info, detector, None)
    return info


def _provenance(source: Path) -> dict[str, Any]:
    return {"converted_from": source.name, "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest()}
