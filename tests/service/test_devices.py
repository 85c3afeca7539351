"""Several devices in one pipeline: each picks what it can, and none holds up another."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from drpwatch.config import Pick
from drpwatch.errors import CanaryMoved, DeviceFault
from drpwatch.formats import mrc, star
from drpwatch.service import canary, device, loader
from drpwatch.service.canary import PARAMS, PIXEL_SIZE_ANGSTROM, picture
from drpwatch.service.devicenews import DeviceNews
from drpwatch.service.models import Models
from drpwatch.service.pickers import PickerFactory
from tests.daemon.fake_device import FakeDevice
from tests.daemon.fake_picker import FakePickers
from tests.pick.making import discs
from tests.service.plant import Plant
from tests.support import eventually

TWO = ["cpu", "cpu"]
AWAY = "cpu#2: the fake device is not there yet"
PICK_S = 0.3


@contextmanager
def running(root: Path, pickers: PickerFactory, devices: list[str] = TWO) -> Iterator[Plant]:
    root.mkdir(exist_ok=True)
    plant = Plant(root, pickers, devices=devices, cpu_threads=1)
    try:
        yield plant
    finally:
        assert plant.pipeline.stop(15)
        plant.journal.close()


@pytest.fixture
def pickers() -> FakePickers:
    return FakePickers(others=[FakeDevice()])


@pytest.fixture
def plant(tmp_path: Path, pickers: FakePickers) -> Iterator[Plant]:
    with running(tmp_path, pickers) as made:
        yield made


def metric(plant: Plant, metric_: str, **labels: str) -> float:
    found = plant.pipeline._publisher.metrics.registry.get_sample_value(f"drpwatch_{metric_}", labels)
    assert found is not None, f"{metric_} {labels}"
    return found


def queued(plant: Plant, count: int) -> None:
    """So many micrographs wait until the session is resumed."""
    plant.start()
    plant.control.pause("s1")
    for n in range(count):
        plant.write(f"{n:02}.mrc", n)
    eventually(lambda: plant.control.session("s1").micrographs.ready == count, 10, "all wait")


def names_by(plant: Plant, columns: str) -> list[str]:
    rows = plant.journal._all(f"SELECT name FROM micrograph WHERE latest = 1 ORDER BY {columns}", ())
    return [row["name"] for row in rows]


def seconds_for(root: Path, devices: list[str], count: int) -> float:
    """How long devices that need PICK_S for each take for so many micrographs."""
    pickers = FakePickers(PICK_S, others=[FakeDevice() for _ in devices[1:]])
    with running(root, pickers, devices) as plant:
        queued(plant, count)
        began = time.monotonic()
        plant.control.resume("s1")
        plant.recorded(count)
        return time.monotonic() - began


# ---- all is well --------------------------------------------------------------------------------


def test_two_devices_pick_twice_as_much(tmp_path: Path) -> None:
    one, two = (seconds_for(tmp_path / str(n), TWO[:n], 10) for n in (1, 2))
    assert 0.4 < two / one < 0.7


def test_both_pick_each_micrograph_once_and_in_turn(plant: Plant, pickers: FakePickers) -> None:
    pickers.pick_s = 0.05
    queued(plant, 20)
    oldest_first = names_by(plant, "ready_at, id")
    plant.control.resume("s1")
    plant.recorded(20)
    assert plant.rows() == sorted(oldest_first)
    picked = [len(fake.tiles) for fake in (pickers.device, *pickers.others)]
    assert sum(picked) == 20
    assert min(picked) >= 5
    recorded = names_by(plant, "record_seq")
    # The oldest first, but for what was in hand at the same time.
    assert (
        max(abs(recorded.index(name) - n) for n, name in enumerate(oldest_first)) <= plant.pipeline._in_hand
    )
    for label in ("cpu", "cpu#2"):
        assert metric(plant, "device_ready", device=label) == 1
        assert metric(plant, "device_busy_seconds_total", device=label) >= 5 * 0.05
        assert metric(plant, "canary_checks_total", device=label, result="same") == 1


def test_a_model_is_shown_until_no_device_has_it(plant: Plant) -> None:
    metrics = plant.pipeline._publisher.metrics
    metrics.show_model("own", "f" * 64, "cpu")
    metrics.show_model("the same by another name", "f" * 64, "cpu#2")
    metrics.forget_model("f" * 64, "cpu")
    assert metric(plant, "model_info", name="own", sha256="f" * 64) == 1
    metrics.forget_model("f" * 64, "cpu#2")
    assert b"f" * 64 not in metrics.render()


def test_every_loop_beats(plant: Plant) -> None:
    plant.start()
    beating = {"scanner", "loader-1", "loader-2", "picker-cpu", "picker-cpu#2", "recorder"}
    eventually(lambda: set(plant.pipeline.heartbeats.ages_s()) == beating, 10, "all loops beat")

    def is_told() -> bool:
        """Unless it has just beaten again."""
        plant.pipeline.heartbeats._last["picker-cpu#2"] -= 1000
        plant.pipeline.show_gauges()
        sentences = plant.pipeline.heartbeats.stale(300)
        told = any("the picker-cpu#2 loop has made no progress" in sentence for sentence in sentences)
        return told and time.time() - metric(plant, "heartbeat_timestamp_seconds", loop="picker") > 300

    eventually(is_told, 5, "the slowest one is shown")


def test_a_sentence_names_its_device_once(plant: Plant) -> None:
    publisher = plant.pipeline._publisher
    one = DeviceNews("cuda:1", publisher, is_one_of_several=True)
    assert one.sentence("out of memory") == "cuda:1: out of memory"
    assert one.sentence('device "cuda:1": no driver') == 'device "cuda:1": no driver'
    assert DeviceNews("auto", publisher, is_one_of_several=False).sentence("no driver") == "no driver"


# ---- one is not ready, or loses its memory --------------------------------------------------------


def test_a_device_that_is_away_holds_up_nothing(
    plant: Plant, pickers: FakePickers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_BACK_OFF_S", (0.2,))
    away = pickers.others[0]
    away.is_away = True
    plant.start()
    for n in range(8):
        plant.write(f"{n}.mrc", n)
    plant.recorded(8)
    assert away.tiles == []
    assert plant.pipeline.warmed_up.is_set()
    eventually(lambda: plant.control.readiness().notes == (AWAY,), 5, "it is told")
    assert plant.control.readiness().healthy
    assert plant.control.session("s1").problems == (AWAY,)
    assert (metric(plant, "device_ready", device="cpu"), metric(plant, "device_ready", device="cpu#2")) == (
        1,
        0,
    )
    away.is_away = False
    eventually(lambda: plant.control.readiness().notes == (), 5, "it comes by itself")
    assert plant.control.session("s1").problems == ()
    pickers.pick_s = 0.1
    for n in range(8, 16):
        plant.write(f"{n}.mrc", n)
    plant.recorded(16)
    assert away.tiles


def test_without_any_device_nothing_is_ready(
    plant: Plant, pickers: FakePickers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_BACK_OFF_S", (0.2,))
    pickers.device.is_away = pickers.others[0].is_away = True
    plant.start()
    plant.write("a.mrc")
    both = f"{AWAY.replace('cpu#2', 'cpu')}; {AWAY}"
    eventually(lambda: plant.control.readiness().reasons == (both,), 5, "it is not ready")
    assert plant.control.readiness().notes == ()
    assert plant.control.session("s1").problems == tuple(both.split("; "))
    pickers.others[0].is_away = False
    plant.recorded(1)
    assert plant.control.readiness().healthy


def test_what_a_device_without_memory_held_is_picked_by_the_other(
    plant: Plant, pickers: FakePickers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_BACK_OFF_S", (0.1,))
    full = pickers.others[0]
    full.room_px, full.others_gib = 100, 4.0
    pickers.pick_s = 0.1
    plant.start()
    for n in range(10):
        plant.write(f"{n}.mrc", n)
    plant.recorded(10)
    assert full.tiles[:3] == [512, 256, 128]
    assert len(full.tiles) > 3  # it tried again by itself
    assert pickers.device.tiles == [512] * 10  # the other's lack of memory is not its own
    assert metric(plant, "tile_px", device="cpu#2") == 0


def test_what_a_device_gives_back_waits_for_nobody(
    plant: Plant, pickers: FakePickers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loaders that wait for something new to read are told of it."""
    monkeypatch.setattr(device, "_BACK_OFF_S", (0.1,))
    monkeypatch.setattr(loader, "_IDLE_WAIT_S", 300.0)
    pickers.device.is_away = True
    full = pickers.others[0]
    full.room_px, full.others_gib = 100, 4.0
    plant.start()
    plant.write("a.mrc")
    eventually(lambda: full.tiles[:3] == [512, 256, 128], 5, "it lacks the memory")
    full.room_px = 512
    plant.recorded(1)


def test_each_device_has_its_own_tiles(plant: Plant, pickers: FakePickers) -> None:
    pickers.others[0].room_px = 200
    pickers.pick_s = 0.1
    plant.start()
    for n in range(8):
        plant.write(f"{n}.mrc", n)
    plant.recorded(8)
    assert (metric(plant, "tile_px", device="cpu"), metric(plant, "tile_px", device="cpu#2")) == (512, 128)


@pytest.mark.parametrize("all_away", [False, True])
def test_it_stops_while_a_device_is_away(tmp_path: Path, all_away: bool) -> None:
    """What is loaded is picked by the others; where there are none it stays for the next start."""
    pickers = FakePickers(0.1, others=[FakeDevice(is_away=True)], device=FakeDevice(is_away=all_away))
    with running(tmp_path, pickers) as plant:
        queued(plant, 12)
        plant.control.resume("s1")
        in_hand = len(plant.pipeline._loaders) + plant.pipeline._loaded.capacity + (not all_away)
        eventually(lambda: plant.pipeline.dispatcher.on_way >= in_hand, 10, "all places are taken")
        before = plant.journal.totals(1).picked
        began = time.monotonic()
        assert plant.pipeline.stop(15)
        assert time.monotonic() - began < 8
        picked = plant.journal.totals(1).picked
        assert plant.journal.totals(1).ready == 12 - picked
        if all_away:
            assert picked == 0
        else:
            assert picked >= before + plant.pipeline._loaded.capacity
        assert plant.pipeline.dispatcher.on_way == 0


# ---- one fails for good --------------------------------------------------------------------------


def test_a_fault_of_one_device_ends_all_and_what_was_on_it_is_not_recorded(
    plant: Plant, pickers: FakePickers
) -> None:
    pickers.device.faults_on = pickers.others[0].faults_on = [9]
    pickers.pick_s = 0.2
    plant.start()
    plant.write("a.mrc", 1)
    plant.recorded(1)
    plant.write("bad.mrc", 9)
    eventually(lambda: isinstance(plant.pipeline.failure, DeviceFault), 10, "the device fails")
    for n in range(4):
        plant.write(f"{n}.mrc", n)
    assert plant.pipeline.stop(10)
    failed = "cpu" if pickers.device.dead else "cpu#2"
    assert str(plant.pipeline.failure) == f"{failed}: CUDA error: an illegal memory access was encountered"
    totals = plant.journal.totals(1)
    assert (totals.picked, totals.failed) == (1, 0)
    assert metric(plant, "device_ready", device=failed) == 0
    crash, _ = plant.pipeline.flight.last_crash() or (None, "")
    assert crash is not None
    assert [suspect.name for suspect in crash.suspects] == ["bad.mrc"]


def test_a_device_that_lies_is_named(plant: Plant, pickers: FakePickers) -> None:
    pickers.others[0].wrong_from = 2
    for picking in plant.pipeline.pickings:
        picking._device._canary._every_s = 0.1
    plant.start()
    eventually(lambda: isinstance(plant.pipeline.failure, CanaryMoved), 10, "the pipeline fails")
    assert str(plant.pipeline.failure).startswith("cpu#2: the picks of the canary micrograph moved")
    assert metric(plant, "canary_checks_total", device="cpu#2", result="moved") == 1
    assert metric(plant, "canary_checks_total", device="cpu", result="moved") == 0
    assert metric(plant, "device_ready", device="cpu") == 1


# ---- real models ---------------------------------------------------------------------------------


def test_two_picking_threads_pick_what_one_picks(tmp_path: Path) -> None:
    tables = []
    for count in (1, 2):
        root = tmp_path / str(count)
        models = Models(Pick(devices=TWO[:count], cpu_threads=1), root / "weights")
        with running(root, models, TWO[:count]) as plant:
            plant.start(diameter_angstrom=80.0, threshold=0.02)
            for seed in range(6):
                places = [tuple(yx) for yx in np.random.default_rng(seed).uniform(60, 450, (20, 2))]
                beside = plant.mics / f".{seed}"
                mrc.write_mrc(beside, discs((512, 512), places, (40, 40), seed), 2.0)
                beside.rename(plant.mics / f"{seed}.mrc")
            eventually(lambda plant=plant: plant.control.session("s1").micrographs.picked == 6, 60, "picked")
            table = star.read(root / "drpwatch/s1/particles.star")["particles"]
            tables.append(sorted(table.rows))
    assert len(tables[0]) > 50
    assert tables[0] == tables[1]


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_pick_the_same_at_the_same_time(tmp_path: Path) -> None:
    models = Models(Pick(devices=[0, 1]), tmp_path / "weights")
    pinned = models.pin("general")
    found, used, size = {}, {}, (PIXEL_SIZE_ANGSTROM, PIXEL_SIZE_ANGSTROM)

    def pick(number: int) -> None:
        picker = models(pinned.sha256, number)
        found[number] = [picker.pick(picture(), size, PARAMS) for _ in range(5)]
        used[number] = torch.cuda.current_device(), picker.device.index

    threads = [threading.Thread(target=pick, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert used == {0: (0, 0), 1: (1, 1)}
    for one, other in zip(found[0], found[1], strict=True):
        assert len(one.score)
        assert canary._same(one, other)
