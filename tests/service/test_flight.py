"""The mark of what is on the device, last words, and the time limit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from drpwatch.errors import CanaryMoved, DeviceFault, PickingHangs
from drpwatch.micrograph import Fingerprint, PickParams, ReadyMicrograph
from drpwatch.service.flight import Flight, TimeLimit
from drpwatch.session.records import Crash, CrashKind
from tests.session.bench import HEADER

READY = ReadyMicrograph(
    17, "s1", "grid 1/ä b.mrc", 1, Path("/in/x"), HEADER, Fingerprint(1, 2, 3), 1, PickParams(150.0)
)
KILLED = "it was killed, or there was no memory left"


def crash(directory: Path) -> Crash | None:
    flight = Flight(directory)
    last = flight.last_crash()
    flight.close()
    return None if last is None else last[0]


def test_a_process_that_dies_leaves_its_mark_once(tmp_path: Path) -> None:
    flight = Flight(tmp_path)
    assert flight.last_crash() is None
    flight.begin(replace(READY, name="a longer name than the next.mrc"))
    flight.begin(READY)
    assert flight.aboard is READY
    flight.close()
    assert crash(tmp_path) == Crash(CrashKind.KILLED, KILLED, 17, "grid 1/ä b.mrc")
    assert crash(tmp_path) is None


def test_what_has_landed_is_not_marked(tmp_path: Path) -> None:
    flight = Flight(tmp_path)
    flight.begin(READY)
    flight.end()
    assert flight.aboard is None
    flight.close()
    assert crash(tmp_path) is None


def test_names_that_are_no_text_are_kept(tmp_path: Path) -> None:
    name = os.fsdecode(b"b\xff\n.mrc")
    flight = Flight(tmp_path)
    flight.begin(replace(READY, name=name))
    flight.close()
    assert crash(tmp_path) == Crash(CrashKind.KILLED, KILLED, 17, name)


@pytest.mark.parametrize("fault", [DeviceFault, CanaryMoved, PickingHangs])
def test_last_words_tell_the_fault(tmp_path: Path, fault: type[DeviceFault]) -> None:
    flight = Flight(tmp_path)
    flight.begin(READY)
    flight.fail(fault("CUDA error: gone: really"))
    flight.close()
    assert crash(tmp_path) == Crash(CrashKind(fault.kind), "CUDA error: gone: really", 17, READY.name)


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGSEGV, "segmentation fault"), (signal.SIGABRT, "aborted")]
)
def test_a_signal_tells_itself(tmp_path: Path, number: signal.Signals, reason: str) -> None:
    program = (
        "import os, sys; from pathlib import Path; from drpwatch.service.flight import Flight;"
        "flight = Flight(Path(sys.argv[1])); flight.listen(); os.kill(os.getpid(), int(sys.argv[2]))"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path), str(int(number))], check=False)
    assert ended.returncode == -number
    assert crash(tmp_path) == Crash(CrashKind.SIGNAL, reason)


def test_kinds_are_those_of_the_journal() -> None:
    kinds = {fault.kind for fault in (DeviceFault, CanaryMoved, PickingHangs)}
    assert kinds == set(CrashKind) - {CrashKind.SIGNAL, CrashKind.KILLED}


def test_a_limit_counts_for_one_thing_at_a_time() -> None:
    limit = TimeLimit(10.0)
    one, other = object(), object()
    assert [limit.is_over(one, now_s) for now_s in (0, 4, 8, 12)] == [False, False, False, True]
    assert [limit.is_over(other, now_s) for now_s in (14, 18, 22)] == [False, False, False]
    assert [limit.is_over(None, now_s) for now_s in (24, 28, 60)] == [False, False, False]


def test_time_in_which_the_process_was_stopped_hardly_counts() -> None:
    limit = TimeLimit(10.0)
    one = object()
    assert [limit.is_over(one, now_s) for now_s in (0, 2, 1000, 1002)] == [False, False, False, False]
    assert limit.is_over(one, 1004.0)
