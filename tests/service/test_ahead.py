"""The next micrograph is uploaded while one is picked, as on a GPU: none is lost, mixed up or blamed for another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from drpwatch.errors import DeviceFault
from drpwatch.service import device
from drpwatch.service.channel import Buffer
from tests.daemon.fake_picker import FakePickers
from tests.daemon.rule import image
from tests.service.plant import Plant
from tests.support import eventually


@pytest.fixture
def beside(pickers: FakePickers) -> FakePickers:
    pickers.uploads_beside = True
    return pickers


def uploads_of(pickers: FakePickers, seed: int) -> int:
    return sum(np.array_equal(one.pixels, image(seed)) for one in pickers.device.uploads)


def begin(plant: Plant, pickers: FakePickers, seed: int) -> threading.Event:
    """Have one micrograph under the device's hands until the gate opens, which is returned."""
    pickers.gate = threading.Event()
    plant.start()
    plant.write(f"{seed}.mrc", seed)
    eventually(lambda: uploads_of(pickers, seed) == 1, 10, "the first is uploaded")
    return pickers.gate


def load_in_order(plant: Plant, *seeds: int) -> None:
    """Have micrographs loaded one after the other: two loaders would race."""
    for depth, seed in enumerate(seeds, 1):
        plant.write(f"{seed}.mrc", seed)
        eventually(lambda depth=depth: plant.pipeline._loaded.depth == depth, 10, f"{seed} is loaded")


def test_the_next_one_is_uploaded_before_the_first_is_picked(plant: Plant, beside: FakePickers) -> None:
    gate = begin(plant, beside, 1)
    load_in_order(plant, 2, 3)
    beside.gate = second = threading.Event()
    gate.set()
    eventually(lambda: uploads_of(beside, 2) == 1, 10, "the second is uploaded")
    eventually(lambda: uploads_of(beside, 3) == 1, 10, "the third, while the second is picked")
    assert beside.picked == 1
    second.set()
    plant.recorded(3)
    assert plant.rows() == ["1.mrc", "2.mrc", "3.mrc"]
    assert [uploads_of(beside, seed) for seed in (1, 2, 3)] == [1, 1, 1]


def test_without_a_gpu_none_is_taken_from_others(plant: Plant, pickers: FakePickers) -> None:
    gate = begin(plant, pickers, 1)
    plant.write("2.mrc", 2)
    eventually(lambda: plant.pipeline._loaded.depth == 1, 10, "it is loaded")
    assert uploads_of(pickers, 2) == 0
    gate.set()
    plant.recorded(2)


def test_a_buffer_is_used_again_only_when_nothing_is_read_from_it(
    plant: Plant, beside: FakePickers, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside.device.full_in = ["detect", "upload", "choose"]
    early: list[Buffer] = []
    real: Callable[[Buffer], None] = plant.pipeline._buffers.give_back

    def give_back(buffer: Buffer) -> None:
        reading = [one for one in beside.device.uploads if np.shares_memory(one.pixels, buffer)]
        early.extend(buffer for one in reading if not one.waited)
        for one in reading:
            one.pixels = one.pixels.copy()  # what the buffer has next is no business of it
        real(buffer)

    monkeypatch.setattr(plant.pipeline._buffers, "give_back", give_back)
    plant.start()
    for seed in range(12):
        plant.write(f"{seed:02}.mrc", seed)
    plant.recorded(12)
    assert early == []
    assert len(plant.rows()) == 12
    assert len({id(one) for one in beside.host_buffers}) <= plant.pipeline._in_hand


def test_where_memory_is_short_the_one_that_is_picked_has_it(plant: Plant, beside: FakePickers) -> None:
    gate = begin(plant, beside, 1)
    load_in_order(plant, 2, 3)
    beside.gate = second = threading.Event()
    gate.set()
    eventually(lambda: uploads_of(beside, 3) == 1, 10, "the third is uploaded while the second is picked")
    beside.device.full_in = ["detect"]
    second.set()
    plant.recorded(3)
    assert beside.device.tiles == [512, 512, 256, 256]
    assert [uploads_of(beside, seed) for seed in (1, 2, 3)] == [
        1,
        1,
        2,
    ]  # the third made room, and came again
    assert plant.rows() == ["1.mrc", "2.mrc", "3.mrc"]


def test_an_upload_without_room_is_made_in_its_turn(plant: Plant, beside: FakePickers) -> None:
    beside.device.full_in = ["upload"] * 3
    plant.start()
    for seed in (1, 2):
        plant.write(f"{seed}.mrc", seed)
    plant.recorded(2)
    assert plant.rows() == ["1.mrc", "2.mrc"]


def test_a_device_that_is_lost_keeps_none(
    plant: Plant, beside: FakePickers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_BACK_OFF_S", (0.2,))
    beside.device.room_px, beside.device.others_gib = 100, 4.0
    plant.start()
    for seed in range(5):
        plant.write(f"{seed}.mrc", seed)
    eventually(lambda: beside.released > 2, 10, "it is lost more than once")
    assert plant.control.session("s1").micrographs.failed == 0
    beside.device.room_px = 1000
    plant.recorded(5)
    assert plant.rows() == [f"{seed}.mrc" for seed in range(5)]


def test_what_is_only_uploaded_is_not_blamed_for_a_fault(
    plant: Plant, beside: FakePickers, tmp_path: Path
) -> None:
    beside.device.faults_on = [1]
    gate = begin(plant, beside, 7)
    for seed in (1, 2):
        plant.write(f"{seed}.mrc", seed)
    eventually(lambda: plant.pipeline._loaded.depth == 2, 10, "both are loaded")
    gate.set()
    eventually(lambda: isinstance(plant.pipeline.failure, DeviceFault), 10, "the device fails")
    plant.pipeline.stop(10)
    assert plant.journal.totals(1).failed == 0
    last = plant.pipeline.flight.last_crash()
    assert last is not None
    assert [one.name for one in last[0].suspects] == ["1.mrc"]


def test_buffers_are_those_of_the_device_once_it_is_there(plant: Plant, beside: FakePickers) -> None:
    plant.start()
    eventually(plant.pipeline.warmed_up.is_set, 10, "it is there")
    for seed in range(4):
        plant.write(f"{seed}.mrc", seed)
    plant.recorded(4)
    made = list(beside.host_buffers)
    picked = [one.pixels for one in beside.device.uploads if one.pixels.shape == image(0).shape]
    assert picked
    assert all(any(np.shares_memory(pixels, buffer) for buffer in made) for pixels in picked)


def test_a_device_without_memory_of_its_kind_is_told(plant: Plant, beside: FakePickers) -> None:
    beside.no_host_buffer = "64 MiB of page-locked memory: none is left"
    with capture_logs() as logs:
        plant.start()
        eventually(plant.pipeline.warmed_up.is_set, 10, "it is there")
        for seed in range(3):
            plant.write(f"{seed}.mrc", seed)
        plant.recorded(3)
    told = [one for one in logs if one["event"] == "buffers_not_page_locked"]
    assert [one["reason"] for one in told] == [beside.no_host_buffer]
