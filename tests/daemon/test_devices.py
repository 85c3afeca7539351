"""Two devices in the real process: kills, crashes, faults and hangs cost time, and no innocent micrograph."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drpwatch.formats import star
from tests.daemon.rig import Rig
from tests.support import eventually

BAD_SEED = 666
QUARANTINED = "quarantined: drpwatch ended twice while it picked this file"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path, pick={"devices": ["cpu", "cpu"]})
    yield made
    made.close()


def start(
    rig: Rig, pick_s: float = 0.2, *, other: dict[str, Any] | None = None, wait: bool = True, **both: Any
) -> None:
    """Run it with devices that go wrong in the same way, or of which the second does in its own."""
    device = both if other is None else {}
    given = ("--device", json.dumps(device), "--other", json.dumps(both if other is None else other))
    rig.start("--pick-s", str(pick_s), *given, wait=wait)


def names_on_devices(rig: Rig) -> set[str]:
    marks = (rig.root / "state").glob("on-device*")
    return {text.split(" ", 1)[1] for mark in marks if (text := mark.read_bytes().split(b"\0")[0].decode())}


def crashes(rig: Rig) -> int:
    (count,) = (
        sqlite3.connect(rig.root / "state/journal.db")
        .execute("SELECT count(DISTINCT number) FROM crash")
        .fetchone()
    )
    return int(count)


def test_kill_9_at_random_moments(rig: Rig) -> None:
    draw = random.Random(2027)
    start(rig, 0.1)
    rig.start_session()
    seeds: dict[str, int] = {}
    for kill in range(12):
        for n in range(4):
            seeds[f"grid {n % 2}/mic_{kill}_{n}.mrc"] = seed = len(seeds)
            rig.write(f"grid {n % 2}/mic_{kill}_{n}.mrc", seed)
        time.sleep(draw.uniform(0.05, 0.7))
        rig.kill()
        start(rig, 0.1)
    rig.picked(len(seeds), within_s=40)
    rig.check(seeds)
    assert rig.counts() == {"waiting": 0, "ready": 0, "picked": len(seeds), "failed": 0}
    used = {event["device"] for event in rig.events("micrograph_picked")}
    assert used == {"cpu", "cpu#2"}
    assert rig.stop() == 0
    written = star.read(rig.out_dir() / "particles.star")["particles"].column("rlnMicrographName")
    journal = sqlite3.connect(rig.root / "state/journal.db")
    rows = dict(journal.execute("SELECT name, n_picks FROM micrograph WHERE published = 1"))
    assert rows == {name: written.count(name) for name in seeds}


@pytest.mark.parametrize(
    ("fault", "code"), [("segfaults_on", -signal.SIGSEGV), ("faults_on", 70), ("hangs_on", 70)]
)
def test_of_two_in_flight_the_one_that_crashes_is_quarantined(rig: Rig, fault: str, code: int) -> None:
    """Whatever is beside it, after two crashes, and nothing else ever."""
    seeds = {f"good_{n}.mrc": n for n in range(8)}
    if fault == "hangs_on":
        rig.config.write_text(rig.config.read_text() + "time_limit_s = 3.0\n")  # below [pick]
    start(rig, **{fault: [BAD_SEED]})
    rig.start_session()
    rig.control.change("s1", "pause")
    rig.write("bad.mrc", BAD_SEED)
    for name, seed in seeds.items():
        rig.write(name, seed)
    eventually(lambda: rig.counts()["ready"] == 9, 10, "all wait")
    rig.control.change("s1", "resume")
    for last in (False, True):
        rig.ends(code)
        start(rig, wait=last, **{fault: [BAD_SEED]})
    rig.picked(8)
    rig.check(seeds)
    (failed,) = rig.control.micrographs("s1", "failed")
    assert (failed["name"], failed["reason"].partition(" (")[0]) == ("bad.mrc", QUARANTINED)
    assert crashes(rig) == 2
    first, second = rig.events("previous_crash")
    assert "bad.mrc" in first["micrographs"]
    assert len(first["micrographs"]) <= (2 if code < 0 else 1)  # a device says itself that it failed
    assert second["micrographs"] == ["bad.mrc"]
    assert rig.stop() == 0


def test_what_was_on_devices_when_it_was_killed_is_picked_alone(rig: Rig) -> None:
    start(rig, 60)
    rig.start_session()
    seeds = {f"{n}.mrc": n for n in range(4)}
    for name, seed in seeds.items():
        rig.write(name, seed)
    eventually(lambda: len(names_on_devices(rig)) == 2, 10, "both devices have one")
    suspects = names_on_devices(rig)
    rig.kill()
    start(rig, 0.5)
    seen = []

    def all_are_picked() -> bool:
        names = names_on_devices(rig)
        if names == names_on_devices(rig):  # else one changed while the other was read
            seen.append(names)
        return rig.counts()["picked"] == 4

    eventually(all_are_picked, 20, "all are picked")
    assert {name for names in seen for name in names if name in suspects} == suspects
    assert all(len(names) == 1 for names in seen if names & suspects)
    rig.check(seeds)
    (crash,) = rig.events("previous_crash")
    assert (crash["kind"], set(crash["micrographs"])) == ("killed", suspects)


def test_two_sessions_get_the_same_share_of_two_devices(rig: Rig) -> None:
    start(rig, 0.25)
    seeds = {f"{n}.mrc": n for n in range(16)}
    for session in ("first", "second"):
        rig.start_session(session)
        rig.control.change(session, "pause")
        for name, seed in seeds.items():
            rig.write(name, seed, session=session)
    for session in ("first", "second"):
        eventually(lambda s=session: rig.counts(s)["ready"] == 16, 10, "all wait")
    for session in ("first", "second"):
        rig.control.change(session, "resume")
    for session in ("first", "second"):
        rig.picked(16, session)
        rig.check(seeds, session)
    order = [event["session"] for event in rig.events("micrograph_picked")]
    begin = order.index("second")  # the first one has a head start of what was in hand by then
    both = order[begin : begin + 2 * order[begin:].count("first")]
    # They are handed out in turn; a busy machine's devices may finish them in another order.
    assert len(both) >= 8, " ".join(order)
    assert abs(both.count("second") - both.count("first")) <= 4, " ".join(order)


def test_a_device_that_is_never_ready_is_told_while_the_other_picks(rig: Rig) -> None:
    start(rig, 0.05, other={"is_away": True})
    rig.start_session()
    seeds = {f"{n}.mrc": n for n in range(6)}
    for name, seed in seeds.items():
        rig.write(name, seed)
    rig.picked(6)
    rig.check(seeds)
    status, body = rig.get("/readyz")
    sentence = "cpu#2: the fake device is not there yet"
    assert (status, json.loads(body)["notes"]) == (200, [sentence])
    assert sentence in rig.control.session("s1")["problems"]
    page = rig.get("/metrics")[1]
    assert 'drpwatch_device_ready{device="cpu"} 1.0' in page
    assert 'drpwatch_device_ready{device="cpu#2"} 0.0' in page
    assert {event["device"] for event in rig.events("micrograph_picked")} == {"cpu"}
    assert rig.events("ready")
    assert rig.stop() == 0
