"""OTLP over gRPC: the same three signals as over HTTP, by the same steps."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import add_LogsServiceServicer_to_server
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import add_MetricsServiceServicer_to_server
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import add_TraceServiceServicer_to_server

from headwater.errors import UsageError
from headwater.web.problems import Problem
from headwater.web.tracing import parse_traceparent
from producers.gateway.otlp import PROTOBUF, Otlp, code_of

if TYPE_CHECKING:
    from producers.gateway.app import Gateway

__all__ = ["start_grpc"]

_REGISTER = {
    "otel_metrics": add_MetricsServiceServicer_to_server,
    "otel_logs": add_LogsServiceServicer_to_server,
    "otel_spans": add_TraceServiceServicer_to_server,
}
_STATUS = {code.value[0]: code for code in grpc.StatusCode}


class _Service:
    """One signal's service: its only method is Export."""

    def __init__(self, gateway: "Gateway", contract: str) -> None:
        self._gateway, self._otlp = gateway, Otlp(gateway, contract)

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 (gRPC's name)
        """Export rows; the status of a Problem otherwise, UNAVAILABLE for what may be retried."""
        headers = {str(name).lower(): str(value) for name, value in context.invocation_metadata() or ()}
        try:
            who = await self._gateway.caller(headers)
            body = request.SerializeToString(deterministic=True)
            lease = await self._gateway.enter(len(body))
            try:
                return await self._otlp.export(who, body, "", PROTOBUF, parse_traceparent(headers.get("traceparent")))
            finally:
                lease.close()
        except Problem as problem:
            code = _STATUS.get(code_of(problem), grpc.StatusCode.UNKNOWN)
            await context.abort(code, problem.detail.encode("ascii", "backslashreplace").decode())


async def start_grpc(gateway: "Gateway") -> tuple[Any, int]:
    """A server on this event loop and its port; UsageError when the port is taken."""
    settings = gateway.settings
    address = (
        f"[{settings.host}]:{settings.grpc_port}" if ":" in settings.host else f"{settings.host}:{settings.grpc_port}"
    )
    limit = ("grpc.max_receive_message_length", settings.max_body_bytes)
    server = grpc.aio.server(options=[limit, ("grpc.so_reuseport", 0)])
    for contract, register in _REGISTER.items():
        if contract in gateway.lanes:
            register(_Service(gateway, contract), server)  # type: ignore[no-untyped-call]
    try:
        if settings.tls_certificate:
            pair = (Path(settings.tls_key).read_bytes(), Path(settings.tls_certificate).read_bytes())
            port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        else:
            port = server.add_insecure_port(address)
    except RuntimeError:
        raise UsageError(f"{address} cannot be had for OTLP over gRPC") from None
    await server.start()
    return server, port
