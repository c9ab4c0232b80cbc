"""Send changes of rows as server-sent events. All streams of one key share one reading and one text of its rows."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor

from botocore.exceptions import BotoCoreError, ClientError
from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from headwater.errors import HeadwaterError, Retryable
from headwater.serving.api.answers import json_text
from headwater.serving.api.cache import Cache
from headwater.serving.api.errors import problem_of
from headwater.serving.api.reading import ViewReader
from headwater.serving.api.waiting import in_time
from headwater.web.problems import Problem

__all__ = ["EventStream", "EventStreams"]

_POLL_SECONDS = 0.5
"""Pause between two readings of a key, which all its streams share."""
_PING_SECONDS = 15
SEND_SECONDS = 30.0
"""Time after which a client that takes nothing is dropped."""


class EventStream(EventSourceResponse):
    """Send events, and call `ended` when the stream has ended, however it does."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[dict[str, str]], ended: Callable[[], None]) -> None:
        super().__init__(events, ping=_PING_SECONDS, send_timeout=SEND_SECONDS)
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client leaves or the stream ends."""
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            pass  # a client that stalls is no fault of the service: the server closes what is open
        finally:
            self._ended()


class EventStreams:
    """Follow keys for clients, at most `most` of them at once. Belongs to one event loop.

    `allowed` is awaited before each reading, so it has to answer from memory nearly always; it raises Problem once the
    caller may not read any more.
    """

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
            _POLL_SECONDS, size=lambda rows: sum(map(len, rows.values())), threads=threads
        )

    async def follow(self, request: Request, name: str, key: str, limit: int) -> EventStream:
        """Return the response. What `ViewReader.key` refuses is refused before the stream; Problem 503 if full."""
        if self.open >= self._most:
            raise Problem.retryable(503, "overloaded", "too many event streams are open", 5)
        self.open += 1  # before anything is awaited, or many requests would pass the check at once
        try:
            await self._rows(name, key, limit)
            return EventStream(self._changes(request, name, key, limit), self._left)
        except BaseException:
            self._left()
            raise

    def _left(self) -> None:
        self.open -= 1

    async def _rows(self, name: str, key: str, limit: int) -> dict[str, str]:
        """Return the last windows of a key as JSON texts by their beginning, in order."""

        def read() -> dict[str, str]:
            rows = self._reader.key(name, key, limit=limit, newest_first=True)["rows"]
            return {str(row.get("window_start", "")): json_text(row) for row in reversed(rows)}

        return await in_time(self._cache.get(f"{limit} {name}#{key}", read))

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
                rows = shown  # AWS refuses or does not answer: tried again
            except HeadwaterError as error:
                yield _last(problem_of(error))
                return
            for place, text in rows.items():
                if shown.get(place) != text:
                    yield {"event": "row", "id": place, "data": text}
            shown = rows
            await asyncio.sleep(_POLL_SECONDS)


def _last(problem: Problem) -> dict[str, str]:
    """Return the event that ends a stream."""
    return {"event": "error", "data": json_text(problem.body)}
