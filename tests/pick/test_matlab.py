from pathlib import Path

import numpy as np
import pytest
import torch

from drpwatch.errors import UsageError, WeightsError
from drpwatch.pick import matlab
from drpwatch.pick.weights import load_weights

h5py = pytest.importorskip("h5py")

PUBLISHED = Path(__file__).parents[3] / "shared" / "weights" / "drpnet_cnet_1.mat"
needs_file = pytest.mark.skipif(not PUBLISHED.exists(), reason="the published detector is absent")

SHAPES = {  # as MATLAB 7.3 stores them: (out, in, w, h), the last layer without its axis of length 1
    "d": (32, 1, 9, 9),
    "f": (32, 32, 3, 3),
    "h": (32, 32, 7, 1),
    "j": (32, 32, 1, 7),
    "m": (32, 3, 3),
}


@pytest.fixture
def matlab_file(tmp_path: Path) -> Path:
    path = tmp_path / "net.mat"
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for group, shape in SHAPES.items():
            out = 1 if group == "m" else 32
            file[f"#refs#/{group}/Weights/Value"] = rng.standard_normal(shape, dtype=np.float32)
            file[f"#refs#/{group}/Bias/Value"] = rng.standard_normal((out, 1, 1), dtype=np.float32)
    return path


def test_axes_and_order_of_layers(matlab_file, tmp_path):
    info = matlab.import_matlab(matlab_file, tmp_path / "out.safetensors")
    weights = load_weights(tmp_path / "out.safetensors")
    assert weights.info == info
    assert weights.classifier is None
    with h5py.File(matlab_file) as file:
        for number, group in enumerate(SHAPES, start=1):
            kernel = np.asarray(file[f"#refs#/{group}/Weights/Value"])
            ours = weights.detector.state_dict()[f"conv_{number}.weight"].numpy()
            stored = kernel if kernel.ndim == 4 else kernel[None]
            assert ours[0, -1, 0, -1] == stored[0, -1, -1, 0]
    assert "academic use only" in info.licence
    assert info.provenance["converted_from"] == "net.mat"
    assert info.preprocessing.kind == "reference"


def test_other_files_are_refused(tmp_path):
    other = tmp_path / "other.mat"
    with h5py.File(other, "w") as file:
        file["x"] = 1
    for path in (other, tmp_path / "missing.mat", Path(__file__)):
        with pytest.raises(WeightsError, match="not the published DRPnet detector"):
            matlab.import_matlab(path, tmp_path / "out.safetensors")


def test_another_net_is_refused(matlab_file, tmp_path):
    with h5py.File(matlab_file, "a") as file:
        del file["#refs#/f/Weights/Value"]
        file["#refs#/f/Weights/Value"] = np.zeros((8, 32, 3, 3), np.float32)
    with pytest.raises(WeightsError):
        matlab.import_matlab(matlab_file, tmp_path / "out.safetensors")


def test_without_h5py_it_is_told_what_to_install(matlab_file, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(UsageError, match=r"pip install 'drpwatch\[matlab\]'"):
        matlab.import_matlab(matlab_file, tmp_path / "out.safetensors")


@needs_file
def test_the_published_detector(tmp_path):
    info = matlab.import_matlab(PUBLISHED, tmp_path / "drpnet.safetensors")
    assert info.name == "drpnet-2021"
    detector = load_weights(tmp_path / "drpnet.safetensors").detector
    assert sum(p.numel() for p in detector.parameters()) == 26_561
    assert bool(torch.isfinite(torch.cat([p.flatten() for p in detector.parameters()])).all())
