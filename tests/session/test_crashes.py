"""Nothing is lost or doubled, wherever the process dies or the disk refuses."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from drpwatch.errors import OutputError
from tests.session.bench import Bench
from tests.session.conftest import MEMORY
from tests.session.faults import MODES, Died, faulty_disk
from tests.session.scenes import NAMES, first, following, rejected, rewritten, rewritten_as_blank


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scene", [first, following, rewritten, rewritten_as_blank, rejected])
def test_every_point_of_failure(scene, mode: str, scratch: Path) -> None:
    at, struck = 0, True
    while struck:
        root = scratch / str(at)
        root.mkdir()
        bench = Bench(root)
        with faulty_disk(bench.faults):
            scene(bench)
            ready = bench.take()
            assert ready is not None
            struck = bench.record_with_fault(ready, at, mode)
            bench.drain()
            bench.check_complete()
            bench.check_rebuild()
            bench.close()
        at += 1
    assert at > 10  # the fault went through all calls of one record


@pytest.mark.parametrize("mode", MODES)
def test_every_point_of_failure_of_a_rebuild(mode: str, scratch: Path) -> None:
    at, struck = 0, True
    while struck:
        root = scratch / str(at)
        root.mkdir()
        bench = Bench(root)
        with faulty_disk(bench.faults):
            rewritten(bench)
            bench.drain()
            before = bench.contents()
            bench.faults.arm(at, mode)
            try:
                bench.outputs.rebuild()
            except (Died, OutputError):
                pass
            struck = bench.faults.struck
            bench.reopen()
            assert bench.contents() == before
            bench.check_complete()
            bench.close()
        at += 1


@settings(max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
class Storm(RuleBasedStateMachine):
    """Files come, change and turn to junk while the process dies and the disk refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.scratch = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        self.bench = Bench(Path(self.scratch.name))
        self.disk = faulty_disk(self.bench.faults)
        self.disk.__enter__()
        self.version = 0

    @rule(name=st.sampled_from(NAMES))
    def appear(self, name: str) -> None:
        self.version += 1
        self.bench.appear(name, self.version)

    @rule(name=st.sampled_from(NAMES))
    def reject(self, name: str) -> None:
        self.bench.reject(name)

    @rule(at=st.integers(0, 40), mode=st.sampled_from(MODES))
    def record(self, at: int, mode: str) -> None:
        ready = self.bench.take()
        if ready is None:
            return
        self.bench.record_with_fault(ready, at, mode)

    @rule(name=st.sampled_from(NAMES))
    def change_while_picked(self, name: str) -> None:
        self.appear(name)
        ready = self.bench.take()
        assert ready is not None
        self.appear(ready.name)
        assert not self.bench.record(ready)

    @rule(diameter=st.sampled_from([150.0, 160.0]), threshold=st.sampled_from([None, 0.3, 0.8]))
    def set(self, diameter: float, threshold: float | None) -> None:
        self.bench.set(diameter_angstrom=diameter, threshold=threshold)

    @rule(
        at=st.integers(0, 40),
        mode=st.sampled_from(MODES),
        threshold=st.sampled_from([0.0, 0.4, 0.9, 1.0]),
        taken=st.booleans(),
    )
    def rethreshold(self, at: int, mode: str, threshold: float, taken: bool) -> None:
        ready = self.bench.take() if taken else None
        self.bench.rethreshold(threshold)  # the journal alone; the files follow, in spite of faults
        if ready is not None:
            assert self.bench.record(ready)  # picked with the threshold before
        self.bench.faults.arm(at, mode)
        try:
            self.bench.outputs.complete()
        except Died:
            self.bench.reopen()
        except OutputError:
            pass
        self.bench.faults.disarm()

    @rule(names=st.sets(st.sampled_from(NAMES)))
    def repick(self, names: set[str]) -> None:
        self.bench.repick(names)

    @rule()
    def restart(self) -> None:
        self.bench.reopen()

    @rule()
    def finish(self) -> None:
        self.bench.drain()
        self.bench.check_complete()
        self.bench.check_rebuild()

    @invariant()
    def readable(self) -> None:
        self.bench.check_readable()

    def teardown(self) -> None:
        try:
            self.bench.reopen()
            self.finish()
        finally:
            self.bench.close()
            self.disk.__exit__(None, None, None)
            self.scratch.cleanup()


TestStorm = Storm.TestCase
