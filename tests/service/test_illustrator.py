"""Pictures beside the way of a micrograph: whatever goes wrong with them, every micrograph is picked."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drpwatch.config import Config, Page, Watch
from drpwatch.errors import DeviceFault, DeviceNotReady
from drpwatch.micrograph import PickParams
from drpwatch.service.clock import Clock
from drpwatch.service.control import SessionRequest
from drpwatch.service.metrics import Metrics
from drpwatch.service.pipeline import Pipeline
from drpwatch.service.publish import Publisher
from drpwatch.service.sessions import Sessions
from drpwatch.service.settings import Settings
from drpwatch.session.journal import Journal
from drpwatch.session.thumbnails import FOLDER, Thumbnails, View
from tests.daemon.fake_picker import FakePicker, FakePickers
from tests.daemon.rig import image, write_image
from tests.support import PATIENCE, eventually, grey_values


class Atelier:
    """A pipeline on one session, whose pictures are looked at."""

    def __init__(self, root: Path, most_pictures: int = 100) -> None:
        self.mics, self.out = root / "mics", root / "drpwatch" / "s1"
        self.mics.mkdir()
        self.journal = Journal(root / "journal.db")
        config = Config(
            watch=Watch(poll_interval_s=0.1, settle_s=0.1), page=Page(most_pictures=most_pictures)
        )
        self.metrics = Metrics()
        publisher = Publisher(self.metrics)
        self.pipeline = Pipeline(self.journal, config, FakePickers(), publisher)
        self.control = Sessions(self.journal, self.pipeline, publisher, Clock(), Settings(config, None))
        self.pipeline.start()
        self.control.start_session(SessionRequest("s1", self.mics, PickParams(150.0)))

    def write(self, count: int) -> None:
        for number in range(count):
            beside = self.mics / f".m{number}"
            write_image(beside, seed=number)
            beside.rename(self.mics / f"m{number}.mrc")

    def picked(self, count: int) -> None:
        eventually(lambda: self.control.session("s1").micrographs.picked == count, 10, f"{count} picked")

    def problems(self) -> float:
        return self.metrics.errors.labels(kind="picture")._value.get()


@pytest.fixture
def atelier(tmp_path: Path) -> Iterator[Callable[..., Atelier]]:
    made: list[Atelier] = []

    def make(**values: int) -> Atelier:
        made.append(Atelier(tmp_path, **values))
        return made[-1]

    yield make
    for one in made:
        assert one.pipeline.stop(10)
        one.journal.close()


def test_each_micrograph_has_its_pictures(atelier: Callable[..., Atelier]) -> None:
    one = atelier()
    one.write(3)
    one.picked(3)
    album = Thumbnails(one.out)
    eventually(lambda: all(album.has(f"m{n}.mrc") for n in range(3)), 5, "three pictures")
    large = grey_values(album.read("m1.mrc", View.LARGE) or b"")
    assert large.shape == (48, 64)
    assert abs(large.astype(float) - image(1)).mean() < 8
    stages = one.control.session("s1").newest[0].seconds
    assert "draw" in stages
    assert one.problems() == 0


def test_a_disk_that_hangs_holds_up_nothing(atelier: Callable[..., Atelier], monkeypatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(Thumbnails, "write", lambda *_: release.wait(300))
    one = atelier()
    one.write(12)
    one.picked(12)
    assert one.pipeline.stop(PATIENCE * 5)
    release.set()


def test_a_disk_that_refuses_is_told(atelier: Callable[..., Atelier]) -> None:
    one = atelier()
    one.out.mkdir(parents=True, exist_ok=True)
    (one.out / FOLDER).write_text("in the way")
    one.write(3)
    one.picked(3)
    eventually(lambda: one.problems() >= 1, 5, "a problem is counted")
    (one.out / FOLDER).unlink()
    one.write(1)
    write_image(one.mics / "last.mrc", seed=9)
    eventually(lambda: Thumbnails(one.out).has("last.mrc"), 10, "pictures are written again")


@pytest.mark.parametrize("error", [ValueError("as the test wants it"), DeviceNotReady("no memory")])
def test_a_picture_that_cannot_be_drawn_fails_no_micrograph(
    atelier: Callable[..., Atelier], monkeypatch, error: Exception
) -> None:
    def draw(*_: object) -> None:
        raise error

    monkeypatch.setattr(FakePicker, "draw", draw)
    one = atelier()
    one.write(2)
    one.picked(2)
    assert one.pipeline.not_ready is None
    assert not (one.out / FOLDER).exists()


def test_a_broken_device_is_not_hidden_by_a_picture(atelier: Callable[..., Atelier], monkeypatch) -> None:
    def draw(*_: object) -> None:
        raise DeviceFault("the fake device failed")

    monkeypatch.setattr(FakePicker, "draw", draw)
    one = atelier()
    one.write(1)
    eventually(lambda: isinstance(one.pipeline.failure, DeviceFault), 10, "the daemon ends")
    assert one.control.session("s1").micrographs.picked == 0


def test_no_picture_is_drawn_where_none_is_wanted(atelier: Callable[..., Atelier]) -> None:
    one = atelier(most_pictures=0)
    one.write(1)
    one.picked(1)
    assert "draw" not in one.control.session("s1").newest[0].seconds
    assert not (one.out / FOLDER).exists()
