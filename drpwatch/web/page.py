"""The page of one daemon: its files, what it asks for, and the stream of events. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, FastAPI, Header, HTTPException, Query, Response
from fastapi import Path as InPath
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

from drpwatch.session.scores import Scores
from drpwatch.session.series import groups, series
from drpwatch.session.statistics import Show, Statistics
from drpwatch.session.thumbnails import Thumbnails, View
from drpwatch.web import answers
from drpwatch.web.events import Events

_FILES = Path(__file__).parent / "static"
_SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # asked each time, and answered by 304: an upgrade shows at once
}
_READERS = 4  # threads that read pictures: where their disk hangs, all other answers go on
_MOST_LISTED = 100

MicrographId = Annotated[int, InPath(ge=1, le=2**62)]
Place = Annotated[int | None, Query(ge=0, le=2**62)]


class Page:
    """What a browser is served.

    Parameters
    ----------
    now
        The wall clock, unix seconds.
    """

    def __init__(self, statistics: Statistics, events: Events, now: Callable[[], float]) -> None:
        self._statistics = statistics
        self._scores = Scores(statistics)
        self._events = events
        self._now = now
        self._disk = CapacityLimiter(_READERS)

    def add_answers(self, app: FastAPI, prefix: str) -> None:
        """Add what the page asks for, below the prefix of the API."""
        router = APIRouter(prefix=prefix)
        self._add_gallery(router)
        self._add_figures(router)
        self._add_events(router)
        app.include_router(router)

    def add_files(self, app: FastAPI) -> None:
        """Add the page itself."""

        @app.get("/", summary="The page", include_in_schema=False)
        def index() -> FileResponse:
            return FileResponse(_FILES / "index.html", headers=_SECURITY)

        app.mount("/static", _Files(directory=_FILES))

    def _add_gallery(self, router: APIRouter) -> None:
        @router.get("/sessions/{name}/gallery", summary="Recorded micrographs with their picks, newest first")
        async def gallery(
            name: str,
            show: Show = Show.ALL,
            limit: Annotated[int, Query(ge=1, le=_MOST_LISTED)] = 24,
            before: Place = None,
        ) -> JSONResponse:
            return await self._on_disk(lambda: self._gallery(name, show, limit, before))

        @router.get("/sessions/{name}/gallery/{micrograph_id}", summary="One, with all its candidates")
        async def one(name: str, micrograph_id: MicrographId, show: Show = Show.ALL) -> JSONResponse:
            return await self._on_disk(lambda: self._one(name, micrograph_id, show))

        @router.get(
            "/sessions/{name}/gallery/{micrograph_id}/{view}",
            summary="A picture of it",
            response_class=Response,
        )
        async def picture(name: str, micrograph_id: MicrographId, view: View) -> Response:
            data = await to_thread.run_sync(
                lambda: self._picture(name, micrograph_id, view), limiter=self._disk
            )
            if data is None:
                raise HTTPException(404)
            # An id stands for one state of one file.
            return Response(
                data, media_type="image/jpeg", headers={"Cache-Control": "max-age=86400, immutable"}
            )

    async def _on_disk(self, answer: Callable[[], answers.Json]) -> JSONResponse:
        """Answer what looks at the disk of a session's outputs."""
        return JSONResponse(await to_thread.run_sync(answer, limiter=self._disk))

    def _gallery(self, name: str, show: Show, limit: int, before: int | None) -> answers.Json:
        session_id, out_dir = self._statistics.session(name)
        found = self._statistics.recorded(session_id, show, limit, before)
        candidates = dict(self._statistics.candidates([one.id for one in found if not one.failed]))
        thumbnails = Thumbnails(out_dir)
        return {
            "counts": self._statistics.count(session_id),
            "micrographs": [
                answers.of_micrograph(
                    one,
                    thumbnails.has(one.name),
                    answers.chosen(one, candidates[one.id]) if one.id in candidates else None,
                )
                for one in found
            ],
        }

    def _one(self, name: str, micrograph_id: int, show: Show) -> answers.Json:
        session_id, out_dir = self._statistics.session(name)
        found = self._statistics.one(session_id, micrograph_id)
        candidates = dict(self._statistics.candidates([micrograph_id])).get(micrograph_id)
        newer = self._statistics.recorded(session_id, show, 1, since=found.seq)
        older = self._statistics.recorded(session_id, show, 1, before=found.seq)
        return answers.of_micrograph(found, Thumbnails(out_dir).has(found.name), candidates) | {
            "newer_id": newer[0].id if newer else None,
            "older_id": older[0].id if older else None,
        }

    def _picture(self, name: str, micrograph_id: int, view: View) -> bytes | None:
        session_id, out_dir = self._statistics.session(name)
        found = self._statistics.one(session_id, micrograph_id)
        try:
            return Thumbnails(out_dir).read(found.name, view)
        except OSError:
            return None

    def _add_figures(self, router: APIRouter) -> None:
        @router.get("/sessions/{name}/series", summary="Rates, picks, latency and backlog over time")
        def over_time(name: str) -> JSONResponse:
            session_id, _ = self._statistics.session(name)
            return JSONResponse(answers.of_series(series(self._statistics.history(session_id), self._now())))

        @router.get("/sessions/{name}/map", summary="Picks of each micrograph, by directory")
        def by_directory(name: str) -> JSONResponse:
            session_id, _ = self._statistics.session(name)
            return JSONResponse(answers.of_groups(groups(self._statistics.history(session_id))))

        @router.get("/sessions/{name}/scores", summary="How many picks there would be at each threshold")
        def scores(name: str) -> JSONResponse:
            session_id, _ = self._statistics.session(name)
            picks = self._scores.picks_at_thresholds(session_id)
            return JSONResponse(answers.of_scores(picks, self._statistics.threshold(session_id)))

    def _add_events(self, router: APIRouter) -> None:
        @router.get("/events", summary="What changes, as server-sent events", include_in_schema=False)
        async def events(last_event_id: Annotated[str | None, Header()] = None) -> StreamingResponse:
            if self._events.full:
                raise HTTPException(503, "too many pages are open")
            headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
            stream = self._events.stream(last_event_id)
            return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


class _Files(StaticFiles):
    """Static files with the headers of the page."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_SECURITY)
        return response
