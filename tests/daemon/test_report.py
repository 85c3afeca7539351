"""`drpwatch session report` beside a real daemon, without one, and by itself at the end of a session."""

import pytest

from drpwatch.cli import main
from tests.daemon.rig import Rig
from tests.report.test_report import Parsed, is_harmless
from tests.support import eventually


@pytest.fixture
def rig(tmp_path):
    rig = Rig(tmp_path)
    yield rig
    rig.close()


def read(path) -> str:
    page = Parsed(path.read_bytes())
    is_harmless(page)
    return page.text


def test_a_report_at_any_time_and_at_the_end(rig, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rig.start()
    rig.start_session("apo1")
    for seed, name in enumerate(("G1/a.mrc", "G1/b<i>.mrc", "G2/c.mrc")):
        rig.write(name, seed + 1, session="apo1")
    rig.picked(3, "apo1")
    ask = ["session", "report", "apo1", "--socket", str(rig.socket)]
    assert main(ask) == 0
    assert capsys.readouterr().out == "apo1-report.html: report of session apo1\n"
    text = read(tmp_path / "apo1-report.html")
    assert "running" in text
    assert "G1/b<i>.mrc" in text
    assert str(rig.out_dir("apo1")) in text
    assert rig.get("/api/v1/sessions/apo1/report")[0] == 404  # it costs something: not for everybody
    assert main(["session", "report", "nope", "--socket", str(rig.socket)]) == 2
    assert "no session named nope" in capsys.readouterr().err

    rig.control.change("apo1", "stop")
    last = rig.out_dir("apo1") / "report.html"
    eventually(last.exists, 20, "the report of a completed session")
    assert "completed" in read(last)

    rig.kill()
    alone = [
        "session",
        "report",
        "apo1",
        "--state-dir",
        str(rig.root / "state"),
        "-o",
        str(tmp_path / "b.html"),
    ]
    assert main(alone) == 0
    assert "completed" in read(tmp_path / "b.html")


def test_without_daemon_and_journal_it_is_said_what_to_do(tmp_path, capsys, monkeypatch):
    config = tmp_path / "config.toml"
    config.write_text(f'[daemon]\nstate_dir = "{tmp_path}/nowhere"\n')
    monkeypatch.setattr("drpwatch.config.DEFAULT_CONFIG", config)
    assert main(["session", "report", "apo1", "--socket", str(tmp_path / "s")]) == 69
    said = capsys.readouterr().err
    assert "no daemon listens on" in said
    assert said.endswith("or read its journal with --state-dir DIR\n")
    assert main(["session", "report", "apo1", "--state-dir", str(tmp_path)]) == 1
    assert f"{tmp_path}/journal.db: there is no journal" in capsys.readouterr().err
