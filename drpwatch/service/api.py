"""The HTTP API: `Control` in JSON. It decides nothing; it translates, and logs who changed what.

Two applications are built from the same routes: the one on the Unix socket has all verbs, the one on
TCP has no route that changes anything. Every error is `{"error": "one sentence"}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Annotated, Any, Literal, Protocol, TypeVar, get_args

import structlog
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.exceptions import HTTPException

from drpwatch import __version__
from drpwatch.config import Profile
from drpwatch.errors import DeviceError, DrpwatchError, JournalError, OutputError, SessionError
from drpwatch.service import answers
from drpwatch.service.bodies import Body, Repick, Rethreshold, SetSession, StartSession
from drpwatch.service.control import Control, DaemonView, Health, Repicked, SessionView
from drpwatch.service.guards import BodyLimit, LocalNames
from drpwatch.text import printable, shown
from drpwatch.web.page import Page

log = structlog.get_logger(__name__)

API = "/api/v1"
Answer = TypeVar("Answer")
_MOST_LISTED = 100_000
MicrographState = Literal["waiting", "ready", "picked", "failed"]
_METRICS_TYPES: dict[str, Any] = {"text/plain": {}, "application/openmetrics-text": {}}
_BODIES: dict[str, type[Body]] = {
    "/sessions": StartSession,
    "/sessions/{name}": SetSession,
    "/sessions/{name}/rethreshold": Rethreshold,
    "/sessions/{name}/repick": Repick,
}


class MetricsSource(Protocol):
    """What `/metrics` needs of the metrics."""

    @property
    def registry(self) -> CollectorRegistry:
        """The registry that is written out."""
        ...


def build_app(
    control: Control,
    metrics: MetricsSource,
    *,
    writable: bool,
    profiles: Mapping[str, Profile] = MappingProxyType({}),
    local_names_only: bool = False,
    page: Page | None = None,
    report: Callable[[str], bytes] | None = None,
) -> FastAPI:
    """Build the application: with every verb where `writable`, else without a route that changes anything.

    The page itself is for browsers, which come by TCP; what it asks for is to be had from both. A report reads
    micrographs, so it is for those who may steer the daemon.

    The documentation pages of FastAPI are left out, because they load scripts from the Internet; the
    schema itself is at /api/v1/openapi.json of the writable application. With `local_names_only` a request
    must name this machine by an address or as localhost.
    """
    app = FastAPI(
        title="drpwatch",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{API}/openapi.json" if writable else None,
        responses={"4XX": {"model": answers.Refusal}, "5XX": {"model": answers.Refusal}},
    )
    app.add_middleware(BodyLimit)
    if local_names_only:
        app.add_middleware(LocalNames)
    _add_probes(app, control, metrics)
    _add_reads(app, control)
    if writable:
        _add_verbs(app, control, profiles)
        if report is not None:
            _add_report(app, report)
    if page is not None:
        page.add_answers(app, API)
        if not writable:
            page.add_files(app)
    _add_index(app)
    _add_error_answers(app, control)
    return app


def _add_probes(app: FastAPI, control: Control, metrics: MetricsSource) -> None:
    unwell: dict[int | str, dict[str, Any]] = {503: {"model": answers.Wellness}}

    @app.get("/livez", summary="Is a restart needed?", response_model=answers.Wellness, responses=unwell)
    def livez() -> JSONResponse:
        return _answer_probe(control.liveness())

    @app.get(
        "/readyz",
        summary="Are micrographs being picked and recorded?",
        response_model=answers.Wellness,
        responses=unwell,
    )
    def readyz() -> JSONResponse:
        return _answer_probe(control.readiness())

    @app.get("/metrics", summary="Metrics for Prometheus", responses={200: {"content": _METRICS_TYPES}})
    def metrics_page(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(metrics.registry), headers={"content-type": content_type})


def _answer_probe(health: Health) -> JSONResponse:
    body = answers.Wellness(health.healthy, health.reasons, health.notes)
    return JSONResponse(asdict(body), status_code=200 if health.healthy else 503)


def _add_reads(app: FastAPI, control: Control) -> None:
    @app.get(f"{API}/daemon", summary="The daemon itself", response_model=DaemonView)
    def daemon() -> JSONResponse:
        return JSONResponse(asdict(control.daemon()))

    @app.get(f"{API}/sessions", summary="All sessions, newest first", response_model=answers.Sessions)
    def sessions() -> JSONResponse:
        return JSONResponse({"sessions": [view.as_dict() for view in control.sessions()]})

    @app.get(f"{API}/sessions/{{name}}", summary="One session", response_model=SessionView)
    def session(name: str) -> JSONResponse:
        return JSONResponse(control.session(name).as_dict())

    @app.get(
        f"{API}/sessions/{{name}}/micrographs",
        summary="Its micrographs, the last recorded first",
        response_model=answers.Micrographs,
    )
    def micrographs(
        name: str,
        state: MicrographState | None = None,
        limit: Annotated[int, Query(ge=1, le=_MOST_LISTED)] = 200,
    ) -> JSONResponse:
        states = get_args(MicrographState) if state is None else (state,)
        listed = control.micrographs(name, states, limit)
        return JSONResponse({"micrographs": [asdict(one) for one in listed]})


def _add_verbs(app: FastAPI, control: Control, profiles: Mapping[str, Profile]) -> None:
    def change(request: Request, verb: str, name: str, act: Callable[[], Answer], **values: Any) -> Answer:
        """Do it, and log who asked for it, and with which values, refusals included."""
        peer = getattr(request.state, "peer", None)
        told = log.bind(verb=verb, session=name, uid=peer and peer.uid, pid=peer and peer.pid, **values)
        try:
            answer = act()
        except DrpwatchError as error:
            told.warning("session_change_refused", reason=str(error))
            raise
        told.info("session_changed")
        return answer

    @app.post(f"{API}/sessions", status_code=201, summary="Start a session", response_model=SessionView)
    def start(request: Request, body: StartSession) -> JSONResponse:
        view = change(request, "start", body.name, lambda: control.start_session(body.request(profiles)))
        return JSONResponse(view.as_dict(), status_code=201)

    verbs: dict[str, Callable[[str], SessionView]] = {
        "stop": control.stop_session,
        "pause": control.pause,
        "resume": control.resume,
        "reopen": control.reopen,
        "rebuild": control.rebuild,
    }

    def add(verb: str, act: Callable[[str], SessionView]) -> None:
        @app.post(
            f"{API}/sessions/{{name}}/{verb}",
            name=verb,
            summary=f"{verb.capitalize()} a session",
            response_model=SessionView,
        )
        def answer(request: Request, name: str) -> JSONResponse:
            return JSONResponse(change(request, verb, name, lambda: act(name)).as_dict())

    for verb, act in verbs.items():
        add(verb, act)
    _add_changes(app, control, change)


def _add_report(app: FastAPI, report: Callable[[str], bytes]) -> None:
    @app.get(
        f"{API}/sessions/{{name}}/report", summary="A report, as one HTML file", response_class=HTMLResponse
    )
    def of_session(name: str) -> HTMLResponse:
        return HTMLResponse(report(name))


def _add_changes(app: FastAPI, control: Control, change: Callable[..., Any]) -> None:
    """Add the verbs that have a body."""

    @app.patch(
        f"{API}/sessions/{{name}}", summary="Change the parameters of a session", response_model=SessionView
    )
    def set_session(request: Request, name: str, body: SetSession) -> JSONResponse:
        given = body.changes()
        view = change(request, "set", name, lambda: control.set_session(name, given), values=given)
        return JSONResponse(view.as_dict())

    @app.post(
        f"{API}/sessions/{{name}}/rethreshold",
        summary="Cut what is recorded at another threshold",
        response_model=SessionView,
    )
    def rethreshold(request: Request, name: str, body: Rethreshold) -> JSONResponse:
        threshold = body.threshold
        view = change(
            request, "rethreshold", name, lambda: control.rethreshold(name, threshold), threshold=threshold
        )
        return JSONResponse(view.as_dict())

    @app.post(
        f"{API}/sessions/{{name}}/repick",
        summary="Pick recorded micrographs again",
        response_model=Repicked,
    )
    def repick(request: Request, name: str, body: Repick) -> JSONResponse:
        which, glob = body.which, body.glob
        answer = change(
            request, "repick", name, lambda: control.repick(name, which, glob), which=which, glob=glob
        )
        return JSONResponse(answer.as_dict())


def _add_index(app: FastAPI) -> None:
    routes = [
        f"{method} {getattr(route, 'path', '')}"
        for route in app.routes
        for method in sorted(getattr(route, "methods", None) or ())
        if method != "HEAD"
    ]

    @app.get(API, summary="What there is", response_model=answers.Index)
    def index() -> JSONResponse:
        return JSONResponse({"name": "drpwatch", "version": __version__, "routes": routes})


def _add_error_answers(app: FastAPI, control: Control) -> None:
    @app.exception_handler(DrpwatchError)
    def refused(request: Request, error: DrpwatchError) -> JSONResponse:
        return _error(_status(error, request.path_params.get("name"), control), str(error))

    @app.exception_handler(RequestValidationError)
    def unusable(request: Request, error: RequestValidationError) -> JSONResponse:
        body = _BODIES.get(getattr(request.scope.get("route"), "path", "").removeprefix(API))
        return _error(400, "; ".join(_explain(problem, body) for problem in error.errors()))

    @app.exception_handler(HTTPException)
    def unknown(request: Request, error: HTTPException) -> JSONResponse:
        what = {404: "there is no", 405: "not allowed here:"}.get(error.status_code, f"{error.detail}:")
        sentence = f"{what} {request.method} {request.url.path}; GET {API} lists what there is"
        return _error(error.status_code, sentence, error.headers)

    @app.exception_handler(Exception)
    def broken(request: Request, error: Exception) -> JSONResponse:
        # uvicorn logs the traceback: starlette raises the error again after this answer.
        return _error(
            500, f"unexpected {type(error).__name__} in the daemon: {error}; its log has the traceback"
        )


def _error(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return a refusal; what a request had that cannot be sent, such as half a surrogate pair, is written out."""
    return JSONResponse(asdict(answers.Refusal(printable(sentence))), status_code=status, headers=headers)


def _status(error: DrpwatchError, name: str | None, control: Control) -> int:
    """Return 404 for a session that is not there, 409 for its state, 503 for what may pass, else 400."""
    if isinstance(error, SessionError):
        missing = name is not None and all(view.name != name for view in control.sessions())
        return 404 if missing else 409
    return 503 if isinstance(error, DeviceError | OutputError | JournalError) else 400


def _explain(problem: dict[str, Any], body: type[Body] | None) -> str:
    """Return one problem of a request as a sentence."""
    where = ".".join(str(part) for part in problem["loc"][1:]) or str(problem["loc"][0])
    if problem["type"] == "extra_forbidden" and body is not None:
        return f"{where}: no such field; allowed are {', '.join(body.model_fields)}"
    if problem["type"] in ("missing", "json_invalid"):
        return f"{where}: {problem['msg']}"
    return f"{where}: {problem['msg']}, not {shown(problem['input'])}"
