"""Outputs that do not answer: what is held back, for how long, and what goes on."""

import threading
from collections.abc import Iterator

import pytest

from drpwatch.service import desk
from drpwatch.service.desk import MOST_HELD
from tests.service.plant import Plant
from tests.support import PATIENCE, eventually

N = 3 * MOST_HELD


class SilentDisk:
    """The plant's disk, which does not answer to writes until it is told to."""

    def __init__(self, plant: Plant) -> None:
        self._answers, self._call = threading.Event(), plant.faults.call
        plant.faults.call = self  # type: ignore[method-assign]

    def __call__(self, name, act, half=None):  # type: ignore[no-untyped-def]
        if name == "write":
            assert self._answers.wait(300)
        return self._call(name, act, half)

    def mend(self) -> None:
        self._answers.set()


@pytest.fixture
def silent(plant: Plant) -> Iterator[SilentDisk]:
    plant.start()
    plant.write("first.mrc", 1)
    plant.recorded(1)
    made = SilentDisk(plant)
    yield made
    made.mend()


def test_no_more_is_handed_out_than_the_desk_takes(plant: Plant, silent: SilentDisk) -> None:
    for number in range(N):
        plant.write(f"{number}.mrc", number)
    held = plant.pipeline.recorder._desks["s1"]._held
    eventually(lambda: len(held) >= MOST_HELD, 10, "the desk is full")
    eventually(lambda: plant.control.session("s1").micrographs.ready == N, 10, "all are found")
    eventually(lambda: plant.pipeline.dispatcher.on_way == len(held), 10, "nothing else is in hand")
    assert plant.pickers.picked < 1 + N
    silent.mend()
    plant.recorded(1 + N)
    assert plant.rows() == sorted(["first.mrc", *(f"{number}.mrc" for number in range(N))])
    assert plant.control.session("s1").problems == ()


def test_it_is_told_while_it_lasts(plant: Plant, silent: SilentDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "HANGS_AFTER_S", 0.3)
    plant.write("a.mrc", 2)
    (problem,) = eventually(lambda: plant.control.session("s1").problems, 10, "it is told")
    assert problem == (
        f"session s1: writing to {plant.root}/drpwatch/s1 takes longer than 0 s: its file server may not answer"
    )
    assert problem in plant.control.readiness().reasons
    assert plant.control.liveness().healthy
    monkeypatch.undo()
    silent.mend()
    plant.recorded(2)
    eventually(lambda: plant.control.readiness().healthy, 10, "all is well")


def test_what_nobody_foresaw_ends_the_daemon(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.start()
    plant.write("a.mrc", 1)
    plant.recorded(1)
    monkeypatch.setattr(
        desk.SessionOutputs, "catch_up", lambda self: (_ for _ in ()).throw(RuntimeError("unforeseen"))
    )
    eventually(lambda: plant.pipeline.failure is not None, 10, "the pipeline fails")
    assert str(plant.pipeline.failure) == "unforeseen"
    assert plant.pipeline.stop(PATIENCE * 5)
