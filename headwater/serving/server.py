"""The service: the query API, and the console with it."""

import gc
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn

from headwater.aws import client
from headwater.clock import Clock
from headwater.config import ServeSettings, Settings
from headwater.console.gate import Gate
from headwater.console.mount import mount
from headwater.console.origins import Origins, is_loopback
from headwater.errors import UsageError
from headwater.serving.app import create_app
from headwater.serving.reading import ViewReader
from headwater.web.auth import Authenticator, JwtVerifier
from headwater.web.keys import KeyStore
from headwater.web.serving import listening, run
from processors.services import Services

__all__ = ["make_service", "serve"]

_API = ("/v1/", "/v1", "/health", "/openapi.json")


def make_service(services: Services, *, console: bool | None = None) -> Any:
    """An ASGI app. UsageError for settings that cannot be."""
    settings = services.settings
    wanted = settings.serve
    _check(wanted)
    if wanted.auth == "none" and not is_loopback(wanted.host):
        raise UsageError(f"HEADWATER_SERVE_AUTH=none is for loopback only, not for {wanted.host}")
    authenticator = _authenticator(settings, services.clock) if wanted.auth == "keys" else None
    app: Any = create_app(ViewReader(services), wanted, authenticator)
    if wanted.console if console is None else console:
        gate = Gate(app, authenticator, others=_API, seconds=settings.gateway.key_seconds)
        mount(app, services, gate)
        app = gate
    return Origins(app, loopback=authenticator is None)


def _check(wanted: ServeSettings) -> None:
    """Before anything is asked or opened."""
    for name, holds, needed in (
        ("max_streams", wanted.max_streams >= 1, "at least 1"),
        ("port", 0 <= wanted.port <= 65_535, "0 to 65535"),
        ("cache_seconds", math.isfinite(wanted.cache_seconds) and wanted.cache_seconds >= 0, "0 or more"),
    ):
        if not holds:
            raise UsageError(f"HEADWATER_SERVE_{name.upper()}={getattr(wanted, name)} cannot be: it is {needed}")
    for name in ("tls_certificate", "tls_key"):
        path = getattr(wanted, name)
        if path and not Path(path).is_file():
            raise UsageError(f"HEADWATER_SERVE_{name.upper()}: there is no file {path}")
    if wanted.tls_key and not wanted.tls_certificate:
        raise UsageError("HEADWATER_SERVE_TLS_KEY needs HEADWATER_SERVE_TLS_CERTIFICATE beside it")


def _authenticator(settings: Settings, clock: Clock) -> Authenticator:
    once_more = {"mode": "standard", "total_max_attempts": 2}
    dynamodb = client("dynamodb", settings, connect_timeout=2, read_timeout=5, retries=once_more)  # somebody waits
    store = KeyStore(dynamodb, settings.gateway.keys_table, clock)
    store.check()
    verifier = JwtVerifier(settings.gateway, clock) if settings.gateway.jwt_issuer else None
    return Authenticator(settings.gateway, store, verifier, clock)


def serve(app: Any, settings: Settings, started: Callable[[str], object]) -> None:
    """Until SIGTERM; requests that are under way are finished. `started` is told the URL."""
    wanted = settings.serve
    tls: dict[str, Any] = {}
    if wanted.tls_certificate:
        tls = {"ssl_certfile": wanted.tls_certificate, "ssl_keyfile": wanted.tls_key or None}
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5, **tls)
    with listening(wanted.host, wanted.port) as (listener, authority):
        gc.freeze()  # what the imports made stays: looked through again and again it would stop answers for 0.1 s
        try:
            run(config, listener, lambda: started(f"{'https' if tls else 'http'}://{authority}"))
        finally:
            gc.unfreeze()
