"""OTLP over HTTP: metrics, logs and traces from any OpenTelemetry SDK, answered as the OTLP specification says.

An exporter that retries sends the same bytes, so a request's identity is its content: a retry makes no duplicate.
"""

import hashlib
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from headwater.web.auth import Principal
from headwater.web.problems import Problem
from headwater.web.tracing import is_sampled
from producers.gateway.bodies import Rows, inflate
from producers.gateway.otlprows import parse_json, parse_protobuf, rows_of

if TYPE_CHECKING:
    from producers.gateway.app import Accepted, Gateway

__all__ = ["PROTOBUF", "Otlp", "code_of", "otlp_routes"]

PROTOBUF, JSON = "application/x-protobuf", "application/json"
_ANSWERS: dict[str, tuple[str, Any, str]] = {
    "otel_metrics": ("metrics", ExportMetricsServiceResponse, "rejected_data_points"),
    "otel_logs": ("logs", ExportLogsServiceResponse, "rejected_log_records"),
    "otel_spans": ("traces", ExportTraceServiceResponse, "rejected_spans"),
}
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 408: 4, 413: 8, 415: 3, 422: 3, 429: 8, 503: 14}
"""google.rpc.Code of an HTTP status."""
_EXPLAINED = 5


def otlp_routes(gateway: "Gateway") -> list[Route]:
    """/v1/metrics, /v1/logs and /v1/traces."""
    return [Otlp(gateway, contract).route() for contract in _ANSWERS if contract in gateway.lanes]


class Otlp:
    """One signal."""

    def __init__(self, gateway: "Gateway", contract: str) -> None:
        self._gateway, self._contract = gateway, contract
        self._signal, self._response, self._rejected = _ANSWERS[contract]

    def route(self) -> Route:
        return Route(f"/v1/{self._signal}", self._gateway.route(self._signal, self._handle), methods=["POST"])

    async def _handle(self, request: Request, traceparent: str | None) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        kind = kind if kind in (PROTOBUF, JSON) else ""
        try:
            if not kind:
                raise Problem(415, "unsupported-media-type", f"Content-Type is neither {PROTOBUF} nor {JSON}")
            who = await self._gateway.caller(request.headers)
            encoding = request.headers.get("content-encoding", "")
            async with self._gateway.body(request) as body:
                message = await self.export(who, body, encoding, kind, traceparent)
        except Problem as problem:
            status = Status(code=code_of(problem), message=problem.detail)
            return _encoded(status, kind or PROTOBUF, problem.status, problem.headers)
        return _encoded(message, kind, 200, {})

    async def export(self, who: Principal, body: bytes, encoding: str, kind: str, traceparent: str | None) -> Any:
        """The export response, once the rows are safe; Problem for a request that is to be repeated, or dropped."""
        gateway = self._gateway
        lane = gateway.lane(who, self._contract)

        def read() -> "Accepted":
            text = inflate(body, encoding, gateway.settings.max_decoded_bytes)
            nesting = gateway.settings.max_nesting
            message = (
                parse_json(text, self._contract, nesting) if kind == JSON else parse_protobuf(text, self._contract)
            )
            rows = rows_of(message, lane.contract, nesting, gateway.settings.max_rows)
            digest = hashlib.blake2b(text, digest_size=16).hexdigest()
            return gateway.accepted(lane, rows, (f"{who.id}:otlp:{digest}", 0))

        found = await gateway.put(await gateway.thread(read), traceparent if is_sampled(traceparent) else None)
        gateway.charge(who, found.rows.total)
        await gateway.confirm(found)
        return self._answer(found.rows)

    def _answer(self, rows: Rows) -> Any:
        answer = self._response()
        if rows.invalid:
            setattr(answer.partial_success, self._rejected, len(rows.invalid))
            told = [f"{one.index}: {one.reason}" for one in rows.invalid[:_EXPLAINED]]
            more = "" if len(told) == len(rows.invalid) else " …"
            answer.partial_success.error_message = "; ".join(told) + more
        return answer


def code_of(problem: Problem) -> int:
    """The problem as a google.rpc.Code."""
    return _CODES.get(problem.status, 2)


def _encoded(message: Any, kind: str, status: int, headers: dict[str, str]) -> Response:
    if kind == JSON:
        return JSONResponse(MessageToDict(message), status, headers)
    return Response(message.SerializeToString(), status, headers, PROTOBUF)
