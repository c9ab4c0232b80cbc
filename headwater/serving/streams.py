"""Event streams. All that follow one key read it once, and its rows become text once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor

from botocore.exceptions import BotoCoreError, ClientError
from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from headwater.errors import HeadwaterError, Retryable
from headwater.serving.answers import json_text
from headwater.serving.cache import Cache
from headwater.serving.reading import ViewReader
from headwater.serving.refusals import problem_of
from headwater.web.problems import Problem

__all__ = ["EventStream", "Streams"]

_LOOK_SECONDS = 0.5
"""How often a stream looks; all streams of a key look once together."""
_PING_SECONDS = 15
SEND_SECONDS = 30.0
"""A client that takes nothing for so long is left."""


class EventStream(EventSourceResponse):
    """Gives its place back when it has ended, however it does."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[dict[str, str]], ended: Callable[[], None]) -> None:
        super().__init__(events, ping=_PING_SECONDS, send_timeout=SEND_SECONDS)
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            pass  # a client that stalls is no fault of the service: the server closes what is open
        finally:
            self._ended()


class Streams:
    """At most so many at once. `allowed` raises a Problem once who asks may not read any more, and is to know it from
    memory nearly always. To be used in one event loop."""

    def __init__(
        self,
        reader: ViewReader,
        most: int,
        allowed: Callable[[Request], Awaitable[None]],
        threads: Executor | None = None,
    ) -> None:
        self.open = 0
        self._most = most
        self._reader = reader
        self._allowed = allowed
        self._cache: Cache[dict[str, str]] = Cache(
            _LOOK_SECONDS, size=lambda rows: sum(map(len, rows.values())), threads=threads
        )

    async def follow(self, request: Request, name: str, key: str, limit: int) -> EventStream:
        """The answer. Whatever `ViewReader.key` refuses is refused before the stream begins; Problem 503 when there is
        no room."""
        if self.open >= self._most:
            raise Problem.later(503, "overloaded", "no room for another event stream", 5)
        self.open += 1  # before anything is waited for, else many come in at once
        try:
            await self._rows(name, key, limit)
            return EventStream(self._changes(request, name, key, limit), self._left)
        except BaseException:
            self._left()
            raise

    def _left(self) -> None:
        self.open -= 1

    async def _rows(self, name: str, key: str, limit: int) -> dict[str, str]:
        """The last windows of a key as JSON, in order."""

        def read() -> dict[str, str]:
            rows = self._reader.key(name, key, limit=limit, newest_first=True)["rows"]
            return {str(row.get("window_start", "")): json_text(row) for row in reversed(rows)}

        return await self._cache.get(f"{limit} {name}#{key}", read)

    async def _changes(self, request: Request, name: str, key: str, limit: int) -> AsyncIterator[dict[str, str]]:
        shown: dict[str, str] = {}
        while not await request.is_disconnected():
            try:
                await self._allowed(request)
                rows = await self._rows(name, key, limit)
            except Problem as problem:
                if problem.status < 500:
                    yield _last(problem)
                    return
                rows = shown
            except (Retryable, ClientError, BotoCoreError, OSError):
                rows = shown  # AWS refuses or does not answer: asked again
            except HeadwaterError as error:
                yield _last(problem_of(error))
                return
            for place, text in rows.items():
                if shown.get(place) != text:
                    yield {"event": "row", "id": place, "data": text}
            shown = rows
            await asyncio.sleep(_LOOK_SECONDS)


def _last(problem: Problem) -> dict[str, str]:
    """The event that ends a stream."""
    return {"event": "error", "data": json_text(problem.body)}
