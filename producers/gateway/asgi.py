"""Assemble the ASGI application: every route of the gateway, its error answers, and its start and end.

The one place that knows all endpoints; they know the gateway's steps, which know none of them.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from headwater.producers.gateway.app import Gateway
from headwater.producers.gateway.events import EventsEndpoint
from headwater.producers.gateway.metrics import CONTENT_TYPE
from headwater.producers.gateway.openapi import document
from headwater.web.headers import PAGE_HEADERS, InertAnswers
from headwater.web.problems import Problem, problem_response
from headwater.web.reference import reference_page
from headwater.web.tracing import parse_traceparent, span, traceparent_of

__all__ = ["create_app"]

log = logging.getLogger("headwater.gateway")

_CORS_HEADERS = (
    *("authorization", "content-type", "content-encoding", "idempotency-key", "headwater-origin", "headwater-seq"),
    *("traceparent", "x-api-key"),
)
"""Headers that a page may send."""
Endpoint = Callable[[Request, str | None], Awaitable[Response]]
"""Answers a request, given the traceparent that goes with its events."""


def create_app(gateway: Gateway) -> Starlette:
    """Return the application. Its end drains the gateway; `app.state.grpc_port` is the port of OTLP over gRPC or -1."""
    events = _traced(gateway, "events", EventsEndpoint(gateway).handle)
    routes = [
        *(Route(path, events, methods=["POST"]) for path in ("/v1/events/{contract}", "/v1/events/{contract}/")),
        *_otlp_routes(gateway),
        *_information_routes(gateway),
    ]
    handlers: Any = {HTTPException: _http_error, Exception: _internal_error}
    return _InertApp(
        routes=routes, lifespan=_lifespan(gateway), exception_handlers=handlers, middleware=_middleware(gateway)
    )


class _InertApp(Starlette):
    """Add headers around all else: Starlette's own middleware lies within its answer to a fault."""

    def build_middleware_stack(self) -> Any:
        """Return what answers requests."""
        return InertAnswers(super().build_middleware_stack())


def _middleware(gateway: Gateway) -> list[Middleware]:
    """Return what lets pages of the origins in the settings send events; none where no origin is named."""
    origins = [one.strip() for one in gateway.settings.cors_origins.split(",") if one.strip()]
    if not origins:
        return []
    # no credentials: a caller is known by the key in a header, never by a cookie of the browser's
    return [
        Middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=["POST"], allow_headers=_CORS_HEADERS, max_age=600
        )
    ]


def _lifespan(gateway: Gateway) -> Callable[[Starlette], Any]:
    settings = gateway.settings

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        grpc, app.state.grpc_port = None, -1
        if settings.otlp and settings.grpc_port >= 0:
            # here: grpc takes 0.3 s to import and starts threads, which a gateway without it is spared
            from headwater.producers.gateway.otlpgrpc import start_grpc

            grpc, app.state.grpc_port = await start_grpc(gateway)
            log.info("OTLP over gRPC", extra={"host": settings.host, "port": app.state.grpc_port})
        gateway.start()
        try:
            yield
        finally:
            gateway.refuse_requests()
            if grpc is not None:
                await grpc.stop(settings.answer_seconds)
            await gateway.drain()

    return lifespan


def _otlp_routes(gateway: Gateway) -> list[Route]:
    """Return /v1/metrics, /v1/logs and /v1/traces, as far as their contracts are served."""
    if not gateway.settings.otlp:
        return []
    from headwater.producers.gateway.otlp import OTLP_SIGNALS, OtlpEndpoint

    endpoints = [OtlpEndpoint(gateway, contract) for contract in OTLP_SIGNALS if contract in gateway.writers]
    return [
        Route(f"/v1/{one.signal}", _counted(gateway, one.signal, one.handle), methods=["POST"]) for one in endpoints
    ]


def _information_routes(gateway: Gateway) -> list[Route]:
    async def live(_: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(_: Request) -> Response:
        why = gateway.unready_reason
        if why:
            return problem_response(Problem.retryable(503, "not-ready", why, 2))
        return JSONResponse({"ready": True})

    async def metrics(_: Request) -> Response:
        return Response(gateway.metrics.text(), media_type=CONTENT_TYPE)

    def described() -> dict[str, Any]:
        return document(gateway.contracts, gateway.settings, closed=gateway.needs_credentials)

    async def openapi(_: Request) -> Response:
        return JSONResponse(described())

    async def index(_: Request) -> Response:
        return HTMLResponse(reference_page(described(), links), headers=PAGE_HEADERS)

    routes = [Route("/health/live", live), Route("/health/ready", ready)]
    links = [("OpenAPI 3.1", "/openapi.json"), ("ready", "/health/ready")]
    if gateway.settings.metrics:
        routes.append(Route("/metrics", metrics))
        links.append(("metrics", "/metrics"))
    if gateway.settings.docs:
        routes += [Route("/openapi.json", openapi), Route("/", index)]
    return routes


def _traced(gateway: Gateway, name: str, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """Return a handler that makes a span of each request."""

    async def traced(request: Request, _: str | None) -> Response:
        with span(f"POST {request.url.path}", request.headers) as current:
            return await endpoint(request, traceparent_of(current, request.headers))

    return _counted(gateway, name, traced)


def _counted(gateway: Gateway, name: str, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """Return a handler that counts requests and turns a Problem into its answer.

    It makes no span: a span for each export of spans would be exported in its turn, without end.
    """

    async def handle(request: Request) -> Response:
        started = gateway.clock.now_ms()
        try:
            response = await endpoint(request, parse_traceparent(request.headers.get("traceparent")))
        except Problem as problem:
            response = problem_response(problem)
        except ClientDisconnect:
            response = Response(status_code=400)
        gateway.metrics.count_request(name, response.status_code, (gateway.clock.now_ms() - started) / 1000)
        return response

    return handle


async def _http_error(_: Request, error: HTTPException) -> Response:
    kind = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "malformed-body")
    return problem_response(Problem(error.status_code, kind, str(error.detail), error.headers))


async def _internal_error(request: Request, error: Exception) -> Response:
    log.error("a request failed", extra={"path": request.url.path}, exc_info=error)
    return problem_response(Problem(500, "internal", "the gateway failed; nothing is known about the events"))
