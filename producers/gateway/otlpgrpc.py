"""OTLP over gRPC: the same three signals as over HTTP, by the same steps. The protocol alone."""

from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]  # it has no types
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import add_LogsServiceServicer_to_server
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import add_MetricsServiceServicer_to_server
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import add_TraceServiceServicer_to_server

from headwater.errors import UsageError
from headwater.producers.gateway.app import Gateway
from headwater.producers.gateway.otlp import PROTOBUF, OtlpEndpoint, rpc_code
from headwater.web.problems import Problem
from headwater.web.tracing import parse_traceparent

__all__ = ["start_grpc"]

_REGISTER = {
    "otel_metrics": add_MetricsServiceServicer_to_server,
    "otel_logs": add_LogsServiceServicer_to_server,
    "otel_spans": add_TraceServiceServicer_to_server,
}
_STATUS = {code.value[0]: code for code in grpc.StatusCode}


class _SignalService:
    """Serve one signal; the only method of its service is Export."""

    def __init__(self, gateway: Gateway, contract: str) -> None:
        self._gateway, self._endpoint = gateway, OtlpEndpoint(gateway, contract)

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 (gRPC's name)
        """Export rows; end with the status of a Problem otherwise, UNAVAILABLE for what may be retried."""
        headers = {str(name).lower(): str(value) for name, value in context.invocation_metadata() or ()}
        try:
            caller = await self._gateway.authenticate(headers)
            body = request.SerializeToString(deterministic=True)
            async with self._gateway.admit(body) as received:
                traceparent = parse_traceparent(headers.get("traceparent"))
                return await self._endpoint.export(caller, received, PROTOBUF, traceparent)
        except Problem as problem:
            code = _STATUS.get(rpc_code(problem), grpc.StatusCode.UNKNOWN)
            await context.abort(code, problem.detail.encode("ascii", "backslashreplace").decode())


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
    for contract, register in _REGISTER.items():
        if contract in gateway.writers:
            register(_SignalService(gateway, contract), server)  # type: ignore[no-untyped-call]  # generated without types
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
