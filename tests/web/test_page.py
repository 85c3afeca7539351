"""What the page is served: itself, with the headers that keep it safe, and the answers to its questions."""

import re
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from drpwatch.micrograph import Pictures
from drpwatch.service.api import build_app
from drpwatch.session.statistics import Statistics
from drpwatch.session.thumbnails import Thumbnails
from drpwatch.web import page as module
from drpwatch.web.events import Events
from drpwatch.web.page import Page
from tests.service.fakes import FakeControl, FakeMetrics
from tests.session.bench import Bench

STATIC = Path(module.__file__).parent / "static"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    for name, version in (("G1/a.mrc", 1), ("G1/empty.mrc", 4), ("G2/b.mrc", 2), ("G2/junk.mrc", 6)):
        made.appear(name, version)
    while (ready := made.take()) is not None:
        made.record(ready)
    grey = np.full((80, 96), 7, np.uint8)
    Thumbnails(tmp_path / "out", 10, 10**9).write("G1/a.mrc", Pictures(grey, grey))
    return made


def client(bench: Bench, *, writable: bool = False) -> TestClient:
    page = Page(Statistics(bench.journal.path), Events(), lambda: bench.now)
    app = build_app(FakeControl(), FakeMetrics(), writable=writable, page=page)
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture
def remote(bench: Bench) -> TestClient:
    return client(bench)


def micrographs(remote: TestClient, query: str = "") -> list[dict]:
    return remote.get(f"/api/v1/sessions/s1/gallery?{query}").json()["micrographs"]


def test_the_page_loads_nothing_from_elsewhere_and_may_not(remote: TestClient) -> None:
    answer = remote.get("/")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    for path in re.findall(r'(?:href|src)="([^"#]+)"', answer.text):
        file = remote.get(f"/{path}")
        assert file.status_code == 200, path
        assert file.headers["content-security-policy"] == policy
        assert file.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=", answer.text)


def test_no_file_asks_for_another_host() -> None:
    for file in [*STATIC.glob("*.js"), *STATIC.glob("*.css"), STATIC / "index.html"]:
        hosts = set(re.findall(r"https?://[^\s\"'<>)]+", file.read_text()))
        assert hosts <= {"http://www.w3.org/2000/svg"}, file


def test_what_is_vendored_has_its_licence() -> None:
    for folder in (STATIC / "vendor").iterdir():
        assert (folder / "LICENSE").is_file()


@pytest.mark.parametrize("path", ["/static/../page.py", "/static/%2e%2e/page.py", "/static/none.js"])
def test_other_files_are_not_served(remote: TestClient, path: str) -> None:
    answer = remote.get(path)
    assert answer.status_code == 404
    assert "error" in answer.json()


def test_the_socket_answers_the_same_questions_and_has_no_page(bench: Bench) -> None:
    local = client(bench, writable=True)
    assert local.get("/api/v1/sessions/s1/gallery").status_code == 200
    assert local.get("/").status_code == 404


def test_a_list_has_the_picks_of_each(remote: TestClient, bench: Bench) -> None:
    answer = remote.get("/api/v1/sessions/s1/gallery").json()
    assert answer["counts"] == {"all": 4, "picked": 2, "empty": 1, "failed": 1}
    for one in answer["micrographs"]:
        assert len(one["circles"]) == 3 * (one["n_picks"] or 0)
        assert one["pictures"] == (one["name"] == "G1/a.mrc")
        assert one["failed"] == (one["reason"] is not None)
    (one,) = (one for one in answer["micrographs"] if one["name"] == "G1/a.mrc")
    ((_, found),) = Statistics(bench.journal.path).candidates([one["id"]])
    x, y, per_mille = one["circles"][:3]
    assert (y, x) == tuple(np.rint(found[0, :2]))
    assert per_mille == int(found[0, 2] * 1000)


@pytest.mark.parametrize(("show", "count"), [("all", 4), ("picked", 2), ("empty", 1), ("failed", 1)])
def test_lists_are_filtered(remote: TestClient, show: str, count: int) -> None:
    assert len(micrographs(remote, f"show={show}")) == count


def test_lists_have_pages(remote: TestClient) -> None:
    everything = micrographs(remote)
    first = micrographs(remote, "limit=3")
    second = micrographs(remote, f"limit=3&before={first[-1]['seq']}")
    assert [*first, *second] == everything


def test_one_has_all_candidates_and_its_neighbours(remote: TestClient) -> None:
    everything = micrographs(remote)
    for place, one in enumerate(everything):
        whole = remote.get(f"/api/v1/sessions/s1/gallery/{one['id']}").json()
        assert len(whole["circles"]) == 3 * (one["n_candidates"] or 0)
        assert whole["newer_id"] == (everything[place - 1]["id"] if place else None)
        assert whole["older_id"] == (everything[place + 1]["id"] if place + 1 < len(everything) else None)


def test_pictures_are_jpeg(remote: TestClient) -> None:
    (one,) = (one for one in micrographs(remote) if one["pictures"])
    for view in ("small", "large", "spectrum"):
        answer = remote.get(f"/api/v1/sessions/s1/gallery/{one['id']}/{view}")
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.content.startswith(b"\xff\xd8")


def test_figures(remote: TestClient) -> None:
    series = remote.get("/api/v1/sessions/s1/series").json()
    assert len({len(values) for values in series.values() if isinstance(values, list)}) == 1
    groups = remote.get("/api/v1/sessions/s1/map").json()["groups"]
    assert {group["name"] for group in groups} == {"G1", "G2"}
    scores = remote.get("/api/v1/sessions/s1/scores").json()
    assert scores["in_force"] == 0.5
    picks = sum(one["n_picks"] or 0 for one in micrographs(remote))
    assert scores["picks"][scores["threshold"].index(0.5)] == picks


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("s2/gallery", 404),
        ("s2/series", 404),
        ("%00/map", 404),
        ("s1/gallery?limit=0", 400),
        ("s1/gallery?limit=101", 400),
        ("s1/gallery?show=none", 400),
        ("s1/gallery?before=-1", 400),
        ("s1/gallery?before=99999999999999999999999", 400),
        ("s1/gallery/0", 400),
        ("s1/gallery/x", 400),
        ("s1/gallery/99999999999999999999999", 400),
        ("s1/gallery/999", 404),
        ("s1/gallery/999/small", 404),
        ("s1/gallery/1/huge", 400),
        ("s1/gallery/2/small", 404),
        ("s1/gallery/..%2f..%2fetc/small", 404),
    ],
)
def test_what_is_not_there_is_a_sentence(remote: TestClient, path: str, status: int) -> None:
    answer = remote.get(f"/api/v1/sessions/{path}")
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}


@pytest.mark.parametrize(
    "path", ["/", "/static/app.js", "/api/v1/events", "/api/v1/sessions/s1/gallery/1/small"]
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_takes_anything_but_questions(remote: TestClient, path: str, method: str) -> None:
    assert remote.request(method, path, json={}).status_code == 405
