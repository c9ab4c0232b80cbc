"""Make the service, which is the query API and the console with it, and serve it."""

import gc
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI

from headwater.aws import client
from headwater.clock import Clock
from headwater.config import ServeSettings, Settings
from headwater.errors import UsageError
from headwater.serving.api.app import create_app
from headwater.serving.api.reading import ViewReader
from headwater.serving.console.gate import LoginGate
from headwater.serving.console.mount import mount_console
from headwater.serving.console.origins import OriginCheck, is_loopback
from headwater.serving.console.state import ConsoleState
from headwater.web.auth import Authenticator, JwtVerifier
from headwater.web.headers import InertAnswers
from headwater.web.http_server import bound_socket, check_tls, run_server
from headwater.web.keys import KeyStore
from headwater.web.protocol import bounded_protocol

__all__ = ["check_settings", "guarded", "make_service", "serve"]

_API_PATHS = ("/v1/", "/v1", "/health", "/openapi.json", "/docs")


def make_service(settings: Settings, clock: Clock, reader: ViewReader, console: ConsoleState | None) -> Any:
    """Return the ASGI app of the query API, with the console unless `console` is None. UsageError for bad settings."""
    wanted = settings.serve
    check_settings(wanted)
    authenticator = _authenticator(settings, clock) if wanted.auth == "keys" else None
    app = create_app(reader, wanted, authenticator)
    return guarded(app, authenticator, console, key_seconds=settings.gateway.key_seconds)


def guarded(
    app: FastAPI, authenticator: Authenticator | None, console: ConsoleState | None, *, key_seconds: float
) -> Any:
    """Return the query API as it is served: the console put on it unless that is None, and what guards both."""
    inner: Any = app
    if console is not None:
        inner = gate = LoginGate(app, authenticator, api_paths=_API_PATHS, seconds=key_seconds)
        mount_console(app, console, gate)
    return InertAnswers(OriginCheck(inner, loopback=authenticator is None))


def check_settings(wanted: ServeSettings) -> None:
    """Raise UsageError for settings that cannot be, before anything is opened."""
    if wanted.auth == "none" and not is_loopback(wanted.host):
        raise UsageError(f"HEADWATER_SERVE_AUTH=none is for loopback only, not for {wanted.host}")
    check_tls("HEADWATER_SERVE", wanted.tls_certificate, wanted.tls_key)


def _authenticator(settings: Settings, clock: Clock) -> Authenticator:
    # short, since a person waits for the answer and asks again
    once_more = {"mode": "standard", "total_max_attempts": 2}
    dynamodb = client("dynamodb", settings, connect_timeout=1, read_timeout=2, retries=once_more)
    store = KeyStore(dynamodb, settings.gateway.keys_table, clock)
    store.check()
    verifier = JwtVerifier(settings.gateway, clock) if settings.gateway.jwt_issuer else None
    return Authenticator(settings.gateway, store, verifier, clock)


def serve(app: Any, settings: Settings, started: Callable[[str], object]) -> None:
    """Serve until SIGTERM, then finish the requests under way. Calls `started` with the URL."""
    wanted = settings.serve
    tls: dict[str, Any] = {}
    if wanted.tls_certificate:
        tls = {"ssl_certfile": wanted.tls_certificate, "ssl_keyfile": wanted.tls_key or None}
    config = uvicorn.Config(
        app, http=bounded_protocol(), log_level="warning", access_log=False, timeout_graceful_shutdown=5, **tls
    )
    with bound_socket(wanted.host, wanted.port, "HEADWATER_SERVE_PORT") as (listener, authority):
        # what the imports made stays for good: a collection that looks through it stops all answers for 0.1 s
        gc.freeze()
        try:
            run_server(config, listener, lambda: started(f"{'https' if tls else 'http'}://{authority}"))
        finally:
            gc.unfreeze()
