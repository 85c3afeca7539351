"""The settle rule: examples, and against a model that remembers every look."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from drpwatch.errors import IncompleteMicrograph, MicrographError, UnusableMicrograph
from drpwatch.micrograph import Fingerprint, ImageHeader
from drpwatch.watch.settle import Probe, Ready, Rejected, Settler, Waiting

HEADER = ImageHeader((8, 12), np.dtype("<f4"), 1024, (1.5, 1.5))
SETTLE_S, INCOMPLETE_S = 5.0, 60.0


def state(size_bytes: int = 1408, mtime_ns: int = 1, inode: int = 1) -> Fingerprint:
    return Fingerprint(size_bytes, mtime_ns, inode)


def whole(fingerprint: Fingerprint | None = None) -> Probe:
    return Probe(fingerprint or state(), HEADER, None)


def short(size_bytes: int = 1100) -> Probe:
    return Probe(state(size_bytes), HEADER, IncompleteMicrograph(f"have {size_bytes} of 1408 bytes"))


def junk(mtime_ns: int = 1) -> Probe:
    return Probe(state(mtime_ns=mtime_ns), None, UnusableMicrograph("not an MRC file"))


def closed() -> Probe:
    return Probe(None, None, IncompleteMicrograph("cannot be opened now: Permission denied"))


@pytest.fixture
def settler() -> Settler:
    return Settler(SETTLE_S, INCOMPLETE_S)


def test_ready_after_two_equal_looks_that_far_apart(settler: Settler) -> None:
    reason = "settling: whole, and must stay unchanged for 5 s"
    assert settler.observe("a", whole(), 100) == Waiting("a", reason, 100)
    assert settler.observe("a", whole(), 104.9) == Waiting("a", reason, 100)
    assert settler.observe("a", whole(), 105) == Ready("a", HEADER, state())
    assert "a" not in settler


@pytest.mark.parametrize("changed", [state(1409), state(mtime_ns=2), state(inode=2)])
def test_any_change_starts_the_wait_again(settler: Settler, changed: Fingerprint) -> None:
    settler.observe("a", whole(), 0)
    assert isinstance(settler.observe("a", whole(changed), 5), Waiting)
    assert isinstance(settler.observe("a", whole(changed), 9.9), Waiting)
    assert isinstance(settler.observe("a", whole(changed), 10), Ready)


def test_one_look_is_never_enough() -> None:
    settler = Settler(0, 0)
    for name, probe in [("whole", whole()), ("short", short()), ("junk", junk())]:
        assert isinstance(settler.observe(name, probe, 7), Waiting)
    assert isinstance(settler.observe("whole", whole(), 7), Ready)
    assert isinstance(settler.observe("short", short(), 7), Rejected)
    assert isinstance(settler.observe("junk", junk(), 7), Rejected)


def test_growing_file_waits_for_ever_and_tells_its_size(settler: Settler) -> None:
    for look in range(200):
        verdict = settler.observe("a", short(1000 + look), look * 30.0)
        assert verdict == Waiting("a", f"have {1000 + look} of 1408 bytes", 0)


def test_truncated_file_is_rejected_in_the_end_and_can_come_back(settler: Settler) -> None:
    settler.observe("a", short(1000), 0)
    settler.observe("a", short(1100), 30)
    assert isinstance(settler.observe("a", short(1100), 89), Waiting)
    assert settler.observe("a", short(1100), 91) == Rejected(
        "a", "truncated: have 1100 of 1408 bytes, unchanged for 61 s", state(1100)
    )
    assert isinstance(settler.observe("a", whole(), 100), Waiting)
    assert isinstance(settler.observe("a", whole(), 105), Ready)


def test_junk_counts_only_once_it_has_settled(settler: Settler) -> None:
    assert settler.observe("a", junk(), 0) == Waiting("a", "settling: not an MRC file", 0)
    assert isinstance(settler.observe("a", junk(mtime_ns=2), 5), Waiting)
    assert settler.observe("a", junk(mtime_ns=2), 10) == Rejected("a", "not an MRC file", state(mtime_ns=2))


def test_file_that_cannot_be_opened_waits_without_end(settler: Settler) -> None:
    for now_s in (0, 10, 10_000):
        assert settler.observe("a", closed(), now_s) == Waiting("a", str(closed().problem), 0)
    assert settler.due_s("a") is None
    settler.observe("a", whole(), 10_001)
    settler.observe("a", closed(), 10_005)
    assert isinstance(settler.observe("a", whole(), 10_010), Waiting)  # what happened in between is not known


def test_due_times(settler: Settler) -> None:
    assert settler.next_due_s() is None
    settler.observe("a", whole(), 10)
    settler.observe("b", short(), 3)
    settler.observe("c", closed(), 0)
    assert (settler.due_s("a"), settler.due_s("b"), settler.due_s("c"), settler.due_s("d")) == (
        15,
        63,
        None,
        None,
    )
    assert settler.next_due_s() == 15
    settler.forget("a")
    assert settler.next_due_s() == 63
    assert settler.names == ("b", "c")


def test_probe_without_problem_needs_header_and_fingerprint() -> None:
    with pytest.raises(ValueError, match="fingerprint and a header"):
        Probe(state(), None, None)


class SettleMachine(RuleBasedStateMachine):
    """A model that keeps all looks of each name and decides by reading them backwards."""

    names = st.sampled_from("ab")
    probes = st.one_of(
        st.builds(lambda mtime_ns: whole(state(mtime_ns=mtime_ns)), st.integers(1, 2)),
        st.builds(short, st.integers(1100, 1101)),
        st.builds(junk, st.integers(1, 2)),
        st.just(closed()),
    )

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.settler = Settler(SETTLE_S, INCOMPLETE_S)
        self.looks: dict[str, list[tuple[float, Probe]]] = {}

    @rule(passed_s=st.sampled_from([0.5, 2.5, 4.5, 5.0, 30.0, 59.5, 60.0, 4000.0]))
    def time_passes(self, passed_s: float) -> None:
        self.now_s += passed_s

    @rule(name=names, probe=probes)
    def look(self, name: str, probe: Probe) -> None:
        looks = self.looks.setdefault(name, [])
        looks.append((self.now_s, probe))
        verdict = self.settler.observe(name, probe, self.now_s)
        assert type(verdict) is self._expected(looks)
        if isinstance(verdict, Waiting):
            assert verdict.since_s == looks[0][0]
            assert verdict.reason
        else:
            assert verdict.fingerprint == probe.fingerprint
            del self.looks[name]

    @rule(name=names)
    def forget(self, name: str) -> None:
        self.settler.forget(name)
        self.looks.pop(name, None)

    @staticmethod
    def _expected(looks: list[tuple[float, Probe]]) -> type:
        now_s, last = looks[-1]
        equal = []
        for seen_s, probe in reversed(looks):
            if probe.fingerprint is None or probe.fingerprint != last.fingerprint:
                break
            equal.append(seen_s)
        steady_s = now_s - equal[-1] if len(equal) > 1 else -1.0
        problem: MicrographError | None = last.problem
        if problem is None:
            return Ready if steady_s >= SETTLE_S else Waiting
        limit_s = INCOMPLETE_S if isinstance(problem, IncompleteMicrograph) else SETTLE_S
        return Rejected if steady_s >= limit_s else Waiting

    @invariant()
    def remembers_only_what_waits(self) -> None:
        assert set(self.settler.names) == set(self.looks)

    @invariant()
    def due_names_can_be_decided(self) -> None:
        for name, looks in self.looks.items():
            due_s = self.settler.due_s(name)
            assert (due_s is None) == (looks[-1][1].fingerprint is None)
            if due_s is not None:
                assert due_s > looks[-1][0] or due_s >= looks[-1][0] + min(SETTLE_S, INCOMPLETE_S)


SettleMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestSettle = SettleMachine.TestCase
