"""The daemon's main job, by the real process."""

from pathlib import Path

from drpwatch.formats import star
from tests.daemon.rig import Rig, write_image
from tests.support import eventually


def test_micrographs_are_picked_as_they_arrive(rig: Rig) -> None:
    rig.start()
    view = rig.start_session()
    assert (view["state"], view["out_dir"]) == ("waiting", str(rig.out_dir()))
    seeds = {f"grid {n % 2}/mic_{n}.mrc": n for n in range(6)}
    for name, seed in seeds.items():
        rig.write(name, seed)
    rig.picked(6)
    rig.check(seeds)
    view = rig.control.session("s1")
    assert view["state"] == "running"
    assert view["pixel_size_angstrom"] == 1.5
    assert rig.control.change("s1", "stop")["state"] == "draining"
    eventually(lambda: rig.control.session("s1")["state"] == "completed", 5, "the session completes")
    assert rig.stop() == 0


def test_a_file_written_in_pieces_waits_until_it_is_whole(rig: Rig, tmp_path: Path) -> None:
    rig.start()
    rig.start_session()
    whole = tmp_path / "whole.mrc"
    write_image(whole, 7)
    content = whole.read_bytes()
    path = rig.watch_dir() / "a.mrc"
    for length, reason in ((500, "header not written yet"), (5000, "have 5000 of 13312 bytes")):
        path.write_bytes(content[:length])
        eventually(
            lambda reason=reason: [w for w in rig.control.session("s1")["waiting"] if reason in w["reason"]],
            5,
            reason,
        )
    path.write_bytes(content)
    rig.picked(1)
    rig.check({"a.mrc": 7})


def test_a_rewritten_micrograph_is_picked_again(rig: Rig) -> None:
    rig.start()
    rig.start_session()
    for n in range(3):
        rig.write(f"mic_{n}.mrc", n)
    rig.picked(3)
    rig.write("mic_1.mrc", 100)
    eventually(lambda: rig.control.session("s1")["newest"][0]["generation"] == 2, 10, "a second generation")
    rig.check({"mic_0.mrc": 0, "mic_1.mrc": 100, "mic_2.mrc": 2})


def test_sigterm_drains_and_a_restart_resumes(rig: Rig) -> None:
    rig.start("--pick-s", "0.2")
    rig.start_session()
    seeds = {f"mic_{n}.mrc": n for n in range(12)}
    for name, seed in seeds.items():
        rig.write(name, seed)
    rig.picked(2)
    assert rig.stop(within_s=10) == 0
    assert rig.events("drained")[0]["complete"] is True
    done = star.read(rig.out_dir() / "particles.star")["particles"].column("rlnMicrographName")
    assert 2 <= len(set(done)) < 12
    rig.start()
    rig.picked(12)
    rig.check(seeds)


def test_several_sessions_take_turns(rig: Rig) -> None:
    rig.start("--pick-s", "0.05")
    rig.start_session("first")
    rig.start_session("second")
    seeds = {f"mic_{n}.mrc": n for n in range(10)}
    for name, seed in seeds.items():
        rig.write(name, seed, session="first")
    rig.picked(1, "first")
    for name, seed in seeds.items():
        rig.write(name, seed + 100, session="second", pixel_size_angstrom=0.9)
    rig.picked(10, "first")
    rig.picked(10, "second")
    rig.check(seeds, "first")
    rig.check({name: seed + 100 for name, seed in seeds.items()}, "second")
    assert [view["name"] for view in rig.control.sessions()] == ["second", "first"]


def test_pause_finds_but_does_not_pick(rig: Rig) -> None:
    rig.start()
    rig.start_session()
    rig.control.change("s1", "pause")
    rig.write("a.mrc", 1)
    eventually(lambda: rig.counts()["ready"] == 1, 5, "found")
    assert rig.counts()["picked"] == 0
    rig.control.change("s1", "resume")
    rig.picked(1)


def test_a_stopped_session_takes_nothing_new_and_reopens(rig: Rig) -> None:
    rig.start()
    rig.start_session()
    rig.write("a.mrc", 1)
    rig.picked(1)
    rig.control.change("s1", "stop")
    eventually(lambda: rig.control.session("s1")["state"] == "completed", 5, "completed")
    rig.write("b.mrc", 2)
    rig.control.change("s1", "reopen")
    rig.picked(2)
    rig.check({"a.mrc": 1, "b.mrc": 2})


def test_a_missing_watch_directory_is_waited_for(rig: Rig) -> None:
    rig.start()
    rig.control.start(
        {
            "name": "s1",
            "watch_root": str(rig.watch_dir()),
            "diameter_angstrom": 150.0,
            "out_dir": str(rig.out_dir()),
        }
    )
    eventually(
        lambda: "cannot be read" in "".join(rig.control.session("s1")["problems"]), 5, "a problem shown"
    )
    assert rig.get("/readyz")[0] == 503
    rig.watch_dir().mkdir(parents=True)
    rig.write("a.mrc", 1)
    rig.picked(1)
    assert rig.get("/readyz") == (200, '{"healthy":true,"reasons":[],"notes":[]}')


def test_a_device_fault_ends_the_process_and_loses_nothing(rig: Rig) -> None:
    rig.start("--fault-at", "2")
    rig.start_session()
    seeds = {f"mic_{n}.mrc": n for n in range(6)}
    for name, seed in seeds.items():
        rig.write(name, seed)
    rig.ends(70)
    assert "the fake device failed" in rig.log.read_text()
    rig.start()
    rig.picked(6)
    rig.check(seeds)


def test_what_picks_is_told(rig: Rig) -> None:
    there = rig.root / "there"
    rig.start("--there-with", str(there))
    (device,) = rig.control.daemon()["devices"]
    assert (device["name"], device["tile_px"]) == (None, None)
    assert device["not_ready"]
    there.touch()
    rig.start_session()
    rig.write("a.mrc", 1)
    rig.picked(1)
    about = rig.control.daemon()
    (device,) = about["devices"]
    assert (device["name"], device["not_ready"], device["released"]) == ("fake device", None, False)
    assert device["tile_px"] == 512
    assert about["page"] == f"http://127.0.0.1:{rig.port}"


def test_metrics_tell_what_was_done(rig: Rig) -> None:
    rig.start()
    rig.start_session()
    for n in range(3):
        rig.write(f"mic_{n}.mrc", n)
    rig.picked(3)
    page = rig.get("/metrics")[1]
    assert 'drpwatch_micrographs_total{outcome="picked",session="s1"} 3.0' in page
    assert 'drpwatch_stage_seconds_count{stage="record"} 3.0' in page
    assert 'drpwatch_device_ready{device="auto"} 1.0' in page
