"""The simulated microscope: what is in the directory while it works, and in the end."""

import threading
from pathlib import Path

import numpy as np
import pytest

from drpwatch.errors import IncompleteMicrograph, UnusableMicrograph
from drpwatch.formats import mrc
from drpwatch.train import microscope
from drpwatch.train.microscope import Microscope, compact_species
from tests.support import PATIENCE, eventually

SPECIES = compact_species(0)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microscope, "SHAPE_YX", (256, 192))


def made(directory: Path, pace_s: float = 0.0) -> Microscope:
    return Microscope(directory, SPECIES, count=6, seed=3, pace_s=pace_s)


def test_everything_is_whole_in_the_end(tmp_path: Path) -> None:
    maker = made(tmp_path)
    asked: list[str] = []
    maker.run(threading.Event(), lambda name: asked.append(name) is None)
    assert asked == [maker.rewritten_name]
    assert sorted(maker.exposures) == maker.names
    for name in maker.names:
        path = tmp_path / name
        header = mrc.read_header(path)
        assert header.shape_yx == (256, 192)
        assert header.pixel_size_yx_angstrom == (3.0, 3.0)
        mrc.check_complete(header, path.stat().st_size)
        exposure = maker.exposures[name]
        assert exposure.generation == (2 if name == maker.rewritten_name else 1)
        assert exposure.finished_at == pytest.approx(path.stat().st_mtime, abs=1)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {*maker.names, maker.junk_name}
    with pytest.raises(UnusableMicrograph):
        mrc.read_header(tmp_path / maker.junk_name)


def test_the_same_seed_gives_the_same_micrographs(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        made(tmp_path / folder).run(threading.Event(), lambda name: True)
    for name in made(tmp_path).names:
        assert (tmp_path / "a" / name).read_bytes()[1024:] == (tmp_path / "b" / name).read_bytes()[1024:]


def test_particles_of_the_truth_are_wholly_inside(tmp_path: Path) -> None:
    maker = made(tmp_path)
    maker.run(threading.Event(), lambda name: True)
    yx = np.concatenate([exposure.truth_yx for exposure in maker.exposures.values()])
    radius_px = SPECIES.diameter_angstrom / 3 / 2
    assert len(yx) > 4
    assert (yx >= radius_px).all()
    assert (yx <= np.array([255, 191]) - radius_px).all()


def test_one_is_truncated_until_later_ones_are_there_and_a_rewrite_waits_for_the_pick(tmp_path: Path) -> None:
    maker = made(tmp_path)
    stop, truncated = threading.Event(), tmp_path / maker.names[1]
    states: list[bool] = []

    def is_picked(name: str) -> bool:
        states.append((tmp_path / maker.names[4]).exists())
        return False

    worker = threading.Thread(target=maker.run, args=(stop, is_picked))
    worker.start()
    eventually(lambda: states, 20, "the rewrite waits")
    assert all(states)
    assert maker.rewritten_name in maker.exposures
    assert not (tmp_path / maker.names[5]).exists()
    assert maker.exposures[maker.names[1]].finished_at > maker.exposures[maker.names[3]].finished_at
    assert truncated.stat().st_size == mrc.read_header(truncated).expected_bytes
    stop.set()
    worker.join(PATIENCE * 10)
    assert not worker.is_alive()
    assert maker.exposures[maker.rewritten_name].generation == 1


def test_it_stops_in_the_middle_of_a_file(tmp_path: Path) -> None:
    maker = made(tmp_path, pace_s=4.0)
    stop, first = threading.Event(), tmp_path / maker.names[0]
    worker = threading.Thread(target=maker.run, args=(stop, lambda name: True))
    worker.start()
    eventually(lambda: first.exists() and first.stat().st_size > 1024, 20, "the first piece is there")
    stop.set()
    worker.join(PATIENCE * 2)
    assert not worker.is_alive()
    assert maker.exposures == {}
    with pytest.raises(IncompleteMicrograph):
        mrc.check_complete(mrc.read_header(first), first.stat().st_size)
