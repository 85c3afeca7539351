"""A device that fails, hangs, lies or kills: the real process, a device that does so on command."""

from __future__ import annotations

import json
import signal
import sqlite3
from contextlib import suppress
from typing import Any

import pytest
import torch

from drpwatch.errors import DaemonUnreachable
from tests.daemon.rig import REAL, Rig
from tests.support import eventually

GOOD = {"a.mrc": 1, "c.mrc": 3}
BAD_SEED = 2


def start(rig: Rig, *, wait: bool = True, **device: Any) -> None:
    """Run the daemon; do not wait for its answer where it may have ended before."""
    rig.start("--device", json.dumps(device), wait=wait)


def configure(rig: Rig, **pick: float | str) -> None:
    lines = [f"{key} = {json.dumps(value)}" for key, value in pick.items()]  # [pick] is the last section
    rig.config.write_text(rig.config.read_text() + "\n".join(lines) + "\n")


def begin(rig: Rig, **device: Any) -> None:
    """A session with a bad micrograph between two good ones."""
    start(rig, **device)
    rig.start_session()
    for name, seed in {**GOOD, "b.mrc": BAD_SEED}.items():
        rig.write(name, seed)


def crashes(rig: Rig, kind: str) -> float | None:
    return rig.metric(f'drpwatch_crashes_total{{kind="{kind}"}}')


def quarantined(rig: Rig, why: str) -> None:
    """The good ones are picked, the bad one is not, and people are told."""
    rig.picked(2)
    rig.check(GOOD)
    (failed,) = eventually(lambda: rig.control.micrographs("s1", "failed"), 10, "the bad one has failed")
    assert failed["name"] == "b.mrc"
    assert failed["reason"] == (
        f"quarantined: drpwatch ended twice while it picked this file ({why});"
        " 'drpwatch session retry s1' tries it again"
    )
    page = eventually(
        lambda: (text := rig.get("/metrics")[1]) and 'quarantined{session="s1"} 1.0' in text and text,
        10,
        "a metric tells it",
    )
    assert 'drpwatch_micrographs_total{outcome="failed",session="s1"} 1.0' in page


def test_a_micrograph_that_kills_the_process_twice_is_quarantined(rig: Rig) -> None:
    begin(rig, segfaults_on=[BAD_SEED])
    rig.ends(-signal.SIGSEGV)
    start(rig, wait=False, segfaults_on=[BAD_SEED])
    rig.ends(-signal.SIGSEGV)
    start(rig, segfaults_on=[BAD_SEED])
    quarantined(rig, "segmentation fault")
    assert crashes(rig, "signal") == 2
    last = rig.events("previous_crash")[-1]
    assert (last["kind"], last["micrographs"]) == ("signal", ["b.mrc"])
    assert "fake_device.py" in last["last_words"]  # where it was
    with suppress(DaemonUnreachable):  # it may be gone before it answers
        assert rig.control.ask("s1", "repick", {"which": "failed"})["count"] == 1
    rig.ends(-signal.SIGSEGV)
    start(rig)  # it is mended
    rig.picked(3)
    rig.check({**GOOD, "b.mrc": BAD_SEED})
    eventually(lambda: 'quarantined{session="s1"} 0.0' in rig.get("/metrics")[1], 10, "out again")
    assert rig.stop() == 0


def test_a_micrograph_on_which_the_device_hangs_is_quarantined(rig: Rig) -> None:
    configure(rig, time_limit_s=1.0)
    begin(rig, hangs_on=[BAD_SEED])
    rig.ends(70)
    start(rig, wait=False, hangs_on=[BAD_SEED])
    rig.ends(70)
    start(rig, hangs_on=[BAD_SEED])
    quarantined(rig, "s1: b.mrc was on the device for more than 1 s (pick.time_limit_s)")
    assert crashes(rig, "time_limit") == 2


def test_after_a_sticky_error_nothing_is_written_and_the_device_not_used(rig: Rig) -> None:
    begin(rig, faults_on=[BAD_SEED])
    rig.ends(70)  # 99 if the device was used again
    (stopped,) = rig.events("stopped_at_once")
    assert stopped["reason"] == "CUDA error: an illegal memory access was encountered"
    states = journal(rig, "SELECT name, state FROM micrograph")
    assert ("b.mrc", "ready") in states
    start(rig, wait=False, faults_on=[BAD_SEED])
    rig.ends(70)
    start(rig, faults_on=[BAD_SEED])
    quarantined(rig, "CUDA error: an illegal memory access was encountered")
    assert crashes(rig, "device") == 2


def journal(rig: Rig, sql: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(rig.root / "state/journal.db")
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def test_a_device_that_computes_something_else_is_not_used_any_more(rig: Rig) -> None:
    configure(rig, canary_every_s=0.3)
    begin(rig, wrong_from=4)
    rig.ends(70)
    (stopped,) = rig.events("stopped_at_once")
    assert stopped["reason"].startswith("the picks of the canary micrograph moved: ")
    start(rig)
    assert crashes(rig, "canary") == 1
    rig.picked(3)
    rig.check({**GOOD, "b.mrc": BAD_SEED})
    same = 'drpwatch_canary_checks_total{device="auto",result="same"}'
    eventually(lambda: (rig.metric(same) or 0) >= 3, 10, "it is checked")
    assert rig.stop() == 0


def test_an_end_that_was_asked_for_and_a_kill_are_no_fault_of_a_micrograph(rig: Rig) -> None:
    rig.start("--pick-s", "600")
    rig.start_session()
    rig.write("a.mrc", 1)
    eventually(lambda: rig.on_device("a.mrc"), 10, "it is on the device")
    rig.kill()
    rig.start("--pick-s", "600")
    (crash,) = rig.events("previous_crash")
    assert (crash["kind"], crash["micrographs"]) == ("killed", ["a.mrc"])
    eventually(lambda: rig.on_device("a.mrc"), 10, "it is tried again")
    rig.config.write_text(rig.config.read_text().replace("stop_timeout_s = 10.0", "stop_timeout_s = 0.5"))
    rig.kill()
    rig.start("--pick-s", "600")
    eventually(lambda: rig.on_device("a.mrc"), 10, "it is tried again")
    assert rig.stop() == 0
    rig.start()
    rig.picked(1)
    assert len(rig.events("previous_crash")) == 2  # none for the stop
    assert crashes(rig, "killed") == 2
    assert rig.stop() == 0


def test_the_device_is_released_when_nothing_is_to_be_picked(rig: Rig) -> None:
    configure(rig, release_after_s=0.5)
    rig.start()
    rig.start_session()
    eventually(lambda: rig.events("device_released"), 10, "released")
    page = rig.get("/metrics")[1]
    assert 'drpwatch_device_released{device="auto"} 1.0' in page
    assert "drpwatch_model_info{" not in page
    assert rig.get("/readyz")[0] == 200
    for number in (1, 2):
        rig.write(f"{number}.mrc", number)
        rig.picked(number)
        eventually(lambda n=number: len(rig.events("device_released")) == n + 1, 10, "released again")
    assert len(rig.events("model_loaded")) == 3
    rig.check({"1.mrc": 1, "2.mrc": 2})


def test_micrographs_queue_until_the_device_is_there(rig: Rig) -> None:
    device = rig.root / "device"
    rig.start("--there-with", str(device))
    rig.start_session()
    for name, seed in GOOD.items():
        rig.write(name, seed)
    eventually(lambda: rig.counts()["ready"] == 2, 10, "queued")
    status, text = rig.get("/readyz")
    assert (status, "the fake device is not there yet" in text) == (503, True)
    assert rig.metric('drpwatch_device_ready{device="auto"}') == 0.0
    assert rig.get("/livez")[0] == 200
    assert not rig.events("ready")
    device.touch()
    rig.picked(2)
    rig.check(GOOD)
    assert rig.get("/readyz")[0] == 200
    eventually(lambda: rig.events("ready"), 5, "ready is told")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_asked_for_is_never_replaced(rig: Rig) -> None:
    rig.program = REAL
    configure(rig, device="cuda")
    rig.start()
    rig.start_session()
    rig.write("a.mrc", 1)
    eventually(lambda: rig.counts()["ready"] == 1, 20, "it queues")
    eventually(lambda: "cuda" in rig.get("/readyz")[1], 40, "why it is not ready")
    assert rig.get("/livez")[0] == 200
    assert rig.counts()["picked"] == 0
    assert rig.stop() == 0
