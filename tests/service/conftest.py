from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.fake_picker import FakePickers
from tests.service.plant import Plant
from tests.session.faults import faulty_disk


@pytest.fixture
def pickers() -> FakePickers:
    return FakePickers()


@pytest.fixture
def plant(tmp_path: Path, pickers: FakePickers) -> Iterator[Plant]:
    made = Plant(tmp_path, pickers)
    with faulty_disk(made.faults):
        yield made
        made.faults.disarm()
        assert made.pipeline.stop(10)
        made.journal.close()
