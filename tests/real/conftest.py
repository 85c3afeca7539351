import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.making import make_suite


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The real micrographs as data sets, converted once; 400 MB that do not stay."""
    folder = tmp_path_factory.mktemp("suite")
    yield make_suite(folder)
    shutil.rmtree(folder)
