"""`drpwatch session set|failed|retry|repick|rethreshold|rebuild` through a real Unix socket, on a fake `Control`."""

import datetime
import json
from dataclasses import replace

import pytest

from drpwatch.cli import remote
from tests.cli.test_session import ask, control, daemon, start  # noqa: F401 - fixtures
from tests.service.fakes import FakeControl, micrograph


def test_set_sends_what_was_given_and_nothing_else(ask, control, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    start(ask)
    out = ask("set", "s1", "threshold=0.3", "model=own.safetensors", "expected_end=2026-11-24T08:00+01:00")
    end = datetime.datetime(2026, 11, 24, 7, tzinfo=datetime.UTC).timestamp()
    assert control.asked == [
        ("set", "s1", {"threshold": 0.3, "model": str(tmp_path / "own.safetensors"), "expected_end_at": end})
    ]
    assert out.startswith("session s1: parameters version 2\n")
    assert "  threshold     0.3\n" in out
    assert f"own.safetensors (SHA-256 {'f' * 12})" in out
    control.asked.clear()
    ask(
        "set",
        "s1",
        "threshold=default",
        "pixel_size_angstrom=header",
        "negative_stain=true",
        "expected_end=none",
    )
    assert control.asked == [
        (
            "set",
            "s1",
            {"threshold": None, "pixel_size_angstrom": None, "negative_stain": True, "expected_end_at": None},
        )
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "treshold=1",
            "'treshold=1': give KEY=VALUE with one of the keys threshold, model, diameter_angstrom",
        ),
        ("threshold", "'threshold': give KEY=VALUE"),
        ("threshold=x", "'threshold=x': give a probability from 0 to 1, or default"),
        ("threshold=3", "threshold 3.0 is not a probability between 0 and 1"),
        ("diameter_angstrom=default", "'diameter_angstrom=default': give a number of Å"),
        ("negative_stain=1", "'negative_stain=1': give true or false"),
        ("expected_end=tomorrow", "expected_end: 'tomorrow' is no time such as 2026-11-24T08:00"),
        ("model=", "model: "),
    ],
)
def test_what_cannot_be_set_is_refused_in_a_sentence(ask, control, text, sentence):  # noqa: F811
    start(ask)
    error = ask("set", "s1", text, code=2)
    assert error.startswith(f"drpwatch: error: {sentence}")
    assert error.count("\n") == 1
    assert control.asked == []


def test_failed_lists_the_reasons(ask, control):  # noqa: F811
    start(ask)
    assert ask("failed", "s1") == "session s1: no micrograph failed\n"
    control.add(
        replace(control.views["s1"], failed=(micrograph("g1/b.mrc", "failed", "the image is blank"),))
    )
    header, row = ask("failed", "s1").splitlines()
    assert header.split() == ["MICROGRAPH", "WHEN", "REASON"]
    assert row.startswith("g1/b.mrc")
    assert row.endswith("the image is blank")
    listed = json.loads(ask("failed", "s1", "--json"))["micrographs"]
    assert [(one["name"], one["reason"]) for one in listed] == [("g1/b.mrc", "the image is blank")]


@pytest.mark.parametrize(
    ("arguments", "which", "glob"),
    [
        (("retry", "s1"), "failed", None),
        (("retry", "s1", "g1/*"), "failed", "g1/*"),
        (("repick", "s1", "--outdated"), "outdated", None),
        (("repick", "s1", "--failed"), "failed", None),
        (("repick", "s1", "*"), "recorded", "*"),
        (("repick", "s1", "--outdated", "a*"), "outdated", "a*"),
    ],
)
def test_what_is_picked_again(ask, control, arguments, which, glob):  # noqa: F811
    start(ask)
    assert ask(*arguments) == "session s1: 3 micrographs are picked again\n"
    assert control.asked == [("repick", "s1", which, glob)]
    assert json.loads(ask(*arguments, "--json"))["count"] == 3


def test_repick_wants_to_know_what(ask):  # noqa: F811
    start(ask)
    assert "say what is to be picked again: --outdated, --failed, or a GLOB" in ask("repick", "s1", code=2)
    assert "not both" in ask("repick", "s1", "--failed", "--outdated", code=2)


class _Behind(FakeControl):
    """Has its files written at the third look."""

    looks = 0

    def session(self, name: str):
        self.looks += 1
        return replace(super().session(name), behind=self.looks < 5, picks=7)


class TestWaitingForFiles:
    @pytest.fixture
    def control(self):
        return _Behind()

    @pytest.mark.parametrize("arguments", [("rethreshold", "s1", "0.25"), ("rebuild", "s1")])
    def test_it_returns_when_they_are_written(self, ask, control, monkeypatch, arguments):  # noqa: F811
        monkeypatch.setattr(remote, "POLL_S", 0.01)
        start(ask)
        assert ask(*arguments) == "session s1: 7 picks in 0 micrographs\n"
        assert control.looks >= 5
        assert control.asked == [(arguments[0], "s1", *map(float, arguments[2:]))]

    def test_a_disk_that_refuses_is_told(self, ask, control):  # noqa: F811
        start(ask)
        control.add(
            replace(control.views["s1"], problems=("session s1: cannot write /x: no space left on device",))
        )
        control.looks = -100
        assert "no space left on device; the daemon goes on with it" in ask("rebuild", "s1", code=1)
