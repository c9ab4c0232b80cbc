"""Routes of the query API. OpenAPI 3.1 comes from the pipeline: each view has its paths, and its columns."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Query, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.responses import Response
from starlette.routing import Match

from headwater.config import ServeSettings
from headwater.errors import UsageError
from headwater.serving.answers import tagged
from headwater.serving.cache import Cache
from headwater.serving.heads import Heads
from headwater.serving.models import AlertRows, AlertState, JobRows, ProblemDetails, ViewRows, rows_model
from headwater.serving.reading import MOST_ROWS, ViewReader
from headwater.serving.refusals import add_refusals
from headwater.serving.streams import EventStream, Streams
from headwater.serving.times import bound_ms
from headwater.web.auth import Authenticator, credential
from headwater.web.problems import Problem
from processors.jobs import NoSuchJob
from sinks.viewitems import LONGEST_KEY

__all__ = ["MAY", "OPERATE", "create_app"]

MAY = "views"
"""What a key has to be for, to read."""
OPERATE = "console"
"""And to act."""
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]

_READS = 32
"""Questions that the tables are asked at a time; those about keys have threads of their own."""
_LONGEST_NEXT = 10_000
"""Characters: a key of control characters has six for each, and base64 makes them more by a third."""

Answer = Callable[[], Any]
Answering = Callable[[Request, Answer], Awaitable[Response]]
Guard = Callable[[Request], Awaitable[None]]
Limit = Annotated[int, Query(ge=1, le=MOST_ROWS)]
Begin = Annotated[
    datetime | None, Query(alias="from", description="First beginning of a window; without a zone in UTC.")
]
End = Annotated[datetime | None, Query(alias="to", description="Windows begin before this.")]
After = Annotated[str, Query(alias="next", max_length=_LONGEST_NEXT, description="As an earlier answer gave it.")]


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
    """The app, without the console. `authenticator` None is open to everybody."""
    app = FastAPI(title="headwater views", version="1", docs_url=None, redoc_url=None, responses=_RESPONSES)
    threads = ThreadPoolExecutor(_READS, thread_name_prefix="reads")
    allowed, schemes = _guard(authenticator, MAY), _schemes(authenticator)
    guards = [Depends(allowed), *schemes]
    answered = _answering(settings.cache_seconds, threads)
    streams = Streams(reader, settings.max_streams, allowed, threads)

    @app.get("/health", include_in_schema=False)
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/views", dependencies=guards, response_model=ViewRows, name="views")
    async def views(request: Request) -> Any:
        """The views of the pipeline."""
        return await answered(request, lambda: {"views": reader.described()})

    @app.get("/v1/alerts", dependencies=guards, response_model=AlertRows, name="alerts")
    async def alerts(request: Request, state: AlertState | None = None, limit: Limit = 100) -> Any:
        """What fires, what is about to, and what has been cleared, in this order, the latest first."""
        return await answered(request, lambda: reader.alerts(state, limit))

    acting = [Depends(_guard(authenticator, OPERATE)), *schemes]
    _jobs(app, reader, answered, guards, acting, controls=settings.controls)
    for name in reader.names:
        _routes(app, name, reader, answered, guards, streams)
    _unknown(app, guards)
    add_refusals(app)
    app.add_middleware(Heads)
    return app


def _guard(authenticator: Authenticator | None, may: str) -> Guard:
    """Problem 401 or 403 for who is not known, or has a key that is not for it."""

    async def allowed(request: Request) -> None:
        if authenticator is None or authenticator.open:
            return
        text = credential(request.headers)
        who = authenticator.known(text) or await asyncio.to_thread(authenticator.authenticate, text)
        if who is None or not who.may(may):
            raise Problem(403, "forbidden", f"the key is not for {may}")

    return allowed


def _answering(seconds: float, threads: Executor) -> Answering:
    """Answers of a moment ago are given again to the same question: that of the same path and query, whatever host."""
    cache: Cache[tuple[str, bytes]] = Cache(seconds, size=lambda kept: len(kept[1]), threads=threads)

    async def answered(request: Request, answer: Answer) -> Response:
        question = f"{request.scope['path']}\0{request.scope['query_string'].decode('latin-1')}"
        tag, body = await cache.get(question, lambda: tagged(answer()))
        headers = {"ETag": tag, "Cache-Control": f"private, max-age={max(0, round(seconds))}"}
        known = request.headers.get("if-none-match", "")
        if known.strip() == "*" or tag.removeprefix("W/") in known:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type="application/json")

    return answered


def _jobs(
    app: FastAPI, reader: ViewReader, answered: Answering, guards: list[Any], acting: list[Any], *, controls: bool
) -> None:
    @app.get("/v1/jobs", dependencies=guards, response_model=JobRows, name="jobs")
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
            await asyncio.to_thread(reader.jobs.cancel, job_id, "the API")
        except NoSuchJob:
            raise
        except UsageError as error:  # it has ended, say
            raise Problem(409, "conflict", str(error)) from None
        return {"id": job_id, "state": "cancelling"}


def _schemes(authenticator: Authenticator | None) -> list[Any]:
    """For the OpenAPI document: a key is sent in the one way or the other. `_guard` looks at it."""
    if authenticator is None or authenticator.open:
        return []
    bearer = HTTPBearer(auto_error=False, description="An API key, or a token of the issuer's.")
    return [Security(bearer), Security(APIKeyHeader(name="X-Api-Key", auto_error=False))]


def _routes(
    app: FastAPI,
    name: str,
    reader: ViewReader,
    answered: Answering,
    guards: list[Any],
    streams: Streams,
) -> None:
    base, model = f"/v1/views/{name}", rows_model(reader.definitions(name), reader.schema)

    @app.get(base, dependencies=guards, response_model=model, name=f"rows of {name}")
    async def rows(
        request: Request,
        prefix: Annotated[
            str, Query(max_length=LONGEST_KEY, description="Of the key; its parts are joined with |.")
        ] = "",
        begin: Begin = None,
        end: End = None,
        limit: Limit = 100,
        after: After = "",
    ) -> Any:
        """Rows whose key begins so, by key and window, in pages. A page may be short: the last has no `next`."""
        span = bound_ms(begin), bound_ms(end)
        return await answered(request, lambda: reader.prefix(name, prefix, *span, limit=limit, after=after))

    @app.get(
        f"{base}/stream",
        dependencies=guards,
        name=f"changes of {name}",
        response_class=EventStream,
        status_code=200,
        responses=_EVENTS,
    )
    async def stream(request: Request, key: str = "", limit: Limit = 100) -> Any:
        """Server-sent events: the last windows of a key, so many, and each of them whenever it changes."""
        return await streams.follow(request, name, key, limit)

    @app.get(f"{base}/{{key:path}}", dependencies=guards, response_model=model, name=f"windows of a key of {name}")
    async def windows(
        request: Request,
        key: str,
        begin: Begin = None,
        end: End = None,
        order: Annotated[Literal["asc", "desc"], Query(description="By time; desc is the newest first.")] = "asc",
        limit: Limit = 100,
        after: After = "",
    ) -> Any:
        """The windows of one key, in order. Its parts are joined with |."""
        span, newest_first = (bound_ms(begin), bound_ms(end)), order == "desc"
        return await answered(
            request, lambda: reader.key(name, key, *span, limit=limit, after=after, newest_first=newest_first)
        )


def _unknown(app: FastAPI, guards: list[Any]) -> None:
    """All other paths of the API: without it the console, which is served below /, answers for them."""

    @app.api_route("/v1{rest:path}", methods=_METHODS, dependencies=guards, include_in_schema=False)
    async def unknown(request: Request) -> None:
        partly = [route for route in app.routes if route.matches(request.scope)[0] is Match.PARTIAL]
        if partly:
            taken = {method for route in partly for method in getattr(route, "methods", None) or ()}
            detail = f"{request.url.path} does not take {request.method}"
            raise Problem(405, "method-not-allowed", detail, {"Allow": ", ".join(sorted(taken))})
        raise Problem(404, "not-found", f"there is no {request.url.path}")
