"""Picking on a GPU: the same picks, few waits, copies beside computing, little memory. All of it needs one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from drpwatch.errors import DeviceOutOfMemory
from drpwatch.micrograph import PickParams
from drpwatch.pick.device import page_locked, release
from drpwatch.pick.picker import Picker
from tests.pick import frozen
from tests.pick.frozen import PARAMS, PIXEL
from tests.pick.making import cascade_model
from tests.pick.test_at_once import assert_picked
from tests.pick.test_picker import assert_same, crowd, in_tiles

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.timeout(300),
]

SCENES = frozen.scenes()
SIDE_PX = 4096
LARGE = PickParams(150.0)
LARGE_PIXEL = (1.1, 1.1)


@pytest.fixture(scope="session")
def cascade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cascade_model(tmp_path_factory.mktemp("weights") / "cascade.safetensors")


@pytest.fixture(scope="session")
def large() -> list[npt.NDArray[np.float32]]:
    """Two micrographs in page-locked memory."""
    made = []
    for seed in range(2):
        buffer = page_locked(4 * SIDE_PX**2).view(np.float32).reshape(SIDE_PX, SIDE_PX)
        np.random.default_rng(seed).standard_normal(out=buffer, dtype=np.float32)
        made.append(buffer)
    return made


@pytest.fixture(scope="session")
def general() -> Picker:
    return Picker.load("general", "cuda", precision="float32")


@pytest.fixture
def sync_debug() -> Iterator[None]:
    """Have whatever waits for the device warn."""
    torch.cuda.set_sync_debug_mode("warn")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("scene", SCENES)
def test_a_gpu_picks_what_the_cpu_picks(cascade: Path, scene: str) -> None:
    on_cpu = Picker.load(str(cascade), "cpu").pick(SCENES[scene], PIXEL, PARAMS)
    on_gpu = Picker.load(str(cascade), "cuda", precision="float32").pick(SCENES[scene], PIXEL, PARAMS)
    assert_picked(on_gpu, frozen.as_rows(on_cpu))


def test_the_shipped_weights_pick_what_they_pick_on_the_cpu(general: Picker) -> None:
    pixels, params = crowd(15), PickParams(24 * PIXEL[0])
    rows = frozen.as_rows(Picker.load("general", "cpu").pick(pixels, PIXEL, params))
    assert_picked(general.pick(pixels, PIXEL, params), rows)


def test_the_same_micrograph_gives_the_same_picks(general: Picker) -> None:
    one, other = (general.pick(crowd(15), PIXEL, PickParams(60.0)) for _ in range(2))
    np.testing.assert_array_equal(one.yx_px, other.yx_px)
    np.testing.assert_array_equal(one.score, other.score)


def test_the_device_is_waited_for_twice(
    general: Picker, large: list[npt.NDArray[np.float32]], sync_debug: None
) -> None:
    general.pick(large[0], LARGE_PIXEL, LARGE)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        general.pick(large[1], LARGE_PIXEL, LARGE)
    waits = [str(one.message) for one in caught if "synchroniz" in str(one.message)]
    assert len(waits) == 2, waits


def test_an_upload_returns_at_once_and_goes_on_beside_computing(
    general: Picker, large: list[npt.NDArray[np.float32]]
) -> None:
    def pick_and_upload() -> tuple[torch.cuda.Event, torch.cuda.Event, torch.cuda.Event]:
        began, computed = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        arrived = torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        began.record()
        uploaded = general.upload(large[0])
        prepared = general.prepare(uploaded, LARGE_PIXEL, LARGE)
        following = general.upload(large[1])
        assert following.arrived is not None
        assert not following.arrived.query()  # 64 MiB are not there yet
        with torch.cuda.stream(general._copies):
            arrived.record()
        general.detect(prepared, LARGE)
        general.detect(prepared, LARGE)
        computed.record()
        torch.cuda.synchronize()
        assert torch.equal(following.pixels.cpu(), torch.from_numpy(large[1]))
        return began, arrived, computed

    pick_and_upload()
    began, arrived, computed = pick_and_upload()
    assert began.elapsed_time(arrived) < began.elapsed_time(computed)


def test_a_buffer_can_be_written_again_after_its_upload(
    general: Picker, large: list[npt.NDArray[np.float32]]
) -> None:
    buffer = page_locked(4 * SIDE_PX**2).view(np.float32).reshape(SIDE_PX, SIDE_PX)
    for value in range(5):
        buffer[:] = value
        uploaded = general.upload(buffer)
        uploaded.wait()
        buffer[:] = -1
        assert bool((uploaded.pixels == value).all())


def test_a_micrograph_needs_less_than_4_gib(general: Picker, large: list[npt.NDArray[np.float32]]) -> None:
    release()
    torch.cuda.reset_peak_memory_stats()
    ahead = general.upload(large[1])
    general.pick(large[0], LARGE_PIXEL, LARGE)
    ahead.wait()
    assert torch.cuda.max_memory_reserved() < 4 * 2**30


def test_every_tile_size_gives_the_same_picks(general: Picker) -> None:
    pixels, params = crowd(60), PickParams(24 * PIXEL[0])
    usual = general.pick(pixels, PIXEL, params)
    for tile_px in general.tile_sizes_px:
        assert_same(in_tiles(general, pixels, params, tile_px), usual)


def test_little_memory_is_told_and_smaller_tiles_need_less(general: Picker) -> None:
    params = PickParams(24 * PIXEL[0])
    prepared = general.prepare(general.upload(crowd(60)), PIXEL, params)
    needed = {}
    for tile_px in (general.tile_sizes_px[0], general.tile_sizes_px[-1]):
        release()
        torch.cuda.reset_peak_memory_stats()
        usual = general.detect(prepared, params, tile_px)
        needed[tile_px] = torch.cuda.max_memory_reserved()
    largest, smallest = needed
    assert needed[smallest] < needed[largest]
    release()
    total = general.memory_bytes()["total"]
    torch.cuda.set_per_process_memory_fraction((needed[smallest] + needed[largest]) / 2 / total)
    try:
        with pytest.raises(DeviceOutOfMemory, match="out of memory on the device"):
            general.detect(prepared, params, largest)
        again = general.detect(prepared, params, smallest)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.allclose(again.distance_map, usual.distance_map, atol=1e-4)


def test_half_precision_is_taken_where_picks_agree() -> None:
    picker = Picker.load("general", "cuda")
    assert picker.precision in ("float16", "bfloat16"), picker.imprecise


def test_nothing_is_left_on_the_device() -> None:
    def pick_and_forget() -> int:
        Picker.load("general", "cuda", precision="float32").pick(crowd(15), PIXEL, PickParams(60.0))
        release()
        return torch.cuda.memory_allocated()

    assert pick_and_forget() == pick_and_forget()  # but for what CUDA's libraries keep
