"""The mark of what is on the device, last words, and the time limit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from drpwatch.errors import CanaryMoved, DeviceFault, PickingHangs
from drpwatch.micrograph import Fingerprint, PickParams, ReadyMicrograph
from drpwatch.service.flight import Flight, TimeLimit
from drpwatch.session.records import Crash, CrashKind, Suspect
from tests.session.bench import HEADER
from tests.support import eventually

READY = ReadyMicrograph(
    17, "s1", "grid 1/ä b.mrc", 1, Path("/in/x"), HEADER, Fingerprint(1, 2, 3), 1, PickParams(150.0)
)
NEVER = threading.Event()
KILLED = "it was killed, or there was no memory left"


def crash(directory: Path) -> Crash | None:
    flight = Flight(directory)
    last = flight.last_crash()
    flight.close()
    return None if last is None else last[0]


def test_a_process_that_dies_leaves_its_mark_once(tmp_path: Path) -> None:
    flight = Flight(tmp_path)
    (seat,) = flight.seats
    assert flight.last_crash() is None
    seat.take(replace(READY, name="a longer name than the next.mrc"), NEVER)
    seat.take(READY, NEVER)
    assert seat.aboard is READY
    flight.close()
    assert crash(tmp_path) == Crash(CrashKind.KILLED, KILLED, (Suspect(17, "grid 1/ä b.mrc"),))
    assert crash(tmp_path) is None


def test_what_has_landed_is_not_marked(tmp_path: Path) -> None:
    flight = Flight(tmp_path)
    flight.seats[0].take(READY, NEVER)
    flight.seats[0].leave()
    assert flight.seats[0].aboard is None
    flight.close()
    assert crash(tmp_path) is None


def test_names_that_are_no_text_are_kept(tmp_path: Path) -> None:
    name = os.fsdecode(b"b\xff\n.mrc")
    flight = Flight(tmp_path)
    flight.seats[0].take(replace(READY, name=name), NEVER)
    flight.close()
    assert crash(tmp_path) == Crash(CrashKind.KILLED, KILLED, (Suspect(17, name),))


@pytest.mark.parametrize("fault", [DeviceFault, CanaryMoved, PickingHangs])
def test_last_words_tell_the_fault(tmp_path: Path, fault: type[DeviceFault]) -> None:
    flight = Flight(tmp_path)
    flight.seats[0].take(READY, NEVER)
    flight.seats[0].fail(fault("CUDA error: gone: really"))
    flight.close()
    assert crash(tmp_path) == Crash(
        CrashKind(fault.kind), "CUDA error: gone: really", (Suspect(17, READY.name),)
    )


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


# ---- several devices ----------------------------------------------------------------------------


def another(number: int) -> ReadyMicrograph:
    return replace(READY, micrograph_id=number, name=f"{number}.mrc")


def begun(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_all_that_was_on_devices_is_suspected(tmp_path: Path) -> None:
    flight = Flight(tmp_path, devices=3)
    for number, seat in enumerate(flight.seats):
        assert seat.take(another(number), NEVER)
    flight.seats[1].leave()
    flight.close()
    found = crash(tmp_path)  # of a daemon with one device by now
    assert found == Crash(CrashKind.KILLED, KILLED, (Suspect(0, "0.mrc"), Suspect(2, "2.mrc")))
    assert crash(tmp_path) is None


def test_a_fault_is_that_of_its_own_device(tmp_path: Path) -> None:
    flight = Flight(tmp_path, devices=2)
    first, second = flight.seats
    first.take(another(1), NEVER)
    second.take(another(2), NEVER)
    second.fail(DeviceFault("the second one"))
    first.fail(DeviceFault("the first one, for the other is gone"))
    first.leave()
    assert not first.take(another(3), NEVER)
    second.leave()
    flight.end()
    flight.close()
    assert crash(tmp_path) == Crash(CrashKind.DEVICE, "the second one", (Suspect(2, "2.mrc"),))


def test_a_suspect_is_on_a_device_alone(tmp_path: Path) -> None:
    flight = Flight(tmp_path, devices=2)
    flight.suspects = frozenset({7, 8})
    first, second = flight.seats
    first.take(another(1), NEVER)
    suspect = begun(lambda: second.take(another(7), NEVER))
    eventually(lambda: second.is_alone, 5, "it has announced itself")
    assert second.aboard is None
    first.leave()
    suspect.join(5)
    assert second.aboard == another(7)
    other = begun(lambda: first.take(another(8), NEVER))
    other.join(0.5)
    assert other.is_alive()
    second.leave()
    other.join(5)
    assert first.aboard == another(8)
    assert second.aboard is None


def test_who_waits_for_a_suspect_beats_and_gives_up(tmp_path: Path) -> None:
    flight = Flight(tmp_path, devices=2)
    flight.suspects = frozenset({7})
    first, second = flight.seats
    first.take(another(1), NEVER)
    give_up, beats = threading.Event(), []

    def beat() -> None:
        beats.append(1)
        if len(beats) == 3:
            give_up.set()

    assert not second.take(another(7), give_up, beat)
    first.leave()
    assert first.take(another(2), NEVER)  # nobody waits for it to be alone any more
    assert len(beats) == 3


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
