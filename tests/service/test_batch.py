"""`drpwatch pick` below the command line, with a picker that needs no model."""

import os
import signal
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from drpwatch.errors import (
    DeviceFault,
    DeviceOutOfMemory,
    JournalError,
    OutputError,
    UnusableMicrograph,
    UsageError,
)
from drpwatch.formats import star
from drpwatch.formats.mrc import write_mrc
from drpwatch.micrograph import PickParams, Picks
from drpwatch.pick.device import plain
from drpwatch.service.batch import Batch, Done
from drpwatch.service.channel import Allocate
from drpwatch.service.inputs import find_inputs
from drpwatch.service.interrupts import Interrupts
from drpwatch.session import disk
from tests.daemon.fake_picker import FakeUploaded

PARAMS = PickParams(150.0)


@dataclass
class FakePicker:
    """Picks as many particles as the first pixel says; a negative number is blank, 99 a dead device."""

    weights_sha256: str = "a" * 64
    device_name: str = "batch device"
    tile_sizes_px: tuple[int, ...] = (512, 256)
    room_px: int = 1000
    host_memory: Allocate = plain
    seen: list[int] = field(default_factory=list)

    def upload(self, pixels):
        return FakeUploaded(pixels)

    def prepare(self, uploaded, pixel_size_yx, params):
        return int(uploaded.pixels[0, 0]), params

    def detect(self, prepared, params, tile_px):
        if tile_px > self.room_px:
            raise DeviceOutOfMemory(f"out of memory on the device: {tile_px} px")
        return prepared

    def memory_bytes(self):
        return {}

    def choose(self, candidate_map) -> Picks:
        n, params = candidate_map
        self.seen.append(n)
        if n < 0:
            raise UnusableMicrograph("blank: every pixel is -1")
        if n == 99:
            raise DeviceFault("CUDA error: gone")
        yx = np.array([[i, 2 * i] for i in range(n)], np.float32).reshape(-1, 2)
        return Picks(yx, np.full(n, 0.9, np.float32), params.threshold or 0.5, self.weights_sha256)


def micrograph(path: Path, picks: int, pixel_size: float = 1.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mrc(path, np.full((8, 10), picks, np.float32), pixel_size)
    return path


@pytest.fixture
def world(tmp_path: Path) -> Path:
    micrograph(tmp_path / "in/a.mrc", 2)
    micrograph(tmp_path / "in/g1/b.mrc", 3)
    micrograph(tmp_path / "in/g2/b.mrc", 0)
    return tmp_path


def run(world: Path, *given: str, params: PickParams = PARAMS, picker=None, **options) -> list[Done]:
    paths = [world / one for one in given or ("in",)]
    picker = picker or FakePicker()
    with Batch(find_inputs(paths), world / "out", params, picker.weights_sha256, **options) as batch:
        run.notes = batch.notes
        return list(batch.run(picker))


def rows(world: Path) -> dict[str, int]:
    names = star.read(world / "out/particles.star")["particles"].column("rlnMicrographName")
    return {name: names.count(name) for name in dict.fromkeys(names)}


def test_the_files_are_those_of_a_session(world):
    done = run(world)
    assert [(one.name, one.n_picks) for one in done] == [("a.mrc", 2), ("g1/b.mrc", 3), ("g2/b.mrc", 0)]
    assert set(done[0].seconds) == {"read", "prepare", "detect", "choose", "record"}
    assert rows(world) == {"a.mrc": 2, "g1/b.mrc": 3}
    listed = star.read(world / "out/autopick.star")["coordinate_files"].rows
    assert listed[1] == ("g1/b.mrc", f"{world}/out/g1/b_autopick.star")
    assert (world / "out/coords_suffix_autopick.star").exists()
    assert (world / "out/g2/b_autopick.star").exists()


def test_a_second_run_picks_nothing(world):
    run(world)
    before = (world / "out/particles.star").read_bytes()
    assert run(world) == []
    assert run.notes == ()
    assert (world / "out/particles.star").read_bytes() == before


def test_new_and_changed_files_are_picked(world):
    run(world)
    micrograph(world / "in/new.mrc", 1)
    micrograph(world / "in/a.mrc", 4)
    os.utime(world / "in/a.mrc", ns=(1, 1))
    assert [one.name for one in run(world)] == ["a.mrc", "new.mrc"]
    assert run.notes == ("1 micrograph changed since picked: picked again",)
    assert rows(world) == {"g1/b.mrc": 3, "a.mrc": 4, "new.mrc": 1}


def test_other_parameters_or_weights_pick_again_and_say_so(world):
    run(world)
    assert len(run(world, params=replace(PARAMS, threshold=0.25))) == 3
    assert run.notes == ("threshold None -> 0.25: 3 micrographs picked again",)
    assert len(run(world, params=replace(PARAMS, threshold=0.25), picker=FakePicker("b" * 64))) == 3
    assert run.notes == ("other weights or parameters: 3 micrographs picked again",)
    assert rows(world) == {"a.mrc": 2, "g1/b.mrc": 3}


def test_the_same_weights_by_another_name_are_the_same(world):
    run(world)
    assert run(world, params=replace(PARAMS, model="/elsewhere/general.safetensors")) == []


def test_what_is_not_given_keeps_its_picks_and_that_is_said(world):
    run(world)
    assert [one.name for one in run(world, "in/g1", params=replace(PARAMS, threshold=0.25))] == ["g1/b.mrc"]
    assert run.notes[1] == (
        "threshold None -> 0.25: 2 micrographs that were not given keep the picks that they have"
    )
    assert rows(world) == {"a.mrc": 2, "g1/b.mrc": 3}


def test_another_prefix_renames_without_picking(world):
    run(world)
    assert run(world, micrograph_prefix="MotionCorr/job002/") == []
    assert rows(world) == {"MotionCorr/job002/a.mrc": 2, "MotionCorr/job002/g1/b.mrc": 3}


def test_another_pixel_size_reaches_the_optics(world):
    run(world)
    run(world, params=replace(PARAMS, pixel_size_angstrom=0.75))
    assert star.read(world / "out/particles.star")["optics"].column("rlnMicrographPixelSize") == ["0.750000"]
    run(world)
    assert star.read(world / "out/particles.star")["optics"].column("rlnMicrographPixelSize") == ["1.500000"]


def test_bad_files_leave_their_neighbours_alone(world):
    micrograph(world / "in/blank.mrc", -1)
    micrograph(world / "in/half.mrc", 1)
    os.truncate(world / "in/half.mrc", 1100)
    (world / "in/notes.mrc").write_text("not an image" * 200)
    (world / "in/folder.mrc").mkdir()
    os.mkfifo(world / "in/pipe.mrc")
    (world / "in/loop.mrc").symlink_to("loop.mrc")
    micrograph(world / "in/other.mrc", 1, pixel_size=3.0)
    failed = {one.name: one.failure for one in run(world) if one.failure}
    assert failed.pop("other.mrc").startswith("its pixel size is 3 Å, that of the session's other")
    assert failed.pop("loop.mrc").startswith("not a regular file")
    assert failed == {
        "blank.mrc": "blank: every pixel is -1",
        "half.mrc": "truncated: have 1100 of 1344 bytes",
        "notes.mrc": "not an MRC file: its first bytes give no image size",
        "folder.mrc": "not a regular file but a directory",
        "pipe.mrc": "not a regular file but a FIFO",
    }
    assert rows(world) == {"a.mrc": 2, "g1/b.mrc": 3}


def test_a_failed_file_is_tried_again(world):
    micrograph(world / "in/z.mrc", 1)
    os.truncate(world / "in/z.mrc", 1100)
    assert run(world)[-1].failure
    assert [one.name for one in run(world)] == ["z.mrc"]
    micrograph(world / "in/z.mrc", 1)
    assert [one.n_picks for one in run(world)] == [1]
    assert rows(world)["z.mrc"] == 1


def test_without_any_pixel_size_nothing_is_begun(world):
    for path in (world / "in").rglob("*.mrc"):
        micrograph(path, 1, pixel_size=0.0)
    with pytest.raises(UsageError, match=r"in/a.mrc: the header gives no pixel size: give --pixel-size"):
        run(world)
    assert not (world / "out").exists()
    assert len(run(world, params=replace(PARAMS, pixel_size_angstrom=1.1))) == 3


def test_an_output_directory_of_something_else_is_refused(world):
    (world / "out").mkdir()
    (world / "out/particles.star").write_text("mine")
    with pytest.raises(UsageError, match="did not write: give another output directory"):
        run(world)
    assert (world / "out/particles.star").read_text() == "mine"


def test_names_stay_relative_to_the_first_root(world):
    run(world)
    micrograph(world / "in/g1/new.mrc", 1)
    assert [one.name for one in run(world, "in/g1/new.mrc")] == ["g1/new.mrc"]
    micrograph(world / "elsewhere/c.mrc", 1)
    with pytest.raises(UsageError, match="is not in there: give another output directory"):
        run(world, "elsewhere")


def test_two_runs_at_once_are_refused(world):
    with (
        Batch(find_inputs([world / "in"]), world / "out", PARAMS, "a" * 64),
        pytest.raises(JournalError, match="another 'drpwatch pick' writes here now"),
    ):
        run(world)


def test_a_moved_output_directory_goes_on(world):
    run(world)
    (world / "out").rename(world / "moved")
    picker = FakePicker()
    with Batch(find_inputs([world / "in"]), world / "moved", PARAMS, picker.weights_sha256) as batch:
        assert batch.todo == ()
    listed = star.read(world / "moved/autopick.star")["coordinate_files"].rows
    assert listed[0] == ("a.mrc", f"{world}/moved/a_autopick.star")


def test_a_dead_device_ends_the_run_and_the_next_one_goes_on(world):
    micrograph(world / "in/g1/b.mrc", 99)
    with pytest.raises(DeviceFault):
        run(world)
    assert rows(world) == {"a.mrc": 2}
    micrograph(world / "in/g1/b.mrc", 1)
    assert [one.name for one in run(world)] == ["g1/b.mrc", "g2/b.mrc"]


def test_a_full_disk_ends_the_run_with_whole_files(world, monkeypatch):
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(disk, "append", full)
        with pytest.raises(OutputError, match="no space left on device"):
            run(world)
    assert rows(world) == {}
    run(world)
    assert rows(world) == {"a.mrc": 2, "g1/b.mrc": 3}


def test_an_interrupt_leaves_whole_files_and_the_next_run_goes_on(world, monkeypatch):
    append = disk.append

    def interrupted(path: Path, data: bytes) -> None:
        signal.raise_signal(signal.SIGINT)  # in the middle of recording
        append(path, data)

    picker = FakePicker()
    with monkeypatch.context() as patch, Interrupts() as interrupts:
        patch.setattr(disk, "append", interrupted)
        batch = Batch(find_inputs([world / "in"]), world / "out", PARAMS, picker.weights_sha256)
        with batch, pytest.raises(KeyboardInterrupt):
            list(batch.run(picker, interrupts.held))
    assert rows(world) == {"a.mrc": 2}
    assert [one.name for one in run(world)] == ["g1/b.mrc", "g2/b.mrc"]


def test_signals_outside_of_writing_interrupt_at_once():
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_threads_can_do_without_signals():
    problems = []

    def enter() -> None:
        try:
            with Interrupts() as interrupts, interrupts.held():
                pass
        except ValueError as error:
            problems.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert problems == []


@pytest.mark.parametrize("room_px", [300, 200])
def test_with_little_memory_smaller_tiles_are_taken_and_else_the_files_fail(world, room_px):
    done = run(world, picker=FakePicker(room_px=room_px))
    fits = room_px > 256
    assert [one.n_picks for one in done] == ([2, 3, 0] if fits else [None] * 3)
    sentence = "out of memory on the device: 256 px, even in the smallest tiles (256 px)"
    assert {one.failure for one in done} == {None if fits else sentence}
