"""The HTTP API against a fake `Control`."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from fastapi.testclient import TestClient

from drpwatch import __version__, errors
from drpwatch.cli.client import ControlClient
from drpwatch.config import Profile
from drpwatch.micrograph import PickParams
from drpwatch.service.api import build_app
from drpwatch.service.control import Control, Health, SessionRequest
from tests.service.fakes import FakeControl, FakeMetrics, micrograph
from tests.service.serving import serving

BODY = {"name": "s1", "watch_root": "/data/mics", "diameter_angstrom": 150}


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
def local(control):
    """The application of the Unix socket."""
    return TestClient(build_app(control, FakeMetrics(), writable=True), raise_server_exceptions=False)


@pytest.fixture
def remote(control):
    """The application of the TCP port."""
    return TestClient(build_app(control, FakeMetrics(), writable=False), raise_server_exceptions=False)


def test_the_fake_is_a_control(control):
    checked: Control = control
    assert checked.sessions() == []


def test_start_hands_over_every_field(local, control):
    body = BODY | {
        "pixel_size_angstrom": 0.885,
        "negative_stain": True,
        "threshold": 0.25,
        "model": "/w/mine.safetensors",
        "out_dir": "/data/out",
        "glob": "*.mrc",
        "micrograph_prefix": "MotionCorr/job002/",
    }
    answer = local.post("/api/v1/sessions", json=body)
    assert answer.status_code == 201
    assert answer.json() == json.loads(json.dumps(control.views["s1"].as_dict()))
    assert control.requests == [
        SessionRequest(
            name="s1",
            watch_root=Path("/data/mics"),
            out_dir=Path("/data/out"),
            glob="*.mrc",
            micrograph_prefix="MotionCorr/job002/",
            params=PickParams(150.0, 0.885, True, 0.25, "/w/mine.safetensors"),
        )
    ]


def test_a_profile_has_what_is_not_given(control):
    profiles = {"krios": Profile(pixel_size_angstrom=0.83, threshold=0.4, glob="*.mrc", backfill="new-only")}
    app = build_app(control, FakeMetrics(), writable=True, profiles=profiles)
    client = TestClient(app, raise_server_exceptions=False)
    body = BODY | {"profile": "krios", "threshold": 0.6, "pixel_size_angstrom": None, "expected_end_at": 2e9}
    assert client.post("/api/v1/sessions", json=body).status_code == 201
    assert control.requests == [
        SessionRequest(
            name="s1",
            watch_root=Path("/data/mics"),
            glob="*.mrc",
            params=PickParams(150.0, threshold=0.6),
            backfill="new-only",
            expected_end_at=2e9,
        )
    ]
    answer = client.post("/api/v1/sessions", json=BODY | {"name": "s2", "profile": "talos"})
    assert (answer.status_code, answer.json()) == (
        400,
        {"error": "profile 'talos': the daemon's configuration has krios"},
    )


@pytest.mark.parametrize(
    ("method", "verb", "body", "asked"),
    [
        ("PATCH", "", {"threshold": None, "diameter_angstrom": 90.0}, ("set", "s1")),
        ("POST", "/rethreshold", {"threshold": 0.2}, ("rethreshold", "s1", 0.2)),
        ("POST", "/repick", {"which": "failed", "glob": "a*"}, ("repick", "s1", "failed", "a*")),
        ("POST", "/rebuild", None, ("rebuild", "s1")),
    ],
)
def test_verbs_with_a_body(local, control, method, verb, body, asked):
    local.post("/api/v1/sessions", json=BODY)
    answer = local.request(method, f"/api/v1/sessions/s1{verb}", json=body)
    assert answer.status_code == 200
    (call,) = control.asked
    assert call == (*asked, body) if verb == "" else call == asked
    assert local.request(method, f"/api/v1/sessions/s9{verb}", json=body).status_code == 404


@pytest.mark.parametrize(
    ("verb", "body", "sentence"),
    [
        ("/rethreshold", {"threshold": "0.2"}, "threshold: Input should be a valid number, not '0.2'"),
        ("/rethreshold", {"value": 1}, "value: no such field; allowed are threshold"),
        (
            "/repick",
            {"which": "some"},
            "which: Input should be 'recorded', 'failed' or 'outdated', not 'some'",
        ),
        ("/repick", {}, "which: Field required"),
    ],
)
def test_a_wrong_body_of_a_verb_is_400_and_one_sentence(local, control, verb, body, sentence):
    local.post("/api/v1/sessions", json=BODY)
    answer = local.post(f"/api/v1/sessions/s1{verb}", json=body)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]
    assert control.asked == []


def test_start_needs_a_diameter_only(local, control):
    assert local.post("/api/v1/sessions", json=BODY).status_code == 201
    assert control.requests[0].params == PickParams(150.0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"diameter_angstrom": None}, "diameter_angstrom: Input should be a valid number, not None"),
        ({"diameter_angstrom": "150"}, "diameter_angstrom: Input should be a valid number, not '150'"),
        ({"diameter_angstrom": True}, "diameter_angstrom: Input should be a valid number, not True"),
        ({"diameter_angstrom": 1}, "diameter 1.0 Å is not between 10 and 10000 Å"),
        ({"diametre": 1}, "diametre: no such field; allowed are name, watch_root"),
        ({"watch_root": "mics"}, "mics: not an absolute path"),
        ({"watch_root": "/a\x00b"}, "watch_root: "),
        ({"watch_root": ""}, "watch_root: "),
        ({"negative_stain": 1}, "negative_stain: Input should be a valid boolean, not 1"),
    ],
)
def test_a_wrong_body_is_400_and_one_sentence(local, control, change, sentence):
    answer = local.post("/api/v1/sessions", json=BODY | change)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(sentence)
    assert control.requests == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"diameter_angstrom": NaN}', b"\xff"])
def test_a_body_that_is_no_request_is_400(local, content):
    answer = local.post("/api/v1/sessions", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_a_name_in_use_is_409(local):
    local.post("/api/v1/sessions", json=BODY)
    answer = local.post("/api/v1/sessions", json=BODY)
    assert (answer.status_code, answer.json()) == (409, {"error": "session 's1' exists already"})


@pytest.mark.parametrize(
    ("verb", "state"),
    [("stop", "draining"), ("pause", "paused"), ("reopen", "waiting"), ("resume", "running")],
)
def test_verbs_change_the_state_and_return_the_session(local, control, verb, state):
    local.post("/api/v1/sessions", json=BODY)
    if verb == "resume":
        control.pause("s1")
    answer = local.post(f"/api/v1/sessions/s1/{verb}")
    assert (answer.status_code, answer.json()["state"]) == (200, state)
    assert control.views["s1"].state == state


def test_a_verb_that_the_state_forbids_is_409(local):
    local.post("/api/v1/sessions", json=BODY)
    answer = local.post("/api/v1/sessions/s1/resume")
    assert (answer.status_code, answer.json()) == (
        409,
        {"error": "session 's1' is waiting: only a paused one is resumed"},
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("GET", "/micrographs"), ("POST", "/stop"), ("POST", "/pause"), ("POST", "/reopen")],
)
def test_no_such_session_is_404(local, method, path):
    answer = local.request(method, f"/api/v1/sessions/s9{path}")
    assert (answer.status_code, answer.json()) == (404, {"error": "no session is named 's9'"})


def test_sessions_are_listed(local, remote):
    assert remote.get("/api/v1/sessions").json() == {"sessions": []}
    local.post("/api/v1/sessions", json=BODY)
    for client in (local, remote):
        (view,) = client.get("/api/v1/sessions").json()["sessions"]
        assert view == client.get("/api/v1/sessions/s1").json()
        assert view["params"]["diameter_angstrom"] == 150
        assert view["watch_root"] == "/data/mics"


def test_micrographs_by_state_each_once(local, control):
    local.post("/api/v1/sessions", json=BODY)
    broken = micrograph("b.mrc", "failed", "a stack")
    control.add(
        replace(
            control.views["s1"],
            waiting=(micrograph("w.mrc", "waiting", "have 3 of 9 bytes"),),
            ready=(micrograph("r.mrc", "ready"),),
            failed=(broken,),
            newest=(micrograph("a.mrc", "picked"), broken),
        )
    )

    def names(query: str) -> list[str]:
        answer = local.get(f"/api/v1/sessions/s1/micrographs{query}").json()
        return [one["name"] for one in answer["micrographs"]]

    assert names("") == ["w.mrc", "r.mrc", "b.mrc", "a.mrc"]
    assert names("?state=failed") == ["b.mrc"]
    assert names("?state=picked") == ["a.mrc"]
    assert names("?state=ready") == ["r.mrc"]
    answer = local.get("/api/v1/sessions/s1/micrographs?state=lost")
    assert answer.status_code == 400
    assert "'waiting', 'ready', 'picked' or 'failed', not 'lost'" in answer.json()["error"]


@pytest.mark.parametrize(("path", "attribute"), [("/livez", "live"), ("/readyz", "ready")])
def test_probes(remote, control, path, attribute):
    answer = remote.get(path)
    assert (answer.status_code, answer.json()) == (200, {"healthy": True, "reasons": [], "notes": []})
    setattr(control, attribute, Health((), ("one of two GPUs is away",)))
    answer = remote.get(path)
    assert (answer.status_code, answer.json()["notes"]) == (200, ["one of two GPUs is away"])
    setattr(control, attribute, Health(("no GPU yet", "the disk is full")))
    answer = remote.get(path)
    assert (answer.status_code, answer.json()) == (
        503,
        {"healthy": False, "reasons": ["no GPU yet", "the disk is full"], "notes": []},
    )


@pytest.mark.parametrize("accept", ["", "text/plain", "application/openmetrics-text; version=1.0.0"])
def test_metrics(remote, accept):
    answer = remote.get("/metrics", headers={"accept": accept})
    assert answer.status_code == 200
    assert "drpwatch_picks_total 7.0" in answer.text
    assert answer.headers["content-type"].startswith(accept.partition(";")[0] or "text/plain")


def test_the_index_names_every_route_and_only_those(local, remote):
    index = remote.get("/api/v1").json()
    assert (index["name"], index["version"]) == ("drpwatch", __version__)
    assert all(route.startswith("GET ") for route in index["routes"])
    assert "POST /api/v1/sessions/{name}/stop" in local.get("/api/v1").json()["routes"]


def test_tcp_cannot_change_anything(local, remote, control):
    local.post("/api/v1/sessions", json=BODY)
    before = dict(control.views)
    routes = [
        route.removeprefix("POST ") for route in local.get("/api/v1").json()["routes"] if route[:4] == "POST"
    ]
    assert len(routes) == 8
    assert "PATCH /api/v1/sessions/{name}" in local.get("/api/v1").json()["routes"]
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for path in (*routes, "/", "/metrics", "/api/v1/sessions/s1"):
            answer = remote.request(method, path.format(name="s1"), json=BODY | {"name": "s2"})
            assert answer.status_code in (404, 405), (method, path)
            assert "error" in answer.json()
    assert control.views == before


def test_the_schema_is_local_and_there_are_no_pages_from_a_cdn(local, remote):
    assert local.get("/api/v1/openapi.json").json()["info"]["version"] == __version__
    for client, path in ((remote, "/api/v1/openapi.json"), (local, "/docs"), (local, "/redoc")):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.json() == {"error": f"there is no GET {path}; GET /api/v1 lists what there is"}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.UsageError("x"), 400),
        (errors.WeightsError("x"), 400),
        (errors.OutputError("x"), 503),
        (errors.JournalError("x"), 503),
        (errors.DeviceNotReady("x"), 503),
    ],
)
def test_what_may_pass_is_503(local, control, monkeypatch, error, status):
    monkeypatch.setattr(control, "sessions", lambda: (_ for _ in ()).throw(error))
    answer = local.get("/api/v1/sessions")
    assert (answer.status_code, answer.json()) == (status, {"error": "x"})


def test_a_fault_of_ours_is_500_and_a_sentence(local, control, monkeypatch):
    monkeypatch.setattr(control, "sessions", lambda: 1 / 0)
    answer = local.get("/api/v1/sessions")
    assert answer.status_code == 500
    assert "unexpected ZeroDivisionError in the daemon: division by zero" in answer.json()["error"]


def test_changes_are_logged_with_what_was_asked(local):
    with structlog.testing.capture_logs() as entries:
        local.post("/api/v1/sessions", json=BODY)
        local.post("/api/v1/sessions/s1/resume")
        local.get("/api/v1/sessions")
    assert [(entry["event"], entry["verb"], entry["session"]) for entry in entries] == [
        ("session_changed", "start", "s1"),
        ("session_change_refused", "resume", "s1"),
    ]


def test_the_uid_of_the_caller_is_logged(control, tmp_path):
    with (
        serving(build_app(control, FakeMetrics(), writable=True), tmp_path / "s") as path,
        structlog.testing.capture_logs() as entries,
    ):
        ControlClient(path).start(BODY)
    assert [(entry["uid"], entry["pid"]) for entry in entries] == [(os.getuid(), os.getpid())]
