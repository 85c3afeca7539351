"""`drpwatch watch`: what is on the screen, and what is printed where there is none."""

import dataclasses
import io
import time

import pytest
import structlog
from rich.console import Console

from drpwatch.cli import main
from drpwatch.cli.dashboard import Snapshot, draw, sparkline
from drpwatch.micrograph import PickParams
from drpwatch.service.api import build_app
from drpwatch.service.control import DeviceView, Health, MicrographCounts, SessionRequest
from tests.service.fakes import FakeControl, FakeMetrics, micrograph
from tests.service.serving import serving


@pytest.fixture
def control(tmp_path):
    control = FakeControl()
    for name, state in (("apo1", "running"), ("old", "completed")):
        control.start_session(SessionRequest(name, tmp_path, PickParams(150.0)))
        control.views[name] = dataclasses.replace(control.views[name], state=state)
    control.views["apo1"] = dataclasses.replace(
        control.views["apo1"],
        micrographs=MicrographCounts(waiting=1, ready=7, picked=40, failed=2),
        picks=16_480,
        micrographs_per_hour=312.0,
        oldest_unpicked_at=time.time() - 300,
        problems=("the watch root cannot be read",),
        newest=tuple(micrograph(f"G1/m{n}.mrc", "picked") for n in range(40)),
        failed=(micrograph("G1/[bold]bad\x1b[31m.mrc", "failed", "not an MRC file"),),
    )
    return control


@pytest.fixture
def daemon(control, tmp_path, monkeypatch):
    with (
        structlog.testing.capture_logs(),
        serving(build_app(control, FakeMetrics(), writable=True), tmp_path / "s") as path,
    ):
        monkeypatch.setenv("DRPWATCH_SOCKET", str(path))
        yield path


def screen(control, width: int = 120, height: int = 40, **more) -> str:
    sessions = tuple(view.as_dict() for view in control.sessions())
    shown = Snapshot(time.time(), sessions, control.session("apo1").as_dict(), **more)
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    console.print(draw(shown, width, height))
    return console.file.getvalue()


def test_all_is_on_the_screen(control):
    said = screen(control)
    for told in (
        "ready",
        "apo1: running",
        "old",
        "312 an hour",
        "16480 picks, 412 per micrograph",
        "7 to pick, the oldest seen 5 min ago",
        "the watch root cannot be read",
        "█" * 40,
        "G1/m0.mrc",
        "2 FAILED",
        "G1/[bold]bad\\x1b[31m.mrc",
        "not an MRC file",
    ):
        assert told in said, told


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 60), (40, 12)])
def test_it_fits(control, width, height):
    lines = screen(control, width, height).splitlines()
    assert max(map(len, lines)) <= width
    if width >= 80:
        assert len(lines) <= height
        assert "PER HOUR" in lines[1]


def test_what_is_wrong_stands_above_what_was_known(control):
    said = screen(control, unreachable="no daemon listens there")
    assert said.index("no daemon listens there; trying again") < said.index("apo1: running")
    assert "not ready\n! no GPU" in screen(control, not_ready=("no GPU",))
    assert "ready\n! cuda:1: no GPU" in screen(control, notes=("cuda:1: no GPU",))


GPU = DeviceView(
    "NVIDIA H100",
    None,
    False,
    {"total": 80_000_000_000, "free": 50_000_000_000, "reserved": 3_000_000_000},
    2048,
)


def test_the_devices_and_the_page(control):
    control.page = "http://127.0.0.1:9478"
    control.devices = (
        GPU,
        dataclasses.replace(GPU, not_ready="no driver", name=None, memory_bytes={}, tile_px=None),
        dataclasses.replace(GPU, released=True),
    )
    said = screen(control, daemon=dataclasses.asdict(control.daemon()))
    assert said.splitlines()[0].endswith("http://127.0.0.1:9478  ready")
    assert said.splitlines()[1:4] == [
        "NVIDIA H100: ready, 30.0 of 80.0 GB used, 3.0 of it by drpwatch, tiles of 2048 px",
        "no device yet: not ready",
        "NVIDIA H100: released, nothing to pick, tiles of 2048 px",
    ]


def test_what_waits_is_shown_with_its_reason(control):
    waiting = tuple(micrograph(f"G1/w{n}.mrc", "waiting", f"have {n} of 9 bytes") for n in range(9))
    control.views["apo1"] = dataclasses.replace(control.views["apo1"], waiting=waiting)
    said = screen(control)
    assert "1 WAITING" in said
    assert "have 2 of 9 bytes" in said
    assert "have 3 of 9 bytes" not in said


def test_a_sparkline_grows_to_the_right():
    newest = [{"picks": picks} for picks in (80, 40, 10, 0, None)]
    assert sparkline(newest, 10) == "x·▁▄█"
    assert sparkline(newest, 2) == sparkline(newest, 10)[-2:]
    assert sparkline([], 10) == ""


def test_without_a_terminal_it_is_printed_once(daemon, control, capsys):
    control.ready = Health(("the device is not ready",), ("a note",))
    control.devices = (GPU,)
    assert main(["watch"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("NAME ")
    assert "! the device is not ready\n  ! a note\n" in said
    assert "session apo1: running" in said
    assert "NVIDIA H100: ready" in said
    assert main(["watch", "old"]) == 0
    assert "session old: completed" in capsys.readouterr().out


def test_what_is_not_there_is_told(daemon, tmp_path, capsys):
    assert main(["watch", "nope"]) == 2
    assert "nope" in capsys.readouterr().err
    assert main(["watch", "--socket", str(tmp_path / "nowhere")]) == 69
