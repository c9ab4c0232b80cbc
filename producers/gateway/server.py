"""From the settings to a gateway that serves."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn

from headwater.aws import client
from headwater.clock import Clock
from headwater.config import GatewaySettings, Settings
from headwater.contract import Contract, load_contract
from headwater.errors import UsageError
from headwater.spans import export_telemetry
from headwater.web.auth import Authenticator, JwtVerifier
from headwater.web.keys import KeyStore
from headwater.web.limits import Limits
from headwater.web.serving import run
from producers.gateway.app import Gateway
from producers.gateway.intake import Lane

__all__ = ["OTLP_CONTRACTS", "make_gateway", "serve"]

OTLP_CONTRACTS = ("otel_metrics", "otel_logs", "otel_spans")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def make_gateway(
    settings: Settings, contract: Contract, clock: Clock, check: Callable[[str], object] | None = None
) -> Gateway:
    """A gateway for the contracts in the settings, `contract` where they name none. UsageError for what cannot be.

    `check` is given the endpoint of Kinesis before anything is asked there.
    """
    wanted = settings.gateway
    if wanted.auth == "none" and wanted.host not in _LOOPBACK:
        raise UsageError(f"HEADWATER_GATEWAY_AUTH=none is for loopback only, not for {wanted.host}")
    if wanted.max_decoded_bytes > 64 << 20:
        raise UsageError("HEADWATER_GATEWAY_MAX_DECODED_BYTES is above 64 MiB")
    kinesis = client("kinesis", settings)
    if check:
        check(kinesis.meta.endpoint_url)
    store = None
    if wanted.auth == "keys":
        store = KeyStore(client("dynamodb", settings), wanted.keys_table, clock)
        store.check()
    verifier = JwtVerifier(wanted, clock) if wanted.jwt_issuer else None
    authenticator = Authenticator(wanted, store, verifier, clock)
    limits = Limits(store.add_usage if store else None)
    if wanted.outbox:
        Path(wanted.outbox).mkdir(parents=True, exist_ok=True)
    kinesis.list_shards(StreamName=settings.stream, MaxResults=1)  # which the producer does, too: so it is granted
    lanes: dict[str, Lane] = {}
    try:
        for one in _contracts(wanted, contract):
            lanes[one.name] = Lane(one, settings.stream, kinesis, wanted, clock)
    except BaseException:
        for lane in lanes.values():
            lane.close()
        raise
    return Gateway(lanes, wanted, authenticator, limits, clock)


def _contracts(settings: GatewaySettings, default: Contract) -> list[Contract]:
    names = [name.strip() for name in settings.contracts.split(",") if name.strip()]
    found = [load_contract(name) for name in names] or [default]
    if settings.otlp:
        listed = {one.name for one in found}
        found += [load_contract(name) for name in OTLP_CONTRACTS if name not in listed]
    if len({one.name for one in found}) < len(found):
        raise UsageError("HEADWATER_GATEWAY_CONTRACTS names a contract twice")
    return found


def serve(gateway: Gateway, listener: socket.socket, started: Callable[[], object]) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Blocks; to be called in the main thread."""
    settings = gateway.settings
    tls: dict[str, Any] = {}
    if settings.tls_certificate:
        tls = {"ssl_certfile": settings.tls_certificate, "ssl_keyfile": settings.tls_key or None}
    config = uvicorn.Config(
        gateway.app(),
        loop="uvloop",
        http="httptools",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(settings.answer_seconds),
        **tls,
    )
    meter = export_telemetry("headwater-gateway")
    if meter is not None:
        gateway.metrics.observe(meter)
    run(config, listener, started)
