"""What the log writes, as a reader of its stream sees it."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from drpwatch.service.logs import HIDDEN, configure


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave the logging of the other tests as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    for name in ("uvicorn.access", "watchdog", "asyncio"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.reset_defaults()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def no_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    monkeypatch.delenv("INVOCATION_ID", raising=False)


def entries(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_its_fields() -> None:
    stream = io.StringIO()
    configure("json", "info", stream)
    log = structlog.get_logger("drpwatch.service.recorder")
    log.info(
        "micrograph_picked", session="s1", picks=412, path=Path("/data/a.mrc"), seen={"b", "a"}, text="a\nb"
    )
    [entry] = entries(stream)
    assert list(entry)[:4] == ["timestamp", "level", "logger", "event"]
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {
        "level": "info",
        "logger": "drpwatch.service.recorder",
        "event": "micrograph_picked",
        "session": "s1",
        "picks": 412,
        "path": "/data/a.mrc",
        "seen": ["a", "b"],
        "text": "a\nb",
    }


def test_a_logger_taken_before_configuring_follows() -> None:
    log = structlog.get_logger("early")
    stream = io.StringIO()
    configure("json", "info", stream)
    log.info("late")
    assert entries(stream)[0]["event"] == "late"


def test_level_holds_for_all() -> None:
    stream = io.StringIO()
    configure("json", "warning", stream)
    structlog.get_logger("a").info("no")
    logging.getLogger("b").info("no")
    structlog.get_logger("a").warning("yes")
    logging.getLogger("b").error("yes")
    assert [entry["event"] for entry in entries(stream)] == ["yes", "yes"]
    assert [entry["level"] for entry in entries(stream)] == ["warning", "error"]


def test_other_libraries_come_through_the_same_stream() -> None:
    uvicorn = logging.getLogger("uvicorn.error")
    uvicorn.addHandler(logging.NullHandler())
    uvicorn.propagate = False
    stream = io.StringIO()
    configure("json", "debug", stream)
    uvicorn.info("Started %s", "server", extra={"port": 9478})
    logging.getLogger("uvicorn.access").info("GET /metrics 200")
    logging.getLogger("watchdog.observers").debug("in-event")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("careful", UserWarning, stacklevel=1)
    first, second = entries(stream)
    assert (first["event"], first["logger"], first["port"]) == ("Started server", "uvicorn.error", 9478)
    assert "careful" in second["event"]


def test_an_error_carries_its_traceback_in_the_same_line() -> None:
    stream = io.StringIO()
    configure("json", "info", stream)
    try:
        raise ValueError("bad")
    except ValueError:
        structlog.get_logger("a").exception("loop_failed", loop="scanner")
    [entry] = entries(stream)
    assert entry["exception"].endswith("ValueError: bad")
    assert entry["level"] == "error"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_secret_leaves(log_format, no_systemd) -> None:
    stream = io.StringIO()
    configure(log_format, "info", stream)
    secret = "hunter2hunter2"
    log = structlog.get_logger("a")
    log.info(
        "x", password=secret, api_key=secret, headers={"Authorization": f"Bearer {secret}", "n": [secret[:1]]}
    )
    log.info(
        "y", url=f"smb://user:{secret}@nas/data", hint=f"use Bearer {secret} here", line=f"token={secret};"
    )
    logging.getLogger("b").warning("mount failed: password=%s", secret)
    try:
        raise OSError(f"cannot mount //nas with secret: {secret}")
    except OSError:
        log.exception("z")
    text = stream.getvalue()
    assert text.count(HIDDEN) >= 8
    assert secret not in text


def test_innocent_text_stays() -> None:
    stream = io.StringIO()
    configure("json", "info", stream)
    text = "basic information: 3 passes over smb://nas/data at 12:30:01, user@host, key=5"
    structlog.get_logger("a").info(text, bypassed=1, path="/data/@grid:1/a.mrc")
    [entry] = entries(stream)
    assert (entry["event"], entry["bypassed"], entry["path"]) == (text, 1, "/data/@grid:1/a.mrc")


def test_names_that_are_no_text_do_not_cost_the_line(tmp_path: Path, no_systemd) -> None:
    for log_format in ("json", "console"):
        with open(tmp_path / "log", "w", encoding="utf-8") as stream:
            configure(log_format, "info", stream)
            structlog.get_logger("a").info("odd", path="bad\udcff.mrc")
        assert "\\udcff" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_nothing_in_a_name_steers_the_terminal(log_format, no_systemd) -> None:
    stream = io.StringIO()
    configure(log_format, "info", stream)
    name = "a\x1b]0;owned\x07\x9b2J\r\u202e\u2028.mrc"
    log = structlog.get_logger("a")
    log.info("micrograph_failed", micrograph=name, path=Path("/data") / name, names=[name], by={name: name})
    logging.getLogger("b").warning("cannot read %s", name)
    try:
        raise OSError(name)
    except OSError:
        log.exception("broken")
    text = stream.getvalue()
    assert not {one for one in text if not one.isprintable()} - {"\n"}
    assert text.count("owned") >= 6


@pytest.mark.parametrize(
    ("log_format", "stream", "environment", "is_json"),
    [
        ("auto", Terminal, {}, False),
        ("auto", io.StringIO, {}, True),
        ("auto", Terminal, {"JOURNAL_STREAM": "8:1"}, True),
        ("auto", Terminal, {"INVOCATION_ID": "f00"}, True),
        ("json", Terminal, {}, True),
        ("console", io.StringIO, {}, False),
    ],
)
def test_format(log_format, stream, environment, is_json, no_systemd, monkeypatch) -> None:
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    out = stream()
    configure(log_format, "info", out)
    structlog.get_logger("a").info("started", sessions=2)
    assert out.getvalue().startswith("{") is is_json
    assert ("\x1b[" in out.getvalue()) is (not is_json and stream is Terminal)
    assert out.getvalue().count("\n") == 1
