"""The routes, and what every request goes through: who, how much, room, body, events, confirmation.

Everything that computes or blocks runs in a few threads; the event loop only moves bytes and waits.
"""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from headwater.clock import Clock
from headwater.config import GatewaySettings
from headwater.errors import BufferFull, HeadwaterError
from headwater.web.auth import ANONYMOUS, Authenticator, Principal, credential
from headwater.web.limits import Limits
from headwater.web.problems import Problem, problem_response
from headwater.web.tracing import is_sampled, parse_traceparent, span, traceparent_of
from producers.gateway.bodies import Bounds, Rows, field_of, format_of, inflate, read_events
from producers.gateway.intake import Identity, KeyMemory, Lane, intervals
from producers.gateway.metrics import CONTENT_TYPE, Metrics
from producers.gateway.openapi import document, page
from producers.gateway.room import LEAST, Lease, Room
from producers.gateway.settling import Settled, settled
from producers.settings import Receipt

__all__ = ["Accepted", "Gateway"]

log = logging.getLogger("headwater.gateway")

MOST_ERRORS = 100
"""Rejected rows that an answer explains; the others are in none of its `accepted_rows`."""
_SYNC_SECONDS = 5.0
_DRAIN_SECONDS = 60.0
_PAUSE_SECONDS = 0.02

Found = TypeVar("Found")


@dataclass(frozen=True)
class Accepted:
    """Rows that a lane has taken, and the futures of their confirmation."""

    lane: Lane
    rows: Rows
    named: tuple[str, int] | None
    futures: "list[Future[Receipt]]"


class Gateway:
    """Belongs to one event loop. `lanes` by contract."""

    def __init__(
        self,
        lanes: Mapping[str, Lane],
        settings: GatewaySettings,
        authenticator: Authenticator,
        limits: Limits,
        clock: Clock,
    ) -> None:
        self.lanes, self.settings, self.clock = lanes, settings, clock
        self._authenticator, self._limits = authenticator, limits
        self._room = Room(settings.max_inflight_bytes, settings.wait_seconds)
        self._bounds = Bounds(settings.max_decoded_bytes, settings.max_rows, settings.max_arrow_rows)
        self._keys = KeyMemory()
        self._threads = ThreadPoolExecutor(max(1, settings.decoders), "gateway")
        self._asking = ThreadPoolExecutor(4, "gateway-ask")
        self.metrics = Metrics(lambda: {name: lane.stats for name, lane in lanes.items()}, lambda: self._room.used)
        self.ready = False
        self.grpc_port = -1
        self._failure = ""

    def app(self) -> Starlette:
        """The ASGI application; its end drains."""
        from producers.gateway.otlp import otlp_routes

        routes = [
            Route("/v1/events/{contract}", self.route("events", self._events), methods=["POST"]),
            *(otlp_routes(self) if self.settings.otlp else ()),
            Route("/health/live", self._live),
            Route("/health/ready", self._ready),
            Route("/metrics", self._metrics),
            Route("/openapi.json", self._openapi),
            Route("/", self._page),
        ]
        handlers: Any = {HTTPException: _http_error, Exception: _internal}
        return Starlette(routes=routes, lifespan=self._lifespan, exception_handlers=handlers)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        sync = asyncio.create_task(self._keep_usage())
        grpc = None
        if self.settings.otlp and self.settings.grpc_port >= 0:
            from producers.gateway.otlpgrpc import start_grpc

            grpc, self.grpc_port = await start_grpc(self)
        self.ready = True
        try:
            yield
        finally:
            self.ready = False
            sync.cancel()
            if grpc is not None:
                await grpc.stop(self.settings.answer_seconds)
            await self._drain()

    async def _keep_usage(self) -> None:
        while True:
            await asyncio.sleep(_SYNC_SECONDS)
            await self._sync()

    async def _sync(self) -> None:
        try:
            await self.thread(self._limits.sync, asking=True)
        except Exception as error:
            log.warning("what keys have used is counted later: %s: %s", type(error).__name__, error)

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        closing = [loop.run_in_executor(None, lane.close) for lane in self.lanes.values()]
        done, left = await asyncio.wait(closing, timeout=_DRAIN_SECONDS) if closing else (set(), set())
        for one in done:
            if one.exception() is not None:
                log.error("not everything was delivered: %s", one.exception())
        if left:
            log.error("not everything was delivered within %g s", _DRAIN_SECONDS)
        await self._sync()

    async def thread(self, call: Callable[..., Found], *values: Any, asking: bool = False) -> Found:
        """Run off the loop: what computes in `decoders` threads, what asks others in threads of its own."""
        threads = self._asking if asking else self._threads
        return await asyncio.get_running_loop().run_in_executor(threads, call, *values)

    def route(
        self, name: str, answer: Callable[[Request, str | None], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """A handler that traces, counts, and answers a Problem as one."""

        async def handle(request: Request) -> Response:
            started = self.clock.now_ms()
            try:
                if name == "events":
                    with span(f"POST {request.url.path}", request.headers) as current:
                        response = await answer(request, traceparent_of(current, request.headers))
                else:  # a span for each export of spans would never end
                    response = await answer(request, parse_traceparent(request.headers.get("traceparent")))
            except Problem as problem:
                response = problem_response(problem)
            except ClientDisconnect:
                response = Response(status_code=400)
            self.metrics.request(name, response.status_code, (self.clock.now_ms() - started) / 1000)
            return response

        return handle

    async def _events(self, request: Request, traceparent: str | None) -> Response:
        name = request.path_params["contract"]
        who = await self.caller(request.headers)
        lane = self.lane(who, name)
        kind, identity = format_of(request.headers.get("content-type", "")), Identity.of(request.headers)
        encoding = request.headers.get("content-encoding", "")
        own = traceparent if is_sampled(traceparent) else None

        def read(body: bytes) -> Accepted:
            text = inflate(body, encoding, self._bounds.decoded_bytes)
            rows = read_events(text, kind, lane.contract, self._bounds)
            if identity.key is not None:
                self._keys.check(who.id, name, identity.key, text)
            named = identity.named(who.id, name, text, rows)
            if named is not None and lane.contract.id is not None:
                if identity.key is None:
                    raise Problem(400, "invalid-header", f"events of {name} have ids of their own: send no origin")
                named = None
            return Accepted(lane, rows, named, [])

        async with self.body(request) as body:
            read_in = await self.thread(read, body)
            del body
            found = await self.put(read_in, own)
            self.charge(who, found.rows.total)
            return await self._answer(found)

    def lane(self, who: Principal, name: str) -> Lane:
        """Where the caller's events go; Problem 404 or 403."""
        lane = self.lanes.get(name)
        if lane is None:
            raise Problem(404, "not-found", "there is no such contract here; see /openapi.json")
        if not who.may(name):
            raise Problem(403, "forbidden", f"these credentials may not write to {name}")
        return lane

    async def caller(self, headers: Mapping[str, str]) -> Principal:
        """Who it is, if they may write now; Problem 401, 429 or 503."""
        if not self.ready:
            raise Problem.later(503, "not-ready", "the gateway is shutting down", 1)
        if self._authenticator.open:
            return ANONYMOUS
        text = credential(headers)
        who = self._authenticator.known(text)
        now = self.clock.now_ms()
        try:
            if who is None:
                who = await self.thread(self._authenticator.authenticate, text, asking=True)
            if not self._limits.is_prepared(who, now):
                await self.thread(self._limits.prepare, who, now, asking=True)
        except (Problem, asyncio.CancelledError):
            raise
        except Exception as error:
            log.warning("credentials cannot be checked: %s: %s", type(error).__name__, error)
            raise Problem.later(503, "not-ready", "credentials cannot be checked now", 2) from None
        self._limits.check(who, now)
        return who

    def charge(self, who: Principal, events: int) -> None:
        """The caller has written so many."""
        self._limits.charge(who, events, self.clock.now_ms())

    async def enter(self, size: int) -> Lease:
        """Room for a body that is there already; Problem 503."""
        return await self._room.enter(size)

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The body as it came, and room for it until the block ends; Problem 408, 413 or 503."""
        most = self.settings.max_body_bytes
        length = request.headers.get("content-length", "")
        expected = int(length) if length.isdigit() and len(length) < 19 else 0
        if expected > most:
            raise _too_large(most)
        lease = await self._room.enter(expected)
        try:
            try:
                async with asyncio.timeout(self.settings.body_seconds):
                    body = await _received(request, lease, most)
            except TimeoutError:
                raise Problem(408, "timeout", f"the body took more than {self.settings.body_seconds:g} s") from None
            yield body
        finally:
            lease.close()

    def accepted(self, lane: Lane, rows: Rows, named: tuple[str, int] | None) -> Accepted:
        """Rows for a lane, to be put."""
        return Accepted(lane, rows, named, [])

    async def put(self, read: Accepted, traceparent: str | None) -> Accepted:
        """Hand the rows to their lane, waiting a little for room; Problem 503 when there is none."""
        waited = 0.0
        while True:
            try:
                futures = await self.thread(read.lane.put, read.rows, read.named, traceparent)
                self._failure = ""
                return Accepted(read.lane, read.rows, read.named, futures)
            except BufferFull:
                if waited >= self.settings.wait_seconds:
                    raise self._room.full() from None
                await asyncio.sleep(_PAUSE_SECONDS)
                waited += _PAUSE_SECONDS
            except (HeadwaterError, sqlite3.Error) as error:  # the outbox's disk may be full
                self._failure = str(error)
                log.error("events cannot be taken: %s", error)
                raise Problem.later(503, "not-ready", f"nothing was accepted: {error}", 5) from None

    async def confirm(self, found: Accepted) -> None:
        """Wait until Kinesis, or the outbox, has the events; Problem 503 when that is not known in time."""
        name, events = found.lane.contract.name, found.rows.table.num_rows
        self.metrics.events(name, "rejected", len(found.rows.invalid))
        how = Settled(events, 0)
        if not self.settings.outbox:
            how = await settled(found.futures, self.settings.answer_seconds)
        self.metrics.events(name, "acknowledged", events if how.done else how.confirmed)
        if how.done:
            return
        self.metrics.events(name, "unconfirmed", events - how.confirmed)
        retry = "a retry under the same identity makes no duplicate" if found.named else "a retry may make duplicates"
        kind, why = ("undelivered", how.error) if how.error else ("unconfirmed", "Kinesis has not answered in time")
        detail = f"{how.confirmed} of {events} events are confirmed, the others may be in the stream or not: {why}"
        raise Problem.later(503, kind, f"{detail}; {retry}", 2, confirmed=how.confirmed)

    async def _answer(self, found: Accepted) -> Response:
        await self.confirm(found)
        rows = found.rows
        done: dict[str, Any] = {"accepted": rows.table.num_rows, "rejected": len(rows.invalid)}
        done["in"] = "outbox" if self.settings.outbox else "stream"
        if found.named:
            done |= {"origin": found.named[0], "first_seq": found.named[1]}
        if not rows.invalid:
            return JSONResponse(done, 202 if self.settings.outbox else 200)
        errors = [
            {"row": one.index, "detail": one.reason} | ({"field": name} if (name := field_of(one.reason)) else {})
            for one in rows.invalid[:MOST_ERRORS]
        ]
        if not rows.table.num_rows:
            first = f"nothing was accepted; row {rows.invalid[0].index}: {rows.invalid[0].reason}"
            raise Problem(422, "invalid-events", first, accepted=0, rejected=len(rows.invalid), errors=errors)
        return JSONResponse(done | {"accepted_rows": intervals(rows), "errors": errors}, 207)

    async def _live(self, _: Request) -> Response:
        return JSONResponse({"live": True})

    async def _ready(self, _: Request) -> Response:
        full = [name for name, lane in self.lanes.items() if lane.full]
        why = self._failure or ("" if self.ready else "shutting down") or (f"full: {', '.join(full)}" if full else "")
        if why:
            return problem_response(Problem.later(503, "not-ready", why, 2))
        return JSONResponse({"ready": True})

    async def _metrics(self, _: Request) -> Response:
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    async def _openapi(self, _: Request) -> Response:
        return JSONResponse(document(self._contracts(), self.settings, closed=not self._authenticator.open))

    async def _page(self, _: Request) -> Response:
        return HTMLResponse(page(document(self._contracts(), self.settings, closed=not self._authenticator.open)))

    def _contracts(self) -> list[Any]:
        return [lane.contract for lane in self.lanes.values()]


async def _received(request: Request, lease: Lease, most: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > most:
            raise _too_large(most)
        await lease.grow(-(-size // LEAST) * LEAST)
        pieces.append(piece)
    return b"".join(pieces)


def _too_large(most: int) -> Problem:
    return Problem(413, "too-large", f"the body has more than {most} bytes; send it in parts")


async def _http_error(_: Request, error: HTTPException) -> Response:
    kind = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "malformed-body")
    return problem_response(Problem(error.status_code, kind, str(error.detail), error.headers))


async def _internal(request: Request, error: Exception) -> Response:
    log.error("a request failed", extra={"path": request.url.path}, exc_info=error)
    return problem_response(Problem(500, "internal", "the gateway failed; nothing is known about the events"))
