"""Routes of the query API. OpenAPI 3.1 comes from the pipeline: each view has its paths, and its columns."""

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, create_model
from sse_starlette import EventSourceResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from headwater.config import ServeSettings
from headwater.errors import HeadwaterError, UsageError
from headwater.serving.reading import MOST_ROWS, NoSuchKey, ViewReader, view_json
from headwater.web.auth import Authenticator, credential
from headwater.web.problems import Problem, problem_response
from processors.pipeline import View

__all__ = ["MAY", "create_app"]

MAY = "views"
"""What a key has to be for, to read."""
_REMEMBERED = 10_000

Answer = Callable[[], Any]
Limit = Annotated[int, Query(ge=1, le=MOST_ROWS)]
After = Annotated[str, Query(alias="next", max_length=4096, description="As an earlier answer gave it.")]


class ProblemDetails(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str


_PROBLEM: dict[str, Any] = {
    "description": "Problem details",
    "content": {"application/problem+json": {"schema": ProblemDetails.model_json_schema()}},
}
_RESPONSES: dict[int | str, dict[str, Any]] = dict.fromkeys((400, 401, 403, 404, 422, 503), _PROBLEM)


class Cache:
    """Encoded answers for a moment: of many who ask the same at once, one asks the table."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._kept: OrderedDict[str, tuple[float, asyncio.Future[tuple[str, bytes]]]] = OrderedDict()

    async def get(self, name: str, answer: Answer) -> tuple[str, bytes]:
        """ETag and body."""
        loop = asyncio.get_running_loop()
        until, found = self._kept.get(name, (0.0, None))
        if found is None or loop.time() >= until or (found.done() and found.exception()):
            found = loop.create_task(self._ask(answer))
            self._kept[name] = (loop.time() + self._seconds, found)
            self._kept.move_to_end(name)
            while len(self._kept) > _REMEMBERED:
                self._kept.popitem(last=False)
        return await asyncio.shield(found)

    async def _ask(self, answer: Answer) -> tuple[str, bytes]:
        body = json.dumps(await asyncio.to_thread(answer), default=str, separators=(",", ":")).encode()
        return f'"{hashlib.sha256(body).hexdigest()[:32]}"', body


def create_app(reader: ViewReader, settings: ServeSettings, authenticator: Authenticator | None) -> FastAPI:
    """The app, without the console. `authenticator` None is open to everybody."""
    app = FastAPI(title="headwater views", version="1", docs_url=None, redoc_url=None, responses=_RESPONSES)
    cache = Cache(settings.cache_seconds)
    streams = asyncio.Semaphore(settings.max_streams)

    async def allowed(request: Request) -> None:
        if authenticator is None or authenticator.open:
            return
        text = credential(request.headers)
        who = authenticator.known(text) or await asyncio.to_thread(authenticator.authenticate, text)
        if who is None or not who.may(MAY):
            raise Problem(403, "forbidden", f"the key is not for {MAY}")

    async def answered(request: Request, answer: Answer) -> Response:
        tag, body = await cache.get(f"{request.url.path}?{request.url.query}", answer)
        headers = {"ETag": tag, "Cache-Control": f"private, max-age={max(0, round(settings.cache_seconds))}"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type="application/json")

    @app.get("/health", include_in_schema=False)
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/views", dependencies=[Depends(allowed)])
    async def views(request: Request) -> Any:
        """The views of the pipeline."""
        return await answered(request, lambda: {"views": [view_json(view) for view in reader.views.values()]})

    for view in reader.views.values():
        _routes(app, view, reader, answered, [Depends(allowed)], streams)
    _refusals(app)
    return app


def _routes(
    app: FastAPI,
    view: View,
    reader: ViewReader,
    answered: Callable[[Request, Answer], Awaitable[Response]],
    guards: list[Any],
    streams: asyncio.Semaphore,
) -> None:
    base, name = f"/v1/views/{view.name}", view.name
    model = _model(view)

    @app.get(base, dependencies=guards, response_model=model, name=f"rows of {name}")
    async def rows(request: Request, prefix: str = "", limit: Limit = 100, after: After = "") -> Any:
        """Rows whose key begins so, in no order, in pages."""
        return await answered(request, lambda: reader.prefix(name, prefix, limit, after))

    @app.get(f"{base}/stream", dependencies=guards, name=f"changes of {name}", response_class=EventSourceResponse)
    async def stream(request: Request, key: str = "") -> Any:
        """Server-sent events: the rows of a key, each time they change."""
        if streams.locked():
            raise Problem.later(503, "overloaded", "no room for another event stream", 5)
        first = await asyncio.to_thread(reader.key, name, key, None, None, MOST_ROWS, "")
        return EventSourceResponse(_changes(request, name, key, first, reader, streams), ping=15)

    @app.get(f"{base}/{{key:path}}", dependencies=guards, response_model=model, name=f"windows of a key of {name}")
    async def windows(
        request: Request,
        key: str,
        begin: Annotated[datetime | None, Query(alias="from", description="First beginning of a window.")] = None,
        end: Annotated[datetime | None, Query(alias="to", description="Windows begin before this.")] = None,
        limit: Limit = 100,
        after: After = "",
    ) -> Any:
        """The windows of one key, in order. Its parts are joined with |."""
        start, stop = (None if at is None else _ms(at) for at in (begin, end))
        return await answered(request, lambda: reader.key(name, key, start, stop, limit, after))


async def _changes(
    request: Request, name: str, key: str, first: Any, reader: ViewReader, streams: asyncio.Semaphore
) -> AsyncIterator[dict[str, str]]:
    async with streams:
        shown: dict[str, str] = {}
        answer = first
        while not await request.is_disconnected():
            for row in answer["rows"]:
                text = json.dumps(row, default=str)
                place = str(row.get("window_start", ""))
                if shown.get(place) != text:
                    shown[place] = text
                    yield {"event": "row", "id": place, "data": text}
            await asyncio.sleep(1.0)
            answer = await asyncio.to_thread(reader.key, name, key, None, None, MOST_ROWS, "")


def _model(view: View) -> type[BaseModel]:
    """What an answer looks like: key columns, the window, and a column an aggregate."""
    columns: dict[str, Any] = {column: (Any, Field(description="Part of the key.")) for column in view.by}
    if view.window is not None:
        columns |= dict.fromkeys(("window_start", "window_end"), (str, ...))
    for one in view.aggregates:
        said = f"{one.function} of {one.field}" if one.field else one.function
        columns[one.name] = (Any, Field(default=None, description=said))
    columns["final"] = (bool, Field(description="No event that is in time can change it any more."))
    row = create_model(f"{view.name}_row", **columns)
    return create_model(
        f"{view.name}_rows",
        watermark=(str | None, Field(description="Event time up to which all shards were read.")),
        as_of=(str | None, Field(description="When the slowest shard committed last.")),
        freshness_ms=(int | None, ...),
        rows=(list[row], ...),  # type: ignore[valid-type]
        next=(str | None, Field(description="For the next page; null at the end.")),
    )


def _refusals(app: FastAPI) -> None:
    """Every refusal as problem details."""

    async def problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return problem_response(error)

    async def usage(_: Request, error: Exception) -> Response:
        return problem_response(Problem(400, "invalid-header", str(error)))

    async def nowhere(_: Request, error: Exception) -> Response:
        return problem_response(Problem(404, "not-found", str(error)))

    async def passing(_: Request, error: Exception) -> Response:
        return problem_response(Problem.later(503, "not-ready", str(error), 1))

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        return problem_response(Problem(422, "invalid-header", said))

    async def other(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "internal")
        return problem_response(Problem(error.status_code, kind, str(error.detail), error.headers))

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(NoSuchKey, nowhere)
    app.add_exception_handler(UsageError, usage)
    app.add_exception_handler(HeadwaterError, passing)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, other)


def _ms(at: datetime) -> int:
    try:
        return round(at.timestamp() * 1000)
    except (OverflowError, ValueError) as error:
        raise UsageError(f"{at.isoformat()} is no time that a window has: {error}") from error
