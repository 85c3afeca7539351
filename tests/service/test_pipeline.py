"""The stages together, in this process, with fake pickers and faults where they can happen."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from drpwatch.errors import DeviceFault, DeviceNotReady, JournalError, SessionError, WeightsError
from drpwatch.micrograph import PickParams
from drpwatch.service import device
from drpwatch.service.api import build_app
from drpwatch.service.control import SessionRequest
from drpwatch.service.metrics import Metrics
from tests.daemon.fake_picker import FakePickers, sha256_of
from tests.service.plant import Plant
from tests.support import PATIENCE, eventually


def test_an_error_that_nobody_foresaw_fails_one_micrograph(plant: Plant, pickers: FakePickers) -> None:
    pickers.breaks = ZeroDivisionError
    plant.start()
    plant.write("a.mrc")
    plant.recorded(0, failed=1)
    (failed,) = plant.control.session("s1").failed
    assert failed.reason == "unexpected ZeroDivisionError while picking: as the test wants it"
    pickers.breaks = None
    plant.write("b.mrc")
    plant.recorded(1, failed=1)
    assert plant.control.readiness().healthy


def test_weights_that_are_gone_end_the_session_until_it_is_reopened(
    plant: Plant, pickers: FakePickers
) -> None:
    pickers.models = ("general", "mine")
    plant.start(model="mine")
    pickers.models = ("general",)  # the copy that the daemon keeps is gone
    plant.write("a.mrc")
    eventually(lambda: plant.control.session("s1").state == "failed", 10, "failed")
    view = plant.control.session("s1")
    assert view.problems == ("the copy of these weights is gone",)
    assert [one.name for one in view.ready] == ["a.mrc"]
    pickers.models = ("general", "mine")
    plant.control.reopen("s1")
    plant.recorded(1)


def test_models_are_loaded_when_needed_and_dropped_when_not(plant: Plant, pickers: FakePickers) -> None:
    pickers.models = ("general", "mine", "other")
    plant.start()
    for count, model in enumerate(("general", "mine", "general", "other"), start=1):
        plant.control.set_session("s1", {"model": model})
        plant.write(f"{count}.mrc", count)
        plant.recorded(count)
    # The configured one stays; of the others, each is there while a live session picks with it.
    assert pickers.loaded == [sha256_of(model) for model in ("general", "mine", "other")]
    page = plant.pipeline._publisher.metrics.render().decode()
    shown = {model for model in pickers.models if f'model_info{{name="{model}"' in page}
    assert shown == {"general", "other"}
    used = [one.weights_sha256 for one in reversed(plant.control.session("s1").newest)]
    assert used == [sha256_of(model) for model in ("general", "mine", "general", "other")]


def test_a_configured_model_that_is_missing_ends_the_daemon(plant: Plant, pickers: FakePickers) -> None:
    pickers.models = ()
    woken = threading.Event()
    plant.pipeline.on_failure = woken.set
    plant.pipeline.start()
    assert woken.wait(PATIENCE * 10)
    assert isinstance(plant.pipeline.failure, WeightsError)
    assert not plant.control.liveness().healthy


def test_a_device_that_goes_away_is_waited_for(plant: Plant, pickers: FakePickers) -> None:
    plant.start()
    eventually(plant.pipeline.warmed_up.is_set, 10, "warm")
    pickers.breaks = DeviceNotReady
    plant.write("a.mrc")
    eventually(lambda: "as the test wants it" in plant.control.readiness().reasons, 10, "not ready")
    assert plant.control.liveness().healthy
    pickers.breaks = None
    plant.recorded(1)
    assert plant.control.readiness().healthy


def test_after_a_device_fault_nothing_is_recorded(plant: Plant, pickers: FakePickers) -> None:
    pickers.fault_at = 0
    plant.start()
    plant.write("a.mrc")
    eventually(lambda: isinstance(plant.pipeline.failure, DeviceFault), 10, "the pipeline fails")
    assert plant.pipeline.stop(10)
    totals = plant.journal.totals(1)
    assert (totals.ready, totals.picked, totals.failed) == (1, 0, 0)


def test_a_full_disk_holds_one_session_until_there_is_room(plant: Plant, pickers: FakePickers) -> None:
    plant.start()
    plant.write("a.mrc")
    plant.recorded(1)
    full = threading.Event()
    full.set()
    real = plant.faults.call

    def call(name: str, act, half=None):  # type: ignore[no-untyped-def]
        if full.is_set() and name == "write":
            raise OSError(28, "No space left on device")
        return real(name, act, half)

    plant.faults.call = call  # type: ignore[method-assign]
    for name in ("b.mrc", "c.mrc"):
        plant.write(name)
    eventually(lambda: "no space left" in "".join(plant.control.session("s1").problems), 10, "a problem")
    assert plant.rows() == ["a.mrc"]
    assert not plant.control.readiness().healthy
    full.clear()
    plant.recorded(3)
    assert plant.rows() == ["a.mrc", "b.mrc", "c.mrc"]
    # The problem is over a moment after the last row is written.
    eventually(lambda: plant.control.session("s1").problems == (), 10, "no problem any more")


def test_files_seen_while_the_journal_is_full_are_seen_again(plant: Plant) -> None:
    plant.start()
    plant.write("a.mrc")
    plant.recorded(1)
    plant.faults.arm(0, "refuse")
    plant.write("b.mrc")
    eventually(lambda: plant.faults.struck, 10, "the journal refuses")
    plant.recorded(2)


def test_a_file_that_changes_before_it_is_read_settles_again(plant: Plant, pickers: FakePickers) -> None:
    pickers.gate = threading.Event()
    plant.start()
    for n in range(8):  # more than the loaders and queues take
        plant.write(f"{n}.mrc", n)
    eventually(lambda: plant.control.session("s1").micrographs.ready == 8, 10, "all are queued")
    plant.write("0.mrc", 100)  # the oldest: not read yet
    pickers.gate.set()
    plant.recorded(8)
    assert len(plant.rows()) == 8


def test_verbs_are_refused_where_they_mean_nothing(plant: Plant) -> None:
    plant.start()
    with pytest.raises(SessionError, match="no session named nothing"):
        plant.control.stop_session("nothing")
    with pytest.raises(SessionError, match="session s1: cannot resume a session that is"):
        plant.control.resume("s1")
    request = SessionRequest("s2", plant.mics, PickParams(150.0))
    (plant.root / "drpwatch/s2").mkdir(parents=True)
    (plant.root / "drpwatch/s2/particles.star").write_text("of somebody else")
    with pytest.raises(SessionError, match=r"has a particles\.star already"):
        plant.control.start_session(request)
    plant.control.start_session(replace(request, out_dir=plant.root / "elsewhere"))


def test_loops_that_stop_beating_are_named(plant: Plant) -> None:
    plant.start()
    eventually(lambda: len(plant.pipeline.heartbeats.ages_s()) == 5, 10, "all loops beat")
    assert plant.control.liveness().healthy
    plant.pipeline.heartbeats._last["scanner"] -= 1000
    assert "the scanner loop has made no progress" in plant.pipeline.heartbeats.stale(300)[0]


def test_waiting_for_the_device_is_no_standstill(plant: Plant, pickers: FakePickers) -> None:
    pickers.is_there = lambda: False
    plant.start()
    for n in range(8):  # more than the loaders and queues take
        plant.write(f"{n}.mrc", n)
    eventually(lambda: plant.pipeline.dispatcher.on_way == 4, 10, "both loaders have one in hand")
    with plant.pipeline.heartbeats._lock:
        for loop in plant.pipeline.heartbeats._last:
            plant.pipeline.heartbeats._last[loop] -= 1000
    eventually(lambda: plant.control.liveness().healthy, 5, "every loop beats")
    assert not plant.control.readiness().healthy


def test_a_device_lost_again_and_again_is_not_asked_all_the_time(
    plant: Plant, pickers: FakePickers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_BACK_OFF_S", (0.1, 3600.0))
    pickers.breaks = DeviceNotReady
    plant.start()
    plant.write("a.mrc")
    eventually(lambda: pickers.picked == 2, 10, "it was tried again")
    assert plant.control.session("s1").micrographs.ready == 1
    assert "as the test wants it" in plant.control.readiness().reasons


def test_a_journal_that_fails_for_a_while_is_told_each_time(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.start()
    real, told = plant.journal.sessions, plant.pipeline._publisher._told

    def failing(*_: object) -> None:
        raise JournalError("as the test wants it")

    for _ in range(2):
        monkeypatch.setattr(plant.journal, "sessions", failing)
        eventually(lambda: ("journal", "") in told, 10, "it is told")
        monkeypatch.setattr(plant.journal, "sessions", real)
        eventually(lambda: ("journal", "") not in told, 10, "it is over")


def test_gauges_show_levels(plant: Plant) -> None:
    plant.start()
    plant.control.pause("s1")
    plant.write("a.mrc")
    eventually(lambda: plant.control.session("s1").micrographs.ready == 1, 10, "ready")
    plant.pipeline.show_gauges()
    page = plant.pipeline._publisher.metrics.render().decode()
    assert "drpwatch_session_active 1.0" in page
    assert 'drpwatch_session_micrographs{session="s1",state="ready"} 1.0' in page
    assert 'drpwatch_oldest_unpicked_timestamp_seconds{session="s1"} 1.' in page
    assert 'drpwatch_output_writable{session="s1"} 1.0' in page
    assert "drpwatch_median_picks{" not in page  # nothing is picked yet


def test_the_series_of_a_session_end_a_while_after_it(plant: Plant) -> None:
    plant.start()
    plant.write("a.mrc")
    plant.recorded(1)
    plant.control.stop_session("s1")
    eventually(lambda: plant.control.session("s1").state == "completed", 20, "completed")

    def page() -> str:
        plant.pipeline.show_gauges()
        return plant.pipeline._publisher.metrics.render().decode()

    assert 'drpwatch_session_info{session="s1",state="completed"} 1.0' in page()
    plant.ahead_s = 299.0
    assert 'drpwatch_picks_total{session="s1"}' in page()
    plant.ahead_s = 310.0
    assert 'session="s1"' not in page()
    plant.control.rebuild("s1")  # the recorder looks after its outputs once more
    eventually(lambda: not plant.control.session("s1").behind, 10, "rebuilt")
    assert 'session="s1"' not in page()
    plant.control.reopen("s1")
    assert 'drpwatch_session_info{session="s1",state="waiting"} 1.0' in page()


@pytest.mark.parametrize(
    "change",
    [
        {"out_dir": "/" + "d" * 300},
        {"out_dir": "/proc/x"},
        {"out_dir": "/dev/null/x"},
        {"out_dir": "/tmp/\udcff"},
        {"watch_root": "/" + "d" * 300},
        {"watch_root": "/dev/null"},
        {"watch_root": "/tmp/\ud800"},
        {"model": "~nobody-has-this-name/m"},
        {"glob": "*" * 4000},
        {"glob": "../*.mrc"},
        {"micrograph_prefix": "\ud800"},
        {"micrograph_prefix": "a\x1b[2J"},
        {"name": "../s2"},
        {"name": "s2\n"},
        {"name": "\u0455\u0455"},
        {"backfill": "since=\ud800"},
        {"backfill": "since=99999-01-01"},
    ],
    ids=lambda change: "-".join(f"{key}={value[:20]!a}" for key, value in change.items()),
)
def test_no_request_to_start_breaks_the_api(plant: Plant, change: dict[str, str], tmp_path: Path) -> None:
    """The real verbs behind the real application: refused in a sentence, and nothing is left."""
    client = TestClient(build_app(plant.control, Metrics(), writable=True), raise_server_exceptions=False)
    body = {"name": "s2", "watch_root": str(tmp_path / "none"), "out_dir": str(tmp_path / "out")}
    content = json.dumps(body | {"diameter_angstrom": 150.0} | change)  # half a surrogate pair in ASCII
    answer = client.post("/api/v1/sessions", content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 409), answer.text
    assert answer.json()["error"].isprintable()
    assert plant.control.sessions() == []
