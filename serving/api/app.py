"""Define the routes of the query API. OpenAPI 3.1 comes from the pipeline: each view has its paths and its columns."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Query, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.responses import HTMLResponse, Response
from starlette.routing import Match

from headwater.config import ServeSettings
from headwater.errors import UsageError
from headwater.processors.jobs import NoSuchJob
from headwater.serving.api.answers import with_etag
from headwater.serving.api.cache import Cache
from headwater.serving.api.errors import add_error_handlers
from headwater.serving.api.head_requests import HeadRequests
from headwater.serving.api.models import AlertList, AlertState, JobList, ProblemDetails, ViewList, rows_model
from headwater.serving.api.reading import MOST_ROWS, ViewReader
from headwater.serving.api.streams import EventStream, EventStreams
from headwater.serving.api.times import bound_ms
from headwater.serving.api.waiting import in_time
from headwater.sinks.views.items import MAX_KEY_BYTES
from headwater.web.auth import Authenticator, credential
from headwater.web.headers import PAGE_HEADERS
from headwater.web.problems import Problem
from headwater.web.reference import reference_page

__all__ = ["CONTROL_SCOPE", "READ_SCOPE", "create_app"]

READ_SCOPE = "views"
"""Scope that a key needs to read."""
CONTROL_SCOPE = "console"
"""Scope that a key needs to act."""
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]

_READS = 32
"""Reads of the tables at a time; looking a key up has threads of its own."""
_LONGEST_NEXT = 10_000
"""Characters: JSON writes a control character of a key as six, and base64 adds a third."""

_CONSOLE, _DESCRIPTION = ("console", "/"), ("OpenAPI 3.1", "/openapi.json")

Answer = Callable[[], Any]
Answering = Callable[[Request, Answer], Awaitable[Response]]
Guard = Callable[[Request], Awaitable[None]]
Limit = Annotated[int, Query(ge=1, le=MOST_ROWS)]
Begin = Annotated[
    datetime | None, Query(alias="from", description="First beginning of a window; without a zone in UTC.")
]
End = Annotated[datetime | None, Query(alias="to", description="Windows begin before this.")]
After = Annotated[str, Query(alias="next", max_length=_LONGEST_NEXT, description="As an earlier answer gave it.")]


_ABOUT = "The views of a pipeline, its alerts and jobs. Times are ISO 8601, in UTC where they name no zone."
_PROBLEM: dict[str, Any] = {
    "description": "Problem details",
    "content": {"application/problem+json": {"schema": ProblemDetails.model_json_schema()}},
}
_RESPONSES: dict[int | str, dict[str, Any]] = dict.fromkeys((400, 401, 403, 404, 422, 503), _PROBLEM)


_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`row` events, whose data is a row and whose id its window's beginning; an `error` event, whose "
        "data are problem details, is the last.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


def create_app(reader: ViewReader, settings: ServeSettings, authenticator: Authenticator | None) -> FastAPI:
    """Return the app without the console. With `authenticator` None it is open to everybody."""
    app = FastAPI(
        title="headwater query API",
        version="1",
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        responses=_RESPONSES,
    )
    threads = ThreadPoolExecutor(_READS, thread_name_prefix="reads")
    allowed, schemes = _require_scope(authenticator, READ_SCOPE), _schemes(authenticator)
    guards = [Depends(allowed), *schemes]
    answered = _cached_answers(settings.cache_seconds, threads)
    streams = EventStreams(reader, settings.max_streams, allowed, threads)

    _information(app, console=settings.console)

    @app.get("/v1/views", dependencies=guards, response_model=ViewList, name="views")
    async def views(request: Request) -> Any:
        """List the views of the pipeline."""
        return await answered(request, lambda: {"views": reader.view_definitions()})

    @app.get("/v1/alerts", dependencies=guards, response_model=AlertList, name="alerts")
    async def alerts(request: Request, state: AlertState | None = None, limit: Limit = 100) -> Any:
        """List alerts: those that fire, those about to, those cleared, in this order, the latest first."""
        return await answered(request, lambda: reader.alerts(state, limit))

    acting = [Depends(_require_scope(authenticator, CONTROL_SCOPE)), *schemes]
    _jobs(app, reader, answered, guards, acting, controls=settings.controls)
    for name in reader.names:
        how = {"dependencies": guards, "response_model": rows_model(reader.versions_of(name), reader.schema)}
        _rows_route(app, name, reader, answered, how)
        # before the key's, whose path would take it in
        _stream_route(app, name, streams, guards)
        _windows_route(app, name, reader, answered, how)
    _unknown_paths(app, guards)
    add_error_handlers(app)
    app.add_middleware(HeadRequests)
    return app


def _information(app: FastAPI, *, console: bool) -> None:
    """Add what needs no key."""
    links = (_CONSOLE, _DESCRIPTION) if console else (_DESCRIPTION,)

    @app.get("/health", include_in_schema=False)
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(reference_page(app.openapi(), links), headers=PAGE_HEADERS)


def _require_scope(authenticator: Authenticator | None, scope: str) -> Guard:
    """Return a check that raises Problem 401 for unknown callers, 403 for those without the scope."""

    async def allowed(request: Request) -> None:
        if authenticator is None or authenticator.is_open:
            return
        text = credential(request.headers)
        caller = authenticator.cached(text) or await asyncio.to_thread(authenticator.authenticate, text)
        if caller is None or not caller.allows(scope):
            raise Problem(403, "forbidden", f"the key is not for {scope}")

    return allowed


def _cached_answers(seconds: float, threads: Executor) -> Answering:
    """Return a function that answers equal requests (same path and query) from one reading for `seconds`."""
    cache: Cache[tuple[str, bytes]] = Cache(seconds, size=lambda kept: len(kept[1]), threads=threads)

    async def answered(request: Request, answer: Answer) -> Response:
        question = f"{request.scope['path']}\0{request.scope['query_string'].decode('latin-1')}"
        tag, body = await in_time(cache.get(question, lambda: with_etag(answer())))
        headers = {"ETag": tag, "Cache-Control": f"private, max-age={max(0, round(seconds))}"}
        known = request.headers.get("if-none-match", "")
        if known.strip() == "*" or tag.removeprefix("W/") in known:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type="application/json")

    return answered


def _jobs(
    app: FastAPI, reader: ViewReader, answered: Answering, guards: list[Any], acting: list[Any], *, controls: bool
) -> None:
    @app.get("/v1/jobs", dependencies=guards, response_model=JobList, name="jobs")
    async def jobs(request: Request) -> Any:
        """Long commands that run, and the last that ended; the latest first."""
        return await answered(request, lambda: {"jobs": reader.jobs.shown()})

    @app.post(
        "/v1/jobs/{job_id}/cancel",
        dependencies=acting,
        status_code=202,
        name="cancel a job",
        responses={409: _PROBLEM},
    )
    async def cancel(job_id: str) -> dict[str, str]:
        """Ask a job to end. It does when it next tells its progress."""
        if not controls:
            raise Problem(403, "forbidden", "HEADWATER_SERVE_CONTROLS is off here: use headwater jobs cancel")
        try:
            await in_time(asyncio.to_thread(reader.jobs.cancel, job_id, "the API"))
        except NoSuchJob:
            raise
        except UsageError as error:  # it has ended, say
            raise Problem(409, "conflict", str(error)) from None
        return {"id": job_id, "state": "cancelling"}


def _schemes(authenticator: Authenticator | None) -> list[Any]:
    """Return the ways to send a key, for the OpenAPI document only; `_require_scope` checks the key."""
    if authenticator is None or authenticator.is_open:
        return []
    bearer = HTTPBearer(auto_error=False, description="An API key, or a token of the issuer's.")
    return [Security(bearer), Security(APIKeyHeader(name="X-Api-Key", auto_error=False))]


def _rows_route(app: FastAPI, name: str, reader: ViewReader, answered: Answering, how: dict[str, Any]) -> None:
    @app.get(f"/v1/views/{name}", name=f"rows of {name}", **how)
    async def rows(
        request: Request,
        prefix: Annotated[
            str, Query(max_length=MAX_KEY_BYTES, description="Of the key; its parts are joined with |.")
        ] = "",
        begin: Begin = None,
        end: End = None,
        limit: Limit = 100,
        after: After = "",
    ) -> Any:
        """Rows whose key begins so, by key and window, in pages. A page may be short: the last has no `next`."""
        span = bound_ms(begin), bound_ms(end)
        return await answered(request, lambda: reader.prefix(name, prefix, *span, limit=limit, after=after))


def _stream_route(app: FastAPI, name: str, streams: EventStreams, guards: list[Any]) -> None:
    @app.get(
        f"/v1/views/{name}/stream",
        dependencies=guards,
        name=f"changes of {name}",
        response_class=EventStream,
        status_code=200,
        responses=_EVENTS,
    )
    async def stream(request: Request, key: str = "", limit: Limit = 100) -> Any:
        """Server-sent events: the last `limit` windows of a key, and each of them again whenever it changes."""
        return await streams.follow(request, name, key, limit)


def _windows_route(app: FastAPI, name: str, reader: ViewReader, answered: Answering, how: dict[str, Any]) -> None:
    @app.get(f"/v1/views/{name}/{{key:path}}", name=f"windows of a key of {name}", **how)
    async def windows(
        request: Request,
        key: str,
        begin: Begin = None,
        end: End = None,
        order: Annotated[Literal["asc", "desc"], Query(description="By time; desc is the newest first.")] = "asc",
        limit: Limit = 100,
        after: After = "",
    ) -> Any:
        """Return the windows of one key, in order. Its parts are joined with |."""
        span, newest_first = (bound_ms(begin), bound_ms(end)), order == "desc"
        return await answered(
            request, lambda: reader.key(name, key, *span, limit=limit, after=after, newest_first=newest_first)
        )


def _unknown_paths(app: FastAPI, guards: list[Any]) -> None:
    """Answer all other paths of the API; otherwise the console, which is mounted at /, would answer them."""

    @app.api_route("/v1{rest:path}", methods=_METHODS, dependencies=guards, include_in_schema=False)
    async def unknown(request: Request) -> None:
        partly = [route for route in app.routes if route.matches(request.scope)[0] is Match.PARTIAL]
        if partly:
            taken = {method for route in partly for method in getattr(route, "methods", None) or ()}
            detail = f"{request.url.path} does not take {request.method}"
            raise Problem(405, "method-not-allowed", detail, {"Allow": ", ".join(sorted(taken))})
        raise Problem(404, "not-found", f"there is no {request.url.path}")
