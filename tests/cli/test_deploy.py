import json
import sys
from pathlib import Path

import pytest

from drpwatch import cli


def run(*arguments: str | Path) -> int:
    return cli.main(["deploy", *map(str, arguments)])


def test_files_are_written_and_their_use_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[daemon]\nhttp_port = 9999\n")
    out = tmp_path / "out"
    assert run(out, "--config", config, "--writes", "/data", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert sorted(file["path"] for file in answer["files"]) == sorted(
        str(path) for path in out.rglob("*") if path.is_file()
    )
    host = (out / "etc/systemd/system/drpwatch.service.d/host.conf").read_text()
    assert f"ExecStart={Path(sys.executable).parent}" in host
    assert f"run --config {config}" in host
    assert "ReadWritePaths=-/data" in host
    assert "127.0.0.1:9999" in (out / "prometheus/drpwatch.scrape.yml").read_text()
    assert answer["steps"]["The service, as root"][0] == f"cp -r {out}/etc/. /etc/"

    assert run(out, "--config", config, "--writes", "/data") == 0  # again, over the files of before
    told = capsys.readouterr().out
    assert "the dashboard" in told
    assert "systemctl enable --now drpwatch" in told


def test_what_will_not_work_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "out") == 0
    assert "no --writes DIR is given" in capsys.readouterr().out


def test_a_program_that_the_service_cannot_see_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, sentence in (("/tmp/venv/bin", "does not see /tmp"), ("/home/me/venv/bin", "may not be able")):
        monkeypatch.setattr(sys, "executable", f"{place}/python3")
        assert run(tmp_path / "out") == 0
        assert sentence in capsys.readouterr().out
    host = (tmp_path / "out/etc/systemd/system/drpwatch.service.d/host.conf").read_text()
    assert "ExecStart=/home/me/venv/bin/python3 -m drpwatch run" in host


def test_a_place_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run(tmp_path / "file") == 2
    assert "a file is where a directory should be" in capsys.readouterr().err
    assert run("/proc/nothing") == 1
    assert "cannot be written" in capsys.readouterr().err
    assert run(tmp_path / "out", "--config", tmp_path / "missing.toml") == 78
