"""Weights files: safetensors that carry all that belongs to them, from the working scale to the threshold.

The metadata is one JSON string under the key `drpwatch`; nothing is unpickled. Tensors are named
`detector.*`, `classifier.*` and `field_judge.*`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from drpwatch.errors import WeightsError
from drpwatch.pick.field import FIELD_JUDGES
from drpwatch.pick.networks import CLASSIFIERS, DETECTORS, Detector, build
from drpwatch.pick.peaks import PeakRule
from drpwatch.pick.preprocess import Kind, Preprocessing
from drpwatch.text import printable, shown

FORMAT = 1
_MOST_BYTES = 1 << 26
_MOST_METADATA_BYTES = 1 << 20

_RANGES = {
    "working_diameter_px": (4.0, 256.0),
    "illumination_sigma_px": (0.5, 4096.0),
    "clip_sigmas": (0.5, 1000.0),
    "smooth_sigma_px": (0.0, 64.0),
    "smooth_sigma": (0.0, 4.0),
    "least_height": (-1e3, 1e3),
    "least_prominence": (-1e3, 1e3),
    "spacing": (0.0, 4.0),
    "border": (0.0, 4.0),
    "offset": (-1e6, 1e6),
    "height": (-1e6, 1e6),
    "log_prominence": (-1e6, 1e6),
    "classifier": (-1e6, 1e6),
    "field": (-1e6, 1e6),
    "threshold": (0.0, 1.0),
}
"""In which the numbers of the metadata mean something; others could ask for any amount of work or memory."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Weights of a candidate's features in its log-odds of being a particle (a logistic regression)."""

    offset: float = 0.0
    height: float = 0.0
    log_prominence: float = 0.0
    classifier: float = 0.0
    field: float = 0.0


@dataclass(frozen=True, slots=True)
class WeightsInfo:
    """All of a weights file that is not a tensor."""

    name: str
    detector: str
    classifier: str | None
    preprocessing: Preprocessing
    peaks: PeakRule
    calibration: Calibration
    threshold: float
    field_judge: str | None = None
    licence: str = "BSD-3-Clause"
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Networks ready to infer, with their constants and the SHA-256 of the file that they came from."""

    info: WeightsInfo
    detector: Detector
    classifier: nn.Module | None
    field_judge: nn.Module | None
    sha256: str


def shipped() -> dict[str, Path]:
    """Return the weights that are part of the package, by name."""
    folder = Path(str(resources.files("drpwatch.pick") / "models"))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def find(model: str) -> Path:
    """Return the file of a shipped model's name or of a path.

    Raises
    ------
    WeightsError
        Neither is there.
    """
    if model in (known := shipped()):
        return known[model]
    try:
        path = Path(model).expanduser()
        if path.is_file():
            return path
    except (OSError, RuntimeError, ValueError):  # too long, the home of nobody, a NUL
        pass
    raise WeightsError(
        f"model {model!r}: no such file, and not one of the shipped models ({', '.join(known)})"
    )


def load_weights(path: Path) -> Weights:
    """Read a weights file.

    Raises
    ------
    WeightsError
        Not a safetensors file, not drpwatch's, of a newer format, or damaged.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise WeightsError(f"{path}: larger than any weights file of drpwatch")
        content = path.read_bytes()
        tensors = load(content)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    except (SafetensorError, ValueError) as error:
        raise WeightsError(f"{path}: not a safetensors file ({error})") from error
    info = _read_info(path, content)
    try:
        _check_tensors(info, tensors)
        detector = build(DETECTORS, info.detector, _under("detector.", tensors))
        classifier = (
            build(CLASSIFIERS, info.classifier, _under("classifier.", tensors)) if info.classifier else None
        )
        field_judge = (
            build(FIELD_JUDGES, info.field_judge, _under("field_judge.", tensors))
            if info.field_judge
            else None
        )
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    return Weights(info, detector, classifier, field_judge, hashlib.sha256(content).hexdigest())


def save_weights(
    path: Path,
    info: WeightsInfo,
    detector: nn.Module,
    classifier: nn.Module | None,
    field_judge: nn.Module | None = None,
) -> None:
    """Write a weights file."""
    networks = {"detector": detector, "classifier": classifier, "field_judge": field_judge}
    tensors = {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name, network in networks.items()
        if network is not None
        for key, value in network.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save(tensors, metadata={"drpwatch": json.dumps({"format": FORMAT, **asdict(info)})}))


def read_info(path: Path) -> WeightsInfo:
    """Read a weights file's description without building its networks."""
    return load_weights(path).info


def _read_info(path: Path, content: bytes) -> WeightsInfo:
    """Parse the metadata of a safetensors file: 8 bytes of header length, then a JSON header."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    try:
        text = header["__metadata__"]["drpwatch"]
        values = json.loads(text) if len(text) <= _MOST_METADATA_BYTES else None
    except (KeyError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: these are not drpwatch weights (no drpwatch metadata)") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{path}: the drpwatch metadata is no description of weights")
    if values.pop("format", None) != FORMAT:
        raise WeightsError(f"{path}: written by another version of drpwatch; this one reads format {FORMAT}")
    try:
        info = WeightsInfo(
            **(
                values
                | {
                    "preprocessing": Preprocessing(**values["preprocessing"]),
                    "peaks": PeakRule(**values["peaks"]),
                    "calibration": Calibration(**values["calibration"]),
                }
            )
        )
    except (KeyError, TypeError) as error:
        raise WeightsError(
            f"{path}: the drpwatch metadata is incomplete ({printable(str(error))})"
        ) from error
    try:
        _check_info(info)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    return info


def _check_info(info: WeightsInfo) -> None:
    """Refuse a description with a value of another type, or out of its range."""
    numbers = {"threshold": info.threshold}
    for part in (info.preprocessing, info.peaks, info.calibration):
        numbers |= asdict(part)
    kind, of_maximum = numbers.pop("kind"), numbers.pop("of_maximum")
    for name, value in numbers.items():
        low, high = _RANGES[name]
        number = isinstance(value, float | int) and not isinstance(value, bool)
        if not number or not low <= value <= high:  # NaN fails too
            raise WeightsError(
                f"the drpwatch metadata has {name} {shown(value)}, which is not {low:g} to {high:g}"
            )
    texts = (info.name, info.licence, info.detector, info.classifier or "", info.field_judge or "", kind)
    if not all(isinstance(text, str) for text in texts) or kind not in get_args(Kind):
        raise WeightsError("the drpwatch metadata has something else than the names that belong there")
    if not isinstance(of_maximum, bool) or not isinstance(info.provenance, dict):
        raise WeightsError("the drpwatch metadata has values of another type")


def _check_tensors(info: WeightsInfo, tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse tensors that belong to no network of the description, or hold what is no number."""
    networks = {"detector": info.detector, "classifier": info.classifier, "field_judge": info.field_judge}
    for name, tensor in tensors.items():
        network, dot, _ = name.partition(".")
        if not dot or not networks.get(network):
            raise WeightsError(f"tensor {shown(name)} belongs to no network that the metadata names")
        if tensor.dtype == torch.float32 and not torch.isfinite(tensor).all():
            raise WeightsError(f"tensor {shown(name)} has values that are not finite")


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of one network, without their prefix."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
