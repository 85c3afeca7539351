"""What callers of the HTTP API cannot do: change anything by TCP, break it, or make it read on and on."""

import http.client
import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from drpwatch.service.api import build_app
from drpwatch.service.control import Control
from drpwatch.service.guards import MOST_BODY_BYTES, is_local_name, is_loopback
from drpwatch.service.peer import MOST_CONNECTIONS
from drpwatch.session.statistics import Statistics
from drpwatch.web.events import Events
from drpwatch.web.page import Page
from tests.service.fakes import FakeControl, FakeMetrics, micrograph
from tests.service.serving import serving
from tests.session.bench import Bench
from tests.support import PATIENCE, eventually

BODY = {"name": "s1", "watch_root": "/data/mics", "diameter_angstrom": 150}
READS = {"sessions", "session", "micrographs", "daemon", "liveness", "readiness"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "ANYTHING")


class Witness(FakeControl):
    """Notes which methods of `Control` are called."""

    def __init__(self) -> None:
        super().__init__()
        self.called: set[str] = set()

    def __getattribute__(self, name: str):
        value = super().__getattribute__(name)
        if name not in vars(Control) or name.startswith("_"):
            return value

        def noted(*arguments):
            self.called.add(name)
            return value(*arguments)

        return noted


@pytest.fixture
def control() -> Witness:
    control = Witness()
    TestClient(build_app(control, FakeMetrics(), writable=True)).post("/api/v1/sessions", json=BODY)
    control.called.clear()
    return control


def remote_app(control, page=None):
    return build_app(control, FakeMetrics(), writable=False, page=page)


def routes_of(app):
    """Return every route of an application, those of the routers that it includes among them."""
    for route in app.routes:
        included = getattr(route, "original_router", None)
        yield from (route,) if included is None else included.routes


@pytest.fixture
def page(tmp_path) -> Page:
    """The page, its streams of events at their end."""
    events = Events()
    events.close()
    return Page(Statistics(Bench(tmp_path).journal.path), events, lambda: 0.0)


def local_app(control):
    return build_app(control, FakeMetrics(), writable=True)


# ---- TCP ----------------------------------------------------------------------------------------


def test_every_route_on_tcp_reads_whatever_the_method(control, page):
    """The routes are those that the application has, so one that is added later is tried too."""
    app = remote_app(control, page)
    client = TestClient(app, raise_server_exceptions=False)
    paths = {route.path for route in routes_of(app)}
    assert len(paths) >= 10
    for path in sorted(paths | {route.path for route in routes_of(local_app(control))}):
        place = path.format(name="s1", micrograph_id=1, view="small")
        for method in METHODS:
            answer = client.request(method, place, json=BODY | {"name": "s2"})
            allowed = method in ("GET", "HEAD") and path in paths
            assert answer.status_code < 500, (method, path)
            assert allowed or answer.status_code in (404, 405), (method, path)
    assert control.called <= READS
    assert "sessions" in control.called
    assert set(control.views) == {"s1"}


def test_nothing_on_tcp_is_made_for_another_method_than_reading(control, page):
    for route in routes_of(remote_app(control, page)):
        if isinstance(route, Mount):
            assert isinstance(route.app, StaticFiles), route  # these read, and refuse other methods
            continue
        # A websocket or another application would have to be looked at here.
        assert hasattr(route, "methods"), f"{route} is of a new kind: make sure that it changes nothing"
        assert route.methods <= {"GET", "HEAD"}, route


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"])
def test_no_header_makes_another_method_of_a_get(control, header):
    client = TestClient(remote_app(control), raise_server_exceptions=False)
    client.get("/api/v1/sessions/s1", headers={header: "POST"})
    assert control.called <= READS


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9478", 200),
        ("localhost:9478", 200),
        ("LOCALHOST.", 200),
        ("[::1]:9478", 200),
        ("[::1]", 200),
        ("10.0.0.7", 200),  # by a tunnel; an address is not a name that somebody else can point here
        ("evil.example", 421),
        ("evil.example:9478", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("", 421),
    ],
)
def test_a_page_from_the_internet_cannot_be_this_machine(control, host, status):
    app = build_app(control, FakeMetrics(), writable=False, local_names_only=True)
    answer = TestClient(app).get("/api/v1/sessions", headers={"host": host})
    assert answer.status_code == status
    assert ("error" in answer.json()) == (status != 200)
    assert is_local_name(host) == (status == 200)
    assert "access-control-allow-origin" not in answer.headers


def test_only_the_loopback_interface_asks_for_local_names():
    assert [is_loopback(one) for one in ("127.0.0.1", "127.8.8.8", "::1")] == [True] * 3
    assert [is_loopback(one) for one in ("0.0.0.0", "::", "10.0.0.7")] == [False] * 3


def test_no_number_of_connections_takes_all_files_of_the_daemon(control, tmp_path):
    with serving(remote_app(control), tmp_path / "s") as path:
        held = []
        for _ in range(MOST_CONNECTIONS + 50):
            held.append(socket.socket(socket.AF_UNIX))
            held[-1].settimeout(PATIENCE * 10)
            held[-1].connect(str(path))
        assert all(hung_up(one) for one in held[MOST_CONNECTIONS:])
        for one in held:
            one.close()
        eventually(lambda: answers(path), 5, "it answers again")


def hung_up(one: socket.socket) -> bool:
    """Tell whether the server closes a connection that it had accepted."""
    try:
        return one.recv(1) == b""
    except ConnectionResetError:
        return True


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(PATIENCE * 5)
        try:
            one.connect(str(path))
            one.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            return one.recv(12) == b"HTTP/1.1 200"
        except OSError:
            return False


# ---- whatever is sent ---------------------------------------------------------------------------

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


def populated() -> FakeControl:
    """Return a control that has a session s1 with micrographs."""
    control = FakeControl()
    TestClient(local_app(control)).post("/api/v1/sessions", json=BODY)
    failed, picked = micrograph("a\x1b.mrc", "failed", "why"), micrograph("b.mrc", "picked")
    control.add(replace(control.views["s1"], failed=(failed,), newest=(failed, picked)))
    return control


def schema_of(app):
    schema = schemathesis.openapi.from_dict(app.openapi())
    schema.app = app
    return schema


def check(case, session) -> None:
    """Send what schemathesis made, half of the time to the session that there is."""
    if case.path_parameters and len(str(case.path_parameters["name"])) % 2:
        case.path_parameters["name"] = session
    case.call_and_validate(checks=CHECKS)


there_is = pytest.mark.parametrize("session", ["s1"])
"""With a parameter the test of each operation has an id of its own."""
quick = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))


@schema_of(local_app(populated())).parametrize()
@there_is
@quick
def test_whatever_the_socket_is_sent_it_answers_as_its_schema_says(case, session):
    check(case, session)


@schema_of(remote_app(populated())).parametrize()
@there_is
@quick
def test_whatever_the_tcp_port_is_sent_it_answers_as_its_schema_says(case, session):
    check(case, session)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b'{"name": "' + b"x" * MOST_BODY_BYTES + b'"}', 413),
        (b"[" * 100_000, 400),
        (b'{"a":' * 100_000, 400),
        (b'{"name": "s2", "watch_root": "/d", "diameter_angstrom": 1' + b"0" * 5000 + b"}", 400),
        (b'{"name": "s2", "watch_root": "/d", "diameter_angstrom": 1' + b"0" * 400 + b"}", 400),
        (b'{"name": "s2", "watch_root": "/d", "diameter_angstrom": NaN}', 400),
        (b'{"name": "s2", "watch_root": "/d", "diameter_angstrom": 150, "threshold": -Infinity}', 400),
        (b'{"name": "s2", "watch_root": "\\ud800", "diameter_angstrom": 150}', 400),
        (b'{"name": "s2", "watch_root": "/d", "diameter_angstrom": 150, "\\ud800\\u001b[2J": 1}', 400),
        (b'{"name": "s2", "watch_root": "/d", "diameter_angstrom": 150, "profile": "\\ud800"}', 400),
        (b'{"name": "s2", "name": "../x", "watch_root": "/d\\u0000", "diameter_angstrom": 150}', 400),
        (b"\xff\xfe{}", 400),
        (b"", 400),
    ],
)
def test_bodies_that_mean_harm_are_refused_in_one_short_sentence(control, content, status):
    client = TestClient(local_app(control), raise_server_exceptions=False)
    answer = client.post("/api/v1/sessions", content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert answer.json()["error"].isprintable()
    assert len(answer.json()["error"]) < 1000
    assert set(control.views) == {"s1"}


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_a_body_of_another_content_type_starts_nothing(control, kind):
    """What a form of a page could send; it cannot reach the socket, but so it could do nothing there."""
    client = TestClient(local_app(control), raise_server_exceptions=False)
    content = json.dumps(BODY | {"name": "s2"}).encode()
    answer = client.post("/api/v1/sessions", content=content, headers={"content-type": kind})
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert set(control.views) == {"s1"}


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("x", timeout=20)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


@pytest.mark.parametrize("chunked", [False, True])
def test_a_huge_body_is_not_read_to_its_end(control, tmp_path, chunked):
    """The server refuses or hangs up long before a gigabyte; what it had read is no more than the limit."""
    sent = 0

    def endless():
        nonlocal sent
        for _ in range(1024):
            sent += 1 << 20
            yield b" " * (1 << 20)

    headers = {"content-type": "application/json"}
    if not chunked:
        headers["content-length"] = str(1 << 30)
    with serving(local_app(control), tmp_path / "s") as path:
        connection = _Connection(path)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            connection.request("POST", "/api/v1/sessions", endless(), headers, encode_chunked=chunked)
        connection.close()
        assert sent < 64 << 20
        assert answers(path)


@pytest.mark.parametrize(
    "start",
    [
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 50_000 + b"\r\n",
        b"POST /api/v1/sessions HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
    ],
)
def test_what_is_no_request_is_refused_and_the_next_one_answered(control, tmp_path, start):
    with serving(local_app(control), tmp_path / "s") as path:
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(PATIENCE * 10)
            one.connect(str(path))
            try:
                one.sendall(start)
                assert one.recv(10) == b"HTTP/1.1 4"
            except (BrokenPipeError, ConnectionResetError):
                pass
        assert answers(path)
