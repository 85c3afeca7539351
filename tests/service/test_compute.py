"""Memory that is short, and what a failing device leaves behind: the stages together, in this process."""

from __future__ import annotations

import threading

import pytest

from drpwatch.errors import DeviceFault
from drpwatch.service import device
from tests.daemon.fake_device import FakeDevice
from tests.daemon.fake_picker import FakePickers
from tests.service.plant import Plant
from tests.support import PATIENCE, eventually


def page(plant: Plant) -> str:
    return plant.pipeline._publisher.metrics.render().decode()


def test_with_little_memory_it_is_picked_in_smaller_tiles(plant: Plant, pickers: FakePickers) -> None:
    pickers.device.room_px = 200
    plant.start()
    plant.write("a.mrc", 1)
    plant.recorded(1)
    plant.write("b.mrc", 2)
    plant.recorded(2)
    assert pickers.device.tiles == [512, 256, 128, 128]  # the second one begins with what worked
    assert 'drpwatch_errors_total{kind="memory"} 2.0' in page(plant)
    assert 'drpwatch_tile_px{device="auto"} 128.0' in page(plant)
    assert plant.rows() == ["a.mrc", "b.mrc"]


@pytest.mark.parametrize("step", ["prepare", "detect", "choose"])
def test_a_lack_of_memory_counts_in_every_step(plant: Plant, pickers: FakePickers, step: str) -> None:
    pickers.device.full_in = [step]
    plant.start()
    plant.write("a.mrc", 1)
    plant.recorded(1)
    assert pickers.device.tiles == ([256] if step == "prepare" else [512, 256])


def test_what_fits_in_no_tiles_fails_and_its_neighbours_do_not(plant: Plant, pickers: FakePickers) -> None:
    pickers.device.room_px = 100
    plant.start()
    plant.write("a.mrc", 1)
    plant.recorded(0, failed=1)
    (failed,) = plant.control.session("s1").failed
    assert failed.reason == "out of memory on the device: 128 px, even in the smallest tiles (128 px)"
    assert plant.control.readiness().healthy
    pickers.device.room_px = 128
    plant.write("b.mrc", 2)
    plant.recorded(1, failed=1)


def test_memory_that_others_hold_is_waited_for(
    plant: Plant, pickers: FakePickers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_BACK_OFF_S", (0.2,))
    pickers.device.room_px, pickers.device.others_gib = 100, 4.0
    plant.start()
    plant.write("a.mrc", 1)
    sentence = "out of memory on the device: 128 px; other programs hold 4.0 GiB of the device's memory"
    eventually(lambda: sentence in plant.control.readiness().reasons, 10, "it is not ready")
    eventually(lambda: pickers.released > 1, 10, "others may have what it held")
    assert plant.control.session("s1").micrographs.failed == 0
    pickers.device.room_px = 1000
    plant.recorded(1)
    assert plant.control.readiness().healthy


def test_what_waits_for_the_disk_when_the_device_fails_is_not_written(
    plant: Plant, pickers: FakePickers
) -> None:
    pickers.device.faults_on = [9]
    plant.start()
    plant.write("a.mrc", 1)
    plant.recorded(1)
    slow, reached = threading.Event(), threading.Event()
    real = plant.faults.call

    def call(name: str, act, half=None):  # type: ignore[no-untyped-def]
        if name == "write" and not slow.is_set():
            reached.set()
            assert slow.wait(300)
        return real(name, act, half)

    plant.faults.call = call  # type: ignore[method-assign]
    plant.write("b.mrc", 2)
    assert reached.wait(PATIENCE * 10)
    for seed in (3, 4):
        plant.write(f"{seed}.mrc", seed)
    desk = plant.pipeline.recorder._desks["s1"]
    eventually(lambda: len(desk._held) == 3, 10, "two more are picked")
    plant.write("bad.mrc", 9)
    eventually(lambda: isinstance(plant.pipeline.failure, DeviceFault), 10, "the device fails")
    slow.set()
    assert plant.pipeline.stop(10)
    totals = plant.journal.totals(1)
    # What was being written when the device failed is whole; what came after it is not there.
    assert (totals.picked, totals.ready, totals.failed) == (2, 3, 0)
    assert plant.rows() == ["a.mrc", "b.mrc"]


def test_a_device_that_lies_is_not_ready_and_ends_the_pipeline(plant: Plant, pickers: FakePickers) -> None:
    pickers.device = FakeDevice(wrong_from=2)
    plant.pipeline.pickings[0]._device._canary._every_s = 0.1
    plant.start()
    eventually(lambda: plant.pipeline.failure is not None, 10, "the pipeline fails")
    assert "the picks of the canary micrograph moved" in plant.control.readiness().reasons[0]
    assert 'drpwatch_device_ready{device="auto"} 0.0' in page(plant)
    assert 'drpwatch_canary_checks_total{device="auto",result="moved"} 1.0' in page(plant)
