"""OTLP over gRPC: the same three signals as over HTTP, by the same steps. The protocol alone."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from headwater.errors import UsageError
from headwater.producers.gateway.app import Gateway
from headwater.producers.gateway.otlp import PROTOBUF, OtlpEndpoint, rpc_code
from headwater.web.problems import Problem
from headwater.web.tracing import parse_traceparent

__all__ = ["start_grpc"]

_SERVICES = {
    "otel_metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
    "otel_logs": "opentelemetry.proto.collector.logs.v1.LogsService",
    "otel_spans": "opentelemetry.proto.collector.trace.v1.TraceService",
}
_STATUS = {code.value[0]: code for code in grpc.StatusCode}


class _SignalService:
    """Serve one signal; the only method of its service is Export.

    To gRPC it is one that takes a stream of bytes, which is the same on the wire: so a message is received once its
    caller is known, and what is in it is made into objects by nobody but who bounds them. As messages of Protobuf
    15 MB of empty records take 1 GB.
    """

    def __init__(self, gateway: Gateway, contract: str) -> None:
        self._gateway, self._endpoint = gateway, OtlpEndpoint(gateway, contract)

    async def export(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        """Export rows; end with the status of a Problem otherwise, UNAVAILABLE for what may be retried."""
        pairs = [(str(name).lower(), str(value)) for name, value in context.invocation_metadata() or ()]
        headers = dict(pairs)
        try:
            if len([name for name, _ in pairs if name == "authorization"]) > 1:
                raise Problem(401, "unauthorized", "send one API key or token")
            caller = await self._gateway.authenticate(headers)
            async with self._gateway.admit(lambda: _first(requests)) as received:
                traceparent = parse_traceparent(headers.get("traceparent"))
                answer = await self._endpoint.export(caller, received, PROTOBUF, traceparent)
                return bytes(answer.SerializeToString())
        except Problem as problem:
            code = _STATUS.get(rpc_code(problem), grpc.StatusCode.UNKNOWN)
            await context.abort(code, problem.detail.encode("ascii", "backslashreplace").decode())
            raise  # not reached: abort raises


async def _first(requests: AsyncIterator[bytes]) -> bytes:
    async for body in requests:
        return body
    raise Problem(400, "malformed-body", "the call has no message")


async def start_grpc(gateway: Gateway) -> tuple[Any, int]:
    """Start a server on this event loop and return it with its port; UsageError when the port is taken."""
    settings = gateway.settings
    address = (
        f"[{settings.host}]:{settings.grpc_port}" if ":" in settings.host else f"{settings.host}:{settings.grpc_port}"
    )
    options = [
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        ("grpc.so_reuseport", 0),
        # connections that never say anything, or whose client is gone; metadata is bounded by gRPC itself (16 KiB)
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 10_000),
    ]
    server = grpc.aio.server(options=options)
    for contract, service in _SERVICES.items():
        if contract in gateway.writers:
            export = grpc.stream_unary_rpc_method_handler(_SignalService(gateway, contract).export)
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": export}),))
    try:
        if settings.tls_certificate:
            pair = (Path(settings.tls_key).read_bytes(), Path(settings.tls_certificate).read_bytes())
            port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        else:
            port = server.add_insecure_port(address)
    except RuntimeError:
        raise UsageError(f"{address} cannot be had for OTLP over gRPC (HEADWATER_GATEWAY_GRPC_PORT)") from None
    await server.start()
    return server, port
