"""OTLP over HTTP: metrics, logs and traces from any OpenTelemetry SDK, answered as the OTLP specification says.

An exporter that retries sends the same bytes, so a request's identity is its content: a retry makes no duplicate.
What a signal's rows look like is in `headwater.formats.opentelemetry`; this module is the protocol alone.
"""

from functools import partial
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it has no types
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from headwater.producers.gateway.app import Gateway, ReceivedBody, Submission
from headwater.producers.gateway.bodies import ParsedBody
from headwater.producers.gateway.identity import content_origin
from headwater.producers.gateway.otlpbodies import export_bytes, parse_export
from headwater.web.auth import Principal
from headwater.web.problems import Problem
from headwater.web.tracing import is_sampled

__all__ = ["OTLP_SIGNALS", "PROTOBUF", "OtlpEndpoint", "rpc_code"]

PROTOBUF, JSON = "application/x-protobuf", "application/json"
OTLP_SIGNALS: dict[str, tuple[str, Any, str]] = {
    "otel_metrics": ("metrics", ExportMetricsServiceResponse, "rejected_data_points"),
    "otel_logs": ("logs", ExportLogsServiceResponse, "rejected_log_records"),
    "otel_spans": ("traces", ExportTraceServiceResponse, "rejected_spans"),
}
"""Map from a contract to the last part of the path, the answer's message, and its field that counts rejected rows."""
_RPC_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 408: 4, 413: 8, 415: 3, 422: 3, 429: 8, 503: 14}
"""google.rpc.Code of an HTTP status."""
_MAX_EXPLAINED = 5


class OtlpEndpoint:
    """Answer exports of one signal: the rows of one of the contracts in `OTLP_SIGNALS`."""

    def __init__(self, gateway: Gateway, contract: str) -> None:
        self._gateway, self._contract = gateway, contract
        self.signal, self._response, self._rejected = OTLP_SIGNALS[contract]

    async def handle(self, request: Request, traceparent: str | None) -> Response:
        """Answer one export over HTTP, a refusal as the Status message that exporters read."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        kind = kind if kind in (PROTOBUF, JSON) else ""
        try:
            if not kind:
                raise Problem(415, "unsupported-media-type", f"Content-Type is neither {PROTOBUF} nor {JSON}")
            caller = await self._gateway.authenticate(request.headers)
            async with self._gateway.receive(request) as body:
                message = await self.export(caller, body, kind, traceparent)
        except Problem as problem:
            status = Status(code=rpc_code(problem), message=problem.detail)
            return _encode(status, kind or PROTOBUF, problem.status, problem.headers)
        return _encode(message, kind, 200, {})

    async def export(self, caller: Principal, body: ReceivedBody, kind: str, traceparent: str | None) -> Any:
        """Return the export response once the rows are safe; Problem when the exporter has to retry, or to give up."""
        gateway, settings = self._gateway, self._gateway.settings
        writer = gateway.writer_for(caller, self._contract)

        def read(text: bytes, most: int) -> Submission:
            parsed = parse_export(text, kind == JSON, writer.contract, settings, gateway.clock.now_ms(), most)
            return Submission(writer, parsed, (content_origin(caller.id, "otlp", text), 0))

        submission = await gateway.parse(body, partial(export_bytes, most_rows=settings.max_rows), read)
        pending = await gateway.write(caller, submission, traceparent if is_sampled(traceparent) else None)
        await gateway.confirm(body, pending)
        return self._answer(submission.parsed)

    def _answer(self, parsed: ParsedBody) -> Any:
        answer = self._response()
        if parsed.invalid:
            setattr(answer.partial_success, self._rejected, len(parsed.invalid))
            reasons = [f"{one.index}: {one.reason}" for one in parsed.invalid[:_MAX_EXPLAINED]]
            more = "" if len(reasons) == len(parsed.invalid) else " …"
            answer.partial_success.error_message = "; ".join(reasons) + more
        return answer


def rpc_code(problem: Problem) -> int:
    """Return the google.rpc.Code of a problem; 2 (UNKNOWN) for a status that has none."""
    return _RPC_CODES.get(problem.status, 2)


def _encode(message: Any, kind: str, status: int, headers: dict[str, str]) -> Response:
    if kind == JSON:
        return JSONResponse(MessageToDict(message), status, headers)
    return Response(message.SerializeToString(), status, headers, PROTOBUF)
