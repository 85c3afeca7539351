"""The stages together, in this process, with fake pickers and faults where they can happen."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from drpwatch.config import Config, Pick, Watch
from drpwatch.formats import star
from drpwatch.micrograph import PickParams
from drpwatch.service.clock import Clock
from drpwatch.service.control import SessionRequest
from drpwatch.service.metrics import Metrics
from drpwatch.service.pipeline import Pipeline
from drpwatch.service.publish import Publisher
from drpwatch.service.sessions import Sessions
from drpwatch.service.settings import Settings
from tests.daemon.fake_picker import FakePickers
from tests.daemon.rig import write_image
from tests.session.faults import Faults, FaultyJournal
from tests.support import eventually


class Plant:
    """A pipeline and its control, on one session."""

    def __init__(self, root: Path, pickers: FakePickers, **pick: Any) -> None:
        self.root, self.pickers = root, pickers
        self.mics = root / "mics"
        self.mics.mkdir()
        self.faults = Faults()
        self.journal = FaultyJournal(root / "journal.db", self.faults)
        config = Config(watch=Watch(poll_interval_s=0.1, settle_s=0.1), pick=Pick(**pick))
        self.ahead_s = 0.0  # of the wall clock
        clock = Clock(wall=lambda: time.time() + self.ahead_s)
        publisher = Publisher(Metrics(config.pick.device_labels), clock)
        self.pipeline = Pipeline(self.journal, config, pickers, publisher, clock)
        self.control = Sessions(self.journal, self.pipeline, publisher, clock, Settings(config, None))

    def start(self, **params: object) -> None:
        self.pipeline.start()
        given = {"diameter_angstrom": 150.0, **params}
        self.control.start_session(SessionRequest("s1", self.mics, PickParams(**given)))

    def write(self, name: str, seed: int = 1) -> None:
        write_image(self.mics / f".{name}", seed)
        (self.mics / f".{name}").rename(self.mics / name)

    def recorded(self, picked: int, failed: int = 0) -> None:
        """Wait until so many are, and say how the session stands if they never are."""
        try:
            eventually(lambda: self._counts() == (picked, failed), 10, f"{picked} picked and {failed} failed")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.control.session('s1')}") from None

    def _counts(self) -> tuple[int, int]:
        counts = self.control.session("s1").micrographs
        return counts.picked, counts.failed

    def rows(self) -> list[str]:
        path = self.root / "drpwatch/s1/particles.star"
        return sorted(set(star.read(path)["particles"].column("rlnMicrographName")))
