"""`drpwatch session ...` through a real Unix socket, against a fake `Control`."""

import datetime
import json
import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from drpwatch import places
from drpwatch.cli import main, remote
from drpwatch.micrograph import PickParams
from drpwatch.places import Places
from drpwatch.service.api import build_app
from drpwatch.service.control import MicrographCounts, SessionRequest
from tests.service.fakes import FakeControl, FakeMetrics, micrograph
from tests.service.serving import serving


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
def daemon(control, tmp_path, monkeypatch):
    with (
        structlog.testing.capture_logs(),  # structlog, as it is before the daemon sets it up, prints
        serving(build_app(control, FakeMetrics(), writable=True), tmp_path / "s") as path,
    ):
        monkeypatch.setenv("DRPWATCH_SOCKET", str(path))
        yield path


@pytest.fixture
def ask(daemon, capsys):
    """Return a function that runs a `session` command and returns what it printed."""

    def run(*arguments: str, code: int = 0) -> str:
        assert main(["session", *arguments]) == code
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return captured.err if code else captured.out

    return run


def start(ask, name: str = "s1", *more: str) -> str:
    return ask("start", name, "--watch", "/data/mics", "--diameter-angstrom", "150", *more)


def test_start_sends_every_option(ask, control, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ask(
        *("start", "s1", "--watch", "mics", "--diameter-angstrom", "150", "--pixel-size-angstrom", "0.885"),
        *("--out", "out", "--glob", "*.mrc", "--negative-stain", "--threshold", "0.25"),
        *("--model", "./w.safetensors", "--micrograph-prefix", "MotionCorr/job002/"),
    )
    assert control.requests == [
        SessionRequest(
            name="s1",
            watch_root=tmp_path / "mics",
            out_dir=tmp_path / "out",
            glob="*.mrc",
            micrograph_prefix="MotionCorr/job002/",
            params=PickParams(150.0, 0.885, True, 0.25, str(tmp_path / "w.safetensors")),
        )
    ]


def test_start_sends_times_with_their_zone(ask, control, monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Vienna")
    time.tzset()
    start(ask, "s1", "--backfill", "since=2026-11-24T08:00", "--expected-end", "2026-11-26T08:00")
    monkeypatch.undo()
    time.tzset()
    (request,) = control.requests
    assert request.backfill == "since=2026-11-24T08:00:00+01:00"
    assert request.expected_end_at == datetime.datetime(2026, 11, 26, 7, tzinfo=datetime.UTC).timestamp()
    assert "--backfill: 'now' is no time" in ask(
        *("start", "s2", "--watch", "/d", "--diameter-angstrom", "150", "--backfill", "since=now"), code=2
    )


def test_start_leaves_defaults_to_the_daemon_and_prints_what_was_understood(ask, control):
    out = start(ask)
    assert control.requests == [SessionRequest("s1", Path("/data/mics"), PickParams(150.0))]
    assert out.splitlines() == [
        "session s1: waiting",
        "  watches     /data/mics, files **/*.mrc",
        "  diameter    150 Å",
        "  pixel size  read from each micrograph's header",
        "  contrast    ice: dark particles",
        "  threshold   the default of the weights",
        "  model       general (SHA-256 ffffffffffff)",
        "  names       PATH below the watched directory",
        "  writes      /data/mics-drpwatch/s1/particles.star",
        "              /data/mics-drpwatch/s1/autopick.star",
    ]


@pytest.mark.parametrize(
    ("model", "sent"), [("general", "general"), ("w/x", "w/x"), ("x.safetensors", "x.safetensors")]
)
def test_a_model_is_a_name_or_a_path(ask, control, tmp_path, monkeypatch, model, sent):
    monkeypatch.chdir(tmp_path)
    start(ask, "s1", "--model", model)
    assert control.requests[0].params.model == (sent if model == "general" else str(tmp_path / sent))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--diameter-angstrom", "1"], "diameter 1.0 Å is not between 10 and 10000 Å"),
        (["--diameter-angstrom", "nan"], "diameter nan Å is not between 10 and 10000 Å"),
        (["--threshold", "2"], "threshold 2.0 is not a probability between 0 and 1"),
        (["--pixel-size-angstrom", "0"], "pixel size 0.0 Å is not between 0.05 and 50 Å"),
    ],
)
def test_a_refused_value_is_one_line_and_exit_code_2(ask, daemon, capsys, arguments, sentence):
    assert main(["session", "start", "s1", "--watch", "/d", "--diameter-angstrom", "150", *arguments]) == 2
    assert capsys.readouterr().err == f"drpwatch: error: {sentence}\n"


@pytest.mark.parametrize("verb", ["show", "stop", "pause", "resume", "reopen"])
def test_an_unknown_session_is_exit_code_2(ask, verb):
    assert ask(verb, "s9", code=2) == "drpwatch: error: no session is named 's9'\n"


@pytest.mark.parametrize("name", ["a/b", "../x", "a b", "ä", "%2e", "?x", "#"])
def test_odd_names_arrive_as_they_are_or_are_refused(ask, name):
    assert "error" in ask("show", name, code=2)


def test_a_verb_that_the_state_forbids_is_exit_code_2(ask):
    start(ask)
    assert "only a paused one is resumed" in ask("resume", "s1", code=2)


def test_pause_resume_reopen_tell_the_new_state(ask):
    start(ask)
    assert ask("pause", "s1") == "session s1: paused\n"
    assert ask("resume", "s1") == "session s1: running\n"
    assert ask("reopen", "s1") == "session s1: waiting\n"


def test_list(ask, control):
    assert ask("list") == "no sessions yet: drpwatch session start NAME --watch DIR --diameter-angstrom D\n"
    start(ask)
    start(ask, "second")
    control.add(
        replace(
            control.views["s1"],
            micrographs=MicrographCounts(waiting=1, picked=20, failed=2),
            picks=5000,
            micrographs_per_hour=312.4,
            problems=("/data/mics: no such directory",),
        )
    )
    header, first, second, problem = ask("list").splitlines()
    assert header.split() == "NAME STATE PICKED READY WAITING FAILED PICKS PER HOUR LAST WATCHES".split()
    assert first.split() == "s1 waiting 20 0 1 2 5000 312 - /data/mics".split()
    assert second.split() == "second waiting 0 0 0 0 0 - - /data/mics".split()
    assert problem == "  ! s1: /data/mics: no such directory"


def test_show_names_what_waits_and_what_failed_with_the_reasons(ask, control):
    start(ask)
    control.add(
        replace(
            control.views["s1"],
            micrographs=MicrographCounts(waiting=1, ready=7, picked=3, failed=1),
            picks=1200,
            newest=(micrograph("g1/a.mrc", "picked"),),
            waiting=(micrograph("g1/w.mrc", "waiting", "have 3 of 9 bytes"),),
            failed=(micrograph("[red]b.mrc", "failed", "a stack of 40 images: drpwatch picks single ones"),),
        )
    )
    out = ask("show", "s1")
    assert "micrographs    1 waiting, 7 ready, 3 picked, 1 failed" in out
    assert "picks          1200, 400 per micrograph" in out
    assert "newest (the last 1 of 4):" in out
    assert "\nwaiting:" in out
    assert re.search(r"^g1/a.mrc +picked +412 ", out, re.MULTILINE)
    assert re.search(r"^g1/w.mrc +waiting +- .* have 3 of 9 bytes$", out, re.MULTILINE)
    assert re.search(r"^\[red\]b.mrc .* a stack of 40 images: drpwatch picks single ones$", out, re.MULTILINE)


def test_show_tells_which_files_are_gone_and_how_new_ones_are_found(ask, control):
    start(ask)
    out = ask("show", "s1")
    assert "source missing" not in out
    assert "found by" not in out
    control.add(
        replace(
            control.views["s1"],
            newest=(replace(micrograph("g1/a.mrc", "picked"), source_missing=True),),
            sources_missing=1,
            no_events="/data is on nfs4, where other machines' writes cause no events",
        )
    )
    out = ask("show", "s1")
    assert "source missing  1 micrographs; what was picked of them stays" in out
    assert (
        "found by        scans alone: /data is on nfs4, where other machines' writes cause no events" in out
    )
    assert re.search(r"^g1/a.mrc +picked .* source missing$", out, re.MULTILINE)


def test_show_tells_of_a_diameter_that_is_too_small(ask, control):
    start(ask)
    assert "rings" not in ask("show", "s1")
    control.add(replace(control.views["s1"], seen_diameter_angstrom=202.5))
    assert re.search(
        r"^ +diameter +150 Å; rings in the newest power spectra tell of 202 Å, and so they are picked$",
        ask("show", "s1"),
        re.MULTILINE,
    )


def test_a_terminal_gets_a_rich_table_and_names_are_not_markup(ask, control, monkeypatch):
    start(ask)
    control.add(replace(control.views["s1"], failed=(micrograph("[red]b.mrc", "failed", "[bold]"),)))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    assert "[red]b.mrc" in ask("show", "s1")
    assert "waiting" in ask("list")


@pytest.mark.parametrize("command", [["show", "s1"], ["pause", "s1"], ["stop", "s1"]])
def test_json_is_the_view(ask, control, command):
    start(ask)
    out = json.loads(ask(*command, "--json"))
    assert out == json.loads(json.dumps(control.session("s1").as_dict()))


def test_list_and_start_as_json(ask, control):
    assert json.loads(start(ask, "s1", "--json"))["name"] == "s1"
    assert [view["name"] for view in json.loads(ask("list", "--json"))["sessions"]] == ["s1"]


def test_stop_prints_how_to_go_on(ask, control):
    start(ask, "s1", "--pixel-size-angstrom", "1.5", "--out", "/data/my out")
    out = ask("stop", "s1")
    assert out.startswith("session s1: draining; 0 micrographs with 0 picks, 0 failed\n")
    plain = re.sub(r" \\\n +", " ", out)
    assert "--coord_list '/data/my out/autopick.star' --part_star" in plain  # RELION 4 and 5
    assert "--coord_dir '/data/my out/' --coord_suffix _autopick.star --part_star" in plain  # RELION 3.1
    assert plain.count("--extract --extract_size 150 --bg_radius 56") == 2
    assert plain.count("--invert_contrast") == 2
    assert "Particle meta path = /data/my out/particles.star" in out  # cryoSPARC
    assert "--micrograph-prefix MotionCorr/job002/" in out


def test_the_commands_fit_negative_stain_an_unknown_pixel_size_and_a_prefix(ask, control):
    start(ask, "s1", "--negative-stain", "--micrograph-prefix", "MotionCorr/job007/")
    control.add(replace(control.views["s1"], state="completed"))
    out = ask("show", "s1")
    assert "--invert_contrast" not in out
    assert "--extract_size BOX_PX" in out
    assert "Micrographs are called MotionCorr/job007/NAME in these files" in out


class _Ending(FakeControl):
    """Ends a draining session at the third look, in the given state."""

    end, looks = "completed", 0

    def session(self, name: str):
        self.looks += 1
        if self.looks >= 3 and self.views[name].state == "draining":
            self.views[name] = replace(self.views[name], state=self.end, problems=("the disk is gone",))
        return super().session(name)


@pytest.mark.parametrize(
    ("end", "code", "told"),
    [
        ("completed", 0, "session s1: completed; 0 micrographs"),
        ("failed", 1, "drpwatch: error: session s1 failed: the disk is gone\n"),
        ("running", 2, "drpwatch: error: session s1 is running again: somebody else changed it\n"),
    ],
)
class TestStopWait:
    @pytest.fixture
    def control(self, end):
        control = _Ending()
        control.end = end
        return control

    def test_it_returns_at_the_end(self, ask, control, monkeypatch, end, code, told):
        monkeypatch.setattr(remote, "POLL_S", 0.01)
        start(ask)
        assert told in ask("stop", "s1", "--wait", code=code)
        assert control.views["s1"].state == end


def test_the_socket_option_wins_over_the_environment(daemon, monkeypatch, capsys):
    monkeypatch.setenv("DRPWATCH_SOCKET", "/nowhere")
    assert main(["session", "list", "--socket", os.fspath(daemon)]) == 0
    assert main(["session", "list"]) == 69
    assert "no daemon listens on /nowhere" in capsys.readouterr().err


def test_the_default_socket_is_the_daemons_and_the_help_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("DRPWATCH_SOCKET", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["session", "list", "--help"]) == 0
    assert str(places.SERVICE.socket) in capsys.readouterr().out
    monkeypatch.setattr(places, "SERVICE", Places(tmp_path / "state", tmp_path / "elsewhere"))
    assert main(["session", "list"]) == 69
    assert str(tmp_path / "elsewhere") in capsys.readouterr().err


def test_one_s_own_daemon_goes_before_the_service(daemon, monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("DRPWATCH_SOCKET")
    run = tmp_path / "run"
    monkeypatch.setattr(places, "SERVICE", Places(tmp_path / "var", run / "control.sock"))
    own = Places(tmp_path, daemon)
    monkeypatch.setattr(places, "usual", lambda: own)
    assert main(["session", "list"]) == 0
    own = Places(tmp_path, tmp_path / "none")
    assert main(["session", "list"]) == 69
    assert f"no daemon listens on {own.socket}" in capsys.readouterr().err
    run.mkdir()
    assert main(["session", "list"]) == 69
    assert f"no daemon listens on {run}" in capsys.readouterr().err


def test_list_tells_of_the_daemon_s_configuration(ask, control):
    control.notices = ("the daemon needs a restart to take pick.device",)
    assert ask("list").splitlines()[-1] == "  ! the daemon needs a restart to take pick.device"
    assert json.loads(ask("list", "--json"))["notices"] == [*control.notices]
