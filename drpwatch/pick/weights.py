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
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from drpwatch.errors import WeightsError
from drpwatch.pick.networks import CLASSIFIERS, DETECTORS, FIELD_JUDGES, Detector, build
from drpwatch.pick.peaks import PeakRule
from drpwatch.pick.preprocess import Preprocessing

FORMAT = 1
_MOST_BYTES = 1 << 30


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
    path = Path(model).expanduser()
    if path.is_file():
        return path
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
        values = json.loads(header["__metadata__"]["drpwatch"])
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path}: these are not drpwatch weights (no drpwatch metadata)") from error
    if values.pop("format", None) != FORMAT:
        raise WeightsError(f"{path}: written by another version of drpwatch; this one reads format {FORMAT}")
    try:
        return WeightsInfo(
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
        raise WeightsError(f"{path}: the drpwatch metadata is incomplete ({error})") from error


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of one network, without their prefix."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
