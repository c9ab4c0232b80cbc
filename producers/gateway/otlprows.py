"""OTLP to rows of the shipped contracts: a data point, a log record or a span each.

What the contract cannot hold (a time beyond year 9999, a value that is not finite) makes its row invalid, which OTLP
answers as partial success.
"""

import base64
import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from headwater.codec.decoded import kept_rows
from headwater.contract import Contract, InvalidRow, validate_row
from headwater.errors import InvalidEvent
from headwater.web.problems import Problem
from producers.gateway.bodies import Rows

__all__ = ["REQUESTS", "parse_json", "parse_protobuf", "rows_of"]

REQUESTS: dict[str, Any] = {
    "otel_metrics": ExportMetricsServiceRequest,
    "otel_logs": ExportLogsServiceRequest,
    "otel_spans": ExportTraceServiceRequest,
}
_UNKNOWN = "unknown_service"
_IDS = frozenset({"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"})
_TEMPORALITY = {1: "delta", 2: "cumulative"}
_SPAN_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUS = ("unset", "ok", "error")

Row = dict[str, Any]


def parse_protobuf(body: bytes, contract: str) -> Message:
    """The request; Problem 400 when it is none."""
    made: Message = REQUESTS[contract]()
    try:
        made.ParseFromString(body)
    except DecodeError:
        raise Problem(400, "malformed-body", "not an OTLP request in protobuf") from None
    return made


def parse_json(body: bytes, contract: str, nesting: int) -> Message:
    """The request in OTLP's JSON, whose ids are hexadecimal; Problem 400 when it is none."""
    made: Message = REQUESTS[contract]()
    try:
        found = _with_ids(json.loads(body.decode()), 2 * nesting + 20)
        if not isinstance(found, dict):
            raise ValueError("the body is no JSON object")
        ParseDict(found, made, ignore_unknown_fields=True, max_recursion_depth=2 * nesting + 20)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, ParseError) as error:
        reason = " ".join(str(error).encode("ascii", "backslashreplace").decode().split())[:200]
        raise Problem(400, "malformed-body", f"not an OTLP request in JSON: {reason}") from None
    return made


def _with_ids(value: Any, depth: int) -> Any:
    if not depth:
        raise ValueError("nested too deeply")
    if isinstance(value, list):
        return [_with_ids(one, depth - 1) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: base64.b64encode(bytes.fromhex(one)).decode()
        if name in _IDS and isinstance(one, str)
        else _with_ids(one, depth - 1)
        for name, one in value.items()
    }


def rows_of(request: Any, contract: Contract, nesting: int, most: int) -> Rows:
    """All rows of a request, in its order; Problem 400 or 413 when they are nested too deeply or too many."""
    rows: list[Row] = []
    for row in _READERS[contract.name](request, nesting):
        rows.append(row)
        if len(rows) > most:
            raise Problem(413, "too-large", f"the request has more than {most} rows; send it in parts")
    valid: list[Row] = []
    invalid: list[InvalidRow] = []
    for index, row in enumerate(rows):
        try:
            valid.append(validate_row(contract, row))
        except InvalidEvent as error:
            invalid.append(InvalidRow(index, str(error)))
    table = pa.Table.from_pylist(valid, schema=contract.arrow_schema)
    return Rows(table, kept_rows(len(rows), invalid), tuple(invalid), len(rows))


def _plain(value: Any, depth: int) -> Any:
    """An AnyValue as JSON has it; bytes in base64, numbers that JSON lacks as text."""
    if not depth:
        raise Problem(400, "malformed-body", "an attribute is nested too deeply")
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    found = getattr(value, kind)
    if kind == "array_value":
        return [_plain(one, depth - 1) for one in found.values]
    if kind == "kvlist_value":
        return {one.key: _plain(one.value, depth - 1) for one in found.values}
    if kind == "bytes_value":
        return base64.b64encode(found).decode()
    return str(found) if kind == "double_value" and not math.isfinite(found) else found


def _attributes(listed: Iterable[Any], depth: int) -> dict[str, Any]:
    return {one.key: _plain(one.value, depth) for one in listed}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _heads(resources: Iterable[Any], scopes: str, depth: int) -> Iterator[tuple[Row, Any]]:
    """The columns that all rows of a scope share, and the scope."""
    for one in resources:
        resource = _attributes(one.resource.attributes, depth)
        service = resource.get("service.name")
        head: Row = {
            "service": service if isinstance(service, str) and service else _UNKNOWN,
            "resource": _json(resource),
        }
        for scope in getattr(one, scopes):
            yield head | {"scope": scope.scope.name or None, "scope_version": scope.scope.version or None}, scope


def _ms(ns: int) -> int:
    return ns // 1_000_000


def _metrics(request: Any, depth: int) -> Iterator[Row]:
    for head, scope in _heads(request.resource_metrics, "scope_metrics", depth):
        for metric in scope.metrics:
            kind = metric.WhichOneof("data")
            if kind is None:
                continue
            data = getattr(metric, kind)
            shared = head | {
                "metric": metric.name,
                "kind": kind,
                "unit": metric.unit or None,
                "description": metric.description or None,
                "temporality": _TEMPORALITY.get(getattr(data, "aggregation_temporality", 0)),
                "monotonic": data.is_monotonic if kind == "sum" else None,
            }
            for point in data.data_points:
                yield (
                    shared
                    | _point(point, depth)
                    | (_number(point) if kind in ("gauge", "sum") else _values(kind, point))
                )


def _point(point: Any, depth: int) -> Row:
    return {
        "ts": _ms(point.time_unix_nano),
        "time_ns": point.time_unix_nano,
        "start_ns": point.start_time_unix_nano or None,
        "attributes": _json(_attributes(point.attributes, depth)),
        "flags": point.flags or None,
    }


def _number(point: Any) -> Row:
    kind = point.WhichOneof("value")
    if kind == "as_int":
        return {"value": float(point.as_int), "value_long": point.as_int}
    return {"value": point.as_double if kind else None}


def _values(kind: str, point: Any) -> Row:
    """Of a histogram or a summary."""
    row: Row = {"count": point.count}
    if kind == "summary":
        quantiles = [{"quantile": one.quantile, "value": one.value} for one in point.quantile_values]
        return row | {"sum": point.sum, "buckets": _json(_finite({"quantile_values": quantiles}))}
    row["sum"] = point.sum if point.HasField("sum") else None
    row["minimum"] = point.min if point.HasField("min") else None
    row["maximum"] = point.max if point.HasField("max") else None
    if kind == "histogram":
        buckets: Row = {"explicit_bounds": list(point.explicit_bounds), "bucket_counts": list(point.bucket_counts)}
    else:
        buckets = {"scale": point.scale, "zero_count": point.zero_count, "zero_threshold": point.zero_threshold}
        for name in ("positive", "negative"):
            part = getattr(point, name)
            buckets[name] = {"offset": part.offset, "bucket_counts": list(part.bucket_counts)}
    return row | {"buckets": _json(_finite(buckets))}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _logs(request: Any, depth: int) -> Iterator[Row]:
    for head, scope in _heads(request.resource_logs, "scope_logs", depth):
        for record in scope.log_records:
            body = _plain(record.body, depth)
            yield head | {
                "ts": _ms(record.time_unix_nano or record.observed_time_unix_nano),
                "time_ns": record.time_unix_nano or None,
                "observed_ns": record.observed_time_unix_nano or None,
                "severity": record.severity_number or None,
                "severity_text": record.severity_text or None,
                "event_name": record.event_name or None,
                "body": body if body is None or isinstance(body, str) else _json(body),
                "trace_id": record.trace_id.hex() or None,
                "span_id": record.span_id.hex() or None,
                "attributes": _json(_attributes(record.attributes, depth)),
                "flags": record.flags or None,
            }


def _spans(request: Any, depth: int) -> Iterator[Row]:
    for head, scope in _heads(request.resource_spans, "scope_spans", depth):
        for span in scope.spans:
            events = [
                {"name": one.name, "time_ns": one.time_unix_nano, "attributes": _attributes(one.attributes, depth)}
                for one in span.events
            ]
            links = [
                {"trace_id": one.trace_id.hex(), "span_id": one.span_id.hex()}
                | {"attributes": _attributes(one.attributes, depth)}
                for one in span.links
            ]
            yield head | {
                "ts": _ms(span.start_time_unix_nano),
                "trace_id": span.trace_id.hex() or None,
                "span_id": span.span_id.hex() or None,
                "parent_span_id": span.parent_span_id.hex() or None,
                "trace_state": span.trace_state or None,
                "name": span.name,
                "kind": _named(_SPAN_KINDS, span.kind),
                "start_ns": span.start_time_unix_nano,
                "end_ns": span.end_time_unix_nano,
                "duration_ms": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6,
                "status": _named(_STATUS, span.status.code),
                "status_message": span.status.message or None,
                "attributes": _json(_attributes(span.attributes, depth)),
                "events": _json(events) if events else None,
                "links": _json(links) if links else None,
                "flags": span.flags or None,
            }


def _named(names: tuple[str, ...], number: int) -> str:
    """An enum that a later OTLP may have extended."""
    return names[number] if 0 <= number < len(names) else names[0]


_READERS = {"otel_metrics": _metrics, "otel_logs": _logs, "otel_spans": _spans}
