"""The HTTP API: `Control` in JSON. It decides nothing; it translates, and logs who changed what.

Two applications are built from the same routes: the one on the Unix socket has all verbs, the one on
TCP has no route that changes anything. Every error is `{"error": "one sentence"}`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from drpwatch import __version__
from drpwatch.errors import DeviceError, DrpwatchError, JournalError, OutputError, SessionError
from drpwatch.micrograph import PickParams
from drpwatch.service.control import DEFAULT_GLOB, Control, Health, SessionRequest, SessionView

log = structlog.get_logger(__name__)

API = "/api/v1"
ServedPath = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")]
MicrographState = Literal["waiting", "ready", "picked", "failed"]


_PARAMS = {field.name for field in fields(PickParams)}


class MetricsSource(Protocol):
    """What `/metrics` needs of the metrics."""

    @property
    def registry(self) -> CollectorRegistry:
        """The registry that is written out."""
        ...


class StartSession(BaseModel):
    """The body of `POST /api/v1/sessions`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str
    watch_root: ServedPath
    diameter_angstrom: float
    pixel_size_angstrom: float | None = None
    negative_stain: bool = False
    threshold: float | None = None
    model: ServedPath | None = None
    out_dir: ServedPath | None = None
    glob: ServedPath = DEFAULT_GLOB
    micrograph_prefix: str = ""

    def request(self) -> SessionRequest:
        """Return it as `Control` takes it.

        Raises
        ------
        UsageError
            A parameter is out of its range.
        """
        return SessionRequest(
            name=self.name,
            watch_root=Path(self.watch_root),
            out_dir=None if self.out_dir is None else Path(self.out_dir),
            glob=self.glob,
            micrograph_prefix=self.micrograph_prefix,
            # What is left out keeps the default of PickParams.
            params=PickParams(**self.model_dump(include=_PARAMS, exclude_none=True)),
        )


def build_app(control: Control, metrics: MetricsSource, *, writable: bool) -> FastAPI:
    """Build the application: with every verb where `writable`, else without a route that changes anything.

    The documentation pages of FastAPI are left out, because they load scripts from the Internet; the
    schema itself is at /api/v1/openapi.json of the writable application.
    """
    app = FastAPI(
        title="drpwatch",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{API}/openapi.json" if writable else None,
    )
    _add_probes(app, control, metrics)
    _add_reads(app, control)
    if writable:
        _add_verbs(app, control)
    _add_index(app)
    _add_error_answers(app, control)
    return app


def _add_probes(app: FastAPI, control: Control, metrics: MetricsSource) -> None:
    @app.get("/livez", summary="Is a restart needed?")
    def livez() -> JSONResponse:
        return _answer_probe(control.liveness())

    @app.get("/readyz", summary="Are micrographs being picked and recorded?")
    def readyz() -> JSONResponse:
        return _answer_probe(control.readiness())

    @app.get("/metrics", summary="Metrics for Prometheus")
    def metrics_page(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(metrics.registry), headers={"content-type": content_type})


def _answer_probe(health: Health) -> JSONResponse:
    body = {"healthy": health.healthy, "reasons": list(health.reasons)}
    return JSONResponse(body, status_code=200 if health.healthy else 503)


def _add_reads(app: FastAPI, control: Control) -> None:
    @app.get(f"{API}/sessions", summary="All sessions, newest first")
    def sessions() -> JSONResponse:
        return JSONResponse({"sessions": [view.as_dict() for view in control.sessions()]})

    @app.get(f"{API}/sessions/{{name}}", summary="One session")
    def session(name: str) -> JSONResponse:
        return JSONResponse(control.session(name).as_dict())

    @app.get(f"{API}/sessions/{{name}}/micrographs", summary="Its micrographs, the newest of each state")
    def micrographs(name: str, state: MicrographState | None = None) -> JSONResponse:
        view = control.session(name)
        # A micrograph that failed just now is in `failed` and in `newest`.
        by_name = {one.name: one for one in (*view.waiting, *view.ready, *view.failed, *view.newest)}
        chosen = [asdict(one) for one in by_name.values() if state is None or one.state == state]
        return JSONResponse({"micrographs": chosen})


def _add_verbs(app: FastAPI, control: Control) -> None:
    def change(request: Request, verb: str, name: str, act: Callable[[], SessionView]) -> SessionView:
        """Do it, and log who asked for it, refusals included."""
        peer = getattr(request.state, "peer", None)
        told = log.bind(verb=verb, session=name, uid=peer and peer.uid, pid=peer and peer.pid)
        try:
            view = act()
        except DrpwatchError as error:
            told.warning("session_change_refused", reason=str(error))
            raise
        told.info("session_changed", state=view.state)
        return view

    @app.post(f"{API}/sessions", status_code=201, summary="Start a session")
    def start(request: Request, body: StartSession) -> JSONResponse:
        view = change(request, "start", body.name, lambda: control.start_session(body.request()))
        return JSONResponse(view.as_dict(), status_code=201)

    verbs: dict[str, Callable[[str], SessionView]] = {
        "stop": control.stop_session,
        "pause": control.pause,
        "resume": control.resume,
        "reopen": control.reopen,
    }

    def add(verb: str, act: Callable[[str], SessionView]) -> None:
        @app.post(f"{API}/sessions/{{name}}/{verb}", name=verb, summary=f"{verb.capitalize()} a session")
        def answer(request: Request, name: str) -> JSONResponse:
            return JSONResponse(change(request, verb, name, lambda: act(name)).as_dict())

    for verb, act in verbs.items():
        add(verb, act)


def _add_index(app: FastAPI) -> None:
    routes = [
        f"{method} {getattr(route, 'path', '')}"
        for route in app.routes
        for method in sorted(getattr(route, "methods", None) or ())
        if method != "HEAD"
    ]

    @app.get("/", summary="What there is")
    def index() -> JSONResponse:
        return JSONResponse({"name": "drpwatch", "version": __version__, "routes": routes})


def _add_error_answers(app: FastAPI, control: Control) -> None:
    @app.exception_handler(DrpwatchError)
    def refused(request: Request, error: DrpwatchError) -> JSONResponse:
        return _error(_status(error, request.path_params.get("name"), control), str(error))

    @app.exception_handler(RequestValidationError)
    def unusable(request: Request, error: RequestValidationError) -> JSONResponse:
        return _error(400, "; ".join(_explain(problem) for problem in error.errors()))

    @app.exception_handler(HTTPException)
    def unknown(request: Request, error: HTTPException) -> JSONResponse:
        what = {404: "there is no", 405: "not allowed here:"}.get(error.status_code, f"{error.detail}:")
        sentence = f"{what} {request.method} {request.url.path}; GET / lists what there is"
        return JSONResponse({"error": sentence}, status_code=error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    def broken(request: Request, error: Exception) -> JSONResponse:
        # uvicorn logs the traceback: starlette raises the error again after this answer.
        return _error(
            500, f"unexpected {type(error).__name__} in the daemon: {error}; its log has the traceback"
        )


def _error(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"error": sentence}, status_code=status)


def _status(error: DrpwatchError, name: str | None, control: Control) -> int:
    """Return 404 for a session that is not there, 409 for its state, 503 for what may pass, else 400."""
    if isinstance(error, SessionError):
        missing = name is not None and all(view.name != name for view in control.sessions())
        return 404 if missing else 409
    return 503 if isinstance(error, DeviceError | OutputError | JournalError) else 400


def _explain(problem: dict[str, Any]) -> str:
    """Return one problem of a request as a sentence."""
    where = ".".join(str(part) for part in problem["loc"][1:]) or str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        return f"{where}: no such field; allowed are {', '.join(StartSession.model_fields)}"
    if problem["type"] in ("missing", "json_invalid"):
        return f"{where}: {problem['msg']}"
    return f"{where}: {problem['msg']}, not {problem['input']!r}"
