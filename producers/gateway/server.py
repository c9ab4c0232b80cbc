"""Make a gateway from the settings, and serve it."""

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
from headwater.producers.gateway.app import Gateway
from headwater.producers.gateway.asgi import create_app
from headwater.producers.gateway.writer import ContractWriter
from headwater.telemetry.spans import export_telemetry
from headwater.web.auth import Authenticator, JwtVerifier
from headwater.web.http_server import check_tls, run_server
from headwater.web.keys import KeyStore
from headwater.web.limits import Limits
from headwater.web.protocol import ConnectionLimits, bounded_protocol

__all__ = ["OTLP_CONTRACTS", "gateway_contracts", "make_gateway", "serve"]

OTLP_CONTRACTS = ("otel_metrics", "otel_logs", "otel_spans")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def make_gateway(
    settings: Settings, contract: Contract, clock: Clock, check: Callable[[str], object] | None = None
) -> Gateway:
    """Return a gateway for the contracts in the settings, or for `contract`; UsageError for settings that cannot be.

    `check` is called with the endpoint of Kinesis before anything is asked there.
    """
    wanted = settings.gateway
    if wanted.auth == "none" and wanted.host not in _LOOPBACK:
        raise UsageError(f"HEADWATER_GATEWAY_AUTH=none is for loopback only, not for {wanted.host}")
    check_tls("HEADWATER_GATEWAY", wanted.tls_certificate, wanted.tls_key)
    kinesis = client("kinesis", settings)
    if check:
        check(kinesis.meta.endpoint_url)
    store = None
    if wanted.auth == "keys":
        # short: a caller waits, and a key that is known goes on without the answer
        once_more = {"mode": "standard", "total_max_attempts": 2}
        dynamodb = client("dynamodb", settings, connect_timeout=1, read_timeout=2, retries=once_more)
        store = KeyStore(dynamodb, wanted.keys_table, clock)
        store.check()
    verifier = JwtVerifier(wanted, clock) if wanted.jwt_issuer else None
    authenticator = Authenticator(wanted, store, verifier, clock)
    limits = Limits(store)
    if wanted.outbox:
        Path(wanted.outbox).mkdir(parents=True, exist_ok=True)
    # fails here, in one line, when the stream is missing; the producer lists shards, too, so the role has the right
    kinesis.list_shards(StreamName=settings.stream, MaxResults=1)
    writers: dict[str, ContractWriter] = {}
    try:
        for one in gateway_contracts(wanted, contract):
            writers[one.name] = ContractWriter(one, settings.stream, kinesis, wanted, clock)
    except BaseException:
        for writer in writers.values():
            writer.close()
        raise
    return Gateway(writers, wanted, authenticator, limits, clock)


def gateway_contracts(settings: GatewaySettings, default: Contract) -> list[Contract]:
    """Return the contracts in the settings, or the default, and those of OTLP; UsageError for one that there is not."""
    names = [name.strip() for name in settings.contracts.split(",") if name.strip()]
    found = [load_contract(name) for name in names] or [default]
    if settings.otlp:
        listed = {one.name for one in found}
        found += [load_contract(name) for name in OTLP_CONTRACTS if name not in listed]
    if len({one.name for one in found}) < len(found):
        raise UsageError("HEADWATER_GATEWAY_CONTRACTS names a contract twice")
    return found


def serve(gateway: Gateway, listener: socket.socket, started: Callable[[int], object]) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Blocks; to be called in the main thread.

    `started` gets the port of OTLP over gRPC, -1 where there is none.
    """
    config = server_config(gateway)
    meter = export_telemetry("headwater-gateway")
    if meter is not None:
        gateway.metrics.observe(meter)
    app: Any = config.app
    run_server(config, listener, lambda: started(app.state.grpc_port))


def server_config(gateway: Gateway) -> uvicorn.Config:
    """Return how the gateway is served: its limits, TLS and logs."""
    settings = gateway.settings
    tls: dict[str, Any] = {}
    if settings.tls_certificate:
        tls = {"ssl_certfile": settings.tls_certificate, "ssl_keyfile": settings.tls_key or None}
    # a little more than the route, which answers a slow body itself, as a problem
    limits = ConnectionLimits(body_seconds=settings.body_seconds + 5)
    return uvicorn.Config(
        create_app(gateway),
        loop="uvloop",
        # no sockets: where they are known, a refused one is logged with its query, in which there may be a key
        ws="none",
        http=bounded_protocol(limits),
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(settings.answer_seconds),
        **tls,
    )
