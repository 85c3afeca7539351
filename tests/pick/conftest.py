from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from drpwatch.pick.picker import Picker
from tests.pick.making import disc_model


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Small images are picked fastest, and always alike, by one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disc_model(tmp_path_factory.mktemp("weights") / "discs.safetensors")


@pytest.fixture(scope="session")
def model_with_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disc_model(tmp_path_factory.mktemp("weights") / "both.safetensors", classifier=True)


@pytest.fixture(scope="session")
def picker(model: Path) -> Picker:
    return Picker.load(str(model), "cpu")


@pytest.fixture(scope="session")
def picker_with_classifier(model_with_classifier: Path) -> Picker:
    return Picker.load(str(model_with_classifier), "cpu")
