"""Turn OTLP into rows of the shipped contracts: a data point, a log record or a span each.

The rows are those that the gateway makes of an export, and that a pipeline makes of what the OpenTelemetry Collector or
a CloudWatch metric stream puts on a stream. What a contract cannot hold makes its row invalid, and no other.
"""

import base64
import json
import math
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

from headwater.codec.bounds import bounded
from headwater.codec.inflate import MAX_BYTES
from headwater.codec.records import Decoder
from headwater.codec.rows import ARRIVAL, MAX_EVENTS, Row, Unread
from headwater.errors import InvalidRecord, UsageError
from headwater.formats.framing import take_uvarint, unflated
from headwater.formats.otlpitems import (
    SIGNALS,
    checked,
    has_unknown_fields,
    item_request,
    old_labels,
    parse_json,
    parse_protobuf,
    pieces,
    snake,
)

__all__ = ["metric_stream", "otlp", "otlp_rows"]

MAX_NESTING = 32
_UNKNOWN = "unknown_service"
_TEMPORALITY = {1: "delta", 2: "cumulative"}
_SPAN_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUS = ("unset", "ok", "error")


def otlp(contract: str) -> Decoder:
    """Return a decoder of OTLP export requests in protobuf or JSON, as the Collector's awskinesis exporter writes them.

    `contract` is the shipped contract of the signal: otel_metrics, otel_logs or otel_spans; use it, or one that has its
    fields, for the pipeline. What is no OTLP is read as a raw deflate stream, which the exporter writes with
    `compression: flate`: it has no mark. A row whose time is 0 takes the time when it was observed, or its record's
    arrival. Raise UsageError for another contract.

    >>> otlp("otel_spans")(b'{"resourceSpans": []}')
    []
    """
    if contract not in SIGNALS:
        raise UsageError(f"otlp: {contract} is none of {', '.join(SIGNALS)}")

    def read(data: bytes) -> list[Row | Unread]:
        rows = otlp_rows(data, contract, in_json=data.lstrip().startswith(b"{"), nesting=MAX_NESTING)
        return list(islice(rows, MAX_EVENTS + 1))  # whoever reads the record refuses so many

    def decode(data: bytes) -> list[Row | Unread]:
        try:
            return read(data)
        except InvalidRecord:
            if not (content := unflated(data)):
                raise
        return read(content)

    return decode


def metric_stream() -> Decoder:
    """Return a decoder of CloudWatch metric streams in the OpenTelemetry formats, for the contract otel_metrics.

    Those of 0.7 are read as those of 1.0, their labels as attributes. A record holds export requests one after the
    other, each with its length before it
    (https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-metric-streams-formats-opentelemetry.html).

    >>> metric_stream()(b"\\0")
    []
    """
    return _metric_stream


def _metric_stream(data: bytes) -> list[Row | Unread]:
    rows: list[Row | Unread] = []
    at = 0
    while at < len(data):
        length, at = take_uvarint(data, at)
        if length > len(data) - at:
            raise InvalidRecord("a metric stream that is cut")
        rows += otlp_rows(data[at : at + length], "otel_metrics", in_json=False, nesting=MAX_NESTING)
        at += length
        if len(rows) > MAX_EVENTS:
            raise InvalidRecord(f"more than {MAX_EVENTS} events")
    return rows


def otlp_rows(
    body: bytes, contract: str, *, in_json: bool, nesting: int, limit: int = MAX_BYTES
) -> Iterator[Row | Unread]:
    """Yield a row for each item of an export request; what cannot be read of it is Unread, beside the others.

    Each row has the texts of its resource and scope. Raise TooLarge when all texts come to more than `limit` bytes, and
    InvalidRecord when the body is no request, or nothing that is known is in it.
    """
    parsed = parse_json(body, contract, nesting) if in_json else parse_protobuf(body, contract)
    return bounded(_rows(parsed, contract, nesting), _size, limit)


def _rows(parsed: Iterable[Any], contract: str, nesting: int) -> Iterator[Row | Unread]:
    for request in parsed:
        if isinstance(request, Unread):
            yield request
        else:
            yield from _items(request, contract, nesting)


def _size(row: Row | Unread) -> int:
    """Return the bytes of a row's texts: it has no others, and no values within values."""
    return len(row.raw) if isinstance(row, Unread) else sum([len(one) for one in row.values() if isinstance(one, str)])


def _items(request: Any, contract: str, depth: int) -> Iterator[Row | Unread]:
    """Yield the rows of a request. An item that is nested too deeply, or is of a kind that is not known, is Unread."""
    signal, read = SIGNALS[contract], _READERS[contract]
    for resource in getattr(request, snake(signal.resources)):
        for scope in getattr(resource, snake(signal.scopes)):
            head: Row | None = None
            for item in chain.from_iterable(map(pieces, getattr(scope, snake(signal.items)))):
                try:
                    head = head or _head(resource, scope, depth)
                    rows = read(item, depth, head)
                except InvalidRecord as error:
                    yield Unread(str(error), item_request(signal, resource, scope, item))
                else:
                    yield from rows


def _plain(value: Any, depth: int) -> Any:
    """Return an AnyValue as JSON has it; bytes in base64, numbers that JSON lacks as text."""
    if not depth:
        raise InvalidRecord("an attribute is nested too deeply")
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
    return _finite(found) if kind == "double_value" else found


def _attributes(listed: Iterable[Any], depth: int) -> dict[str, Any]:
    return {one.key: _plain(one.value, depth) for one in listed}


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_FINITE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _json(value: Any) -> str:
    return _ENCODER.encode(value)


def _attributes_text(listed: Any, depth: int) -> str:
    """Return what `_json` writes of `_attributes`; most are texts and whole numbers, which are written here."""
    texts = {one.key: _value_text(one.value, depth) for one in listed} if listed else {}
    return "{" + ",".join([f"{_quoted(key)}:{text}" for key, text in texts.items()]) + "}"


def _value_text(value: Any, depth: int) -> str:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return _quoted(value.string_value)
    return str(value.int_value) if kind == "int_value" else _ENCODER.encode(_plain(value, depth))


_quoted = json.encoder.encode_basestring


def _head(resource: Any, scope: Any, depth: int) -> dict[str, Any]:
    """Return the columns that all rows of a scope share."""
    attributes = _attributes(checked(resource.resource).attributes, depth)
    service = attributes.get("service.name")
    return {
        "service": service if isinstance(service, str) and service else _UNKNOWN,
        "resource": _json(attributes),
        "scope": scope.scope.name or None,
        "scope_version": scope.scope.version or None,
        "scope_attributes": _json_or_none(_attributes(checked(scope.scope).attributes, depth)),
        "schema_url": scope.schema_url or resource.schema_url or None,
    }


def _finite_json(value: Any) -> str:
    """Return the JSON of values of which most often none is a number that JSON lacks."""
    try:
        return _FINITE.encode(value)
    except ValueError:
        return _json(_finite(value))


def _json_or_none(value: Any) -> str | None:
    return _json(value) if value else None


def _when(first: int, second: int = 0) -> object:
    """Return the first time that is given, in epoch ms; where none is (0 in OTLP), the record's arrival."""
    found = first or second
    return found // 1_000_000 if found else ARRIVAL


def _metric(metric: Any, depth: int, head: Row) -> list[Row]:
    kind = metric.WhichOneof("data")
    if kind is None:
        if has_unknown_fields(metric):
            raise InvalidRecord(f"metric {metric.name[:60]} is of a kind that is not known")
        return []
    data = getattr(metric, kind)
    shared = {
        **head,
        "metric": metric.name,
        "kind": kind,
        "unit": metric.unit or None,
        "description": metric.description or None,
        "temporality": _TEMPORALITY.get(getattr(data, "aggregation_temporality", 0)),
        "monotonic": data.is_monotonic if kind == "sum" else None,
    }
    return [{**shared, **_point(kind, point, depth), **_POINTS[kind](point)} for point in data.data_points]


def _point(kind: str, point: Any, depth: int) -> dict[str, Any]:
    time = checked(point).time_unix_nano
    exemplars = () if kind == "summary" else point.exemplars
    return {
        "ts": _when(time),
        "time_ns": time or None,
        "start_ns": point.start_time_unix_nano or None,
        "attributes": _attributes_text(point.attributes, depth) if point.attributes else _json(old_labels(point)),
        "exemplars": _json_or_none([_exemplar(one, depth) for one in exemplars]) if exemplars else None,
        "flags": point.flags or None,
    }


def _exemplar(one: Any, depth: int) -> Row:
    kind = one.WhichOneof("value")
    return {
        "time_ns": one.time_unix_nano,
        "value": _finite(getattr(one, kind)) if kind else None,
        "trace_id": one.trace_id.hex(),
        "span_id": one.span_id.hex(),
        "attributes": _attributes(one.filtered_attributes, depth),
    }


def _number(point: Any) -> dict[str, Any]:
    kind = point.WhichOneof("value")
    if kind == "as_int":
        return {"value": float(point.as_int), "value_long": point.as_int}
    if kind and not math.isfinite(point.as_double):
        return {"value": None, "value_text": _spelled(point.as_double)}
    return {"value": point.as_double if kind else None}


def _summary(point: Any) -> dict[str, Any]:
    quantiles = [{"quantile": one.quantile, "value": one.value} for one in point.quantile_values]
    return {
        "count": point.count,
        "sum": _double(point.sum),
        "buckets": _finite_json({"quantile_values": quantiles}),
    }


def _histogram(point: Any) -> dict[str, Any]:
    bounds, counts = list(point.explicit_bounds), list(point.bucket_counts)
    return _distribution(point, {"explicit_bounds": bounds, "bucket_counts": counts})


def _exponential(point: Any) -> dict[str, Any]:
    buckets = {"scale": point.scale, "zero_count": point.zero_count, "zero_threshold": point.zero_threshold}
    for name in ("positive", "negative"):
        part = getattr(point, name)
        buckets[name] = {"offset": part.offset, "bucket_counts": list(part.bucket_counts)}
    return _distribution(point, buckets)


def _distribution(point: Any, buckets: dict[str, Any]) -> dict[str, Any]:
    return {
        "count": point.count,
        "sum": _double(point.sum) if point.HasField("sum") else None,
        "minimum": _double(point.min) if point.HasField("min") else None,
        "maximum": _double(point.max) if point.HasField("max") else None,
        "buckets": _finite_json(buckets),
    }


_POINTS = {
    "gauge": _number,
    "sum": _number,
    "histogram": _histogram,
    "exponential_histogram": _exponential,
    "summary": _summary,
}
"""Return the columns that only points of one kind of metric have."""


def _double(value: float) -> float | None:
    """Return a number that a column holds; the sum of a histogram with infinite values is none."""
    return value if math.isfinite(value) else None


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return _spelled(value) if isinstance(value, float) and not math.isfinite(value) else value


def _spelled(value: float) -> str:
    """Return a number that JSON lacks as OTLP's JSON spells it."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _log(record: Any, depth: int, head: Row) -> list[Row]:
    body = _plain(checked(record).body, depth)
    row = {
        **head,
        "ts": _when(record.time_unix_nano, record.observed_time_unix_nano),
        "time_ns": record.time_unix_nano or None,
        "observed_ns": record.observed_time_unix_nano or None,
        "severity": record.severity_number or None,
        "severity_text": record.severity_text or None,
        "event_name": record.event_name or None,
        "body": body if body is None or isinstance(body, str) else _json(body),
        "trace_id": record.trace_id.hex() or None,
        "span_id": record.span_id.hex() or None,
        "attributes": _attributes_text(record.attributes, depth),
        "dropped_attributes": record.dropped_attributes_count or None,
        "flags": record.flags or None,
    }
    return [row]


def _span(span: Any, depth: int, head: Row) -> list[Row]:
    start, end = checked(span).start_time_unix_nano, span.end_time_unix_nano
    code, message = (span.status.code, span.status.message) if span.HasField("status") else (0, "")
    row = {
        **head,
        "ts": _when(start, end),
        "trace_id": span.trace_id.hex() or None,
        "span_id": span.span_id.hex() or None,
        "parent_span_id": span.parent_span_id.hex() or None,
        "trace_state": span.trace_state or None,
        "name": span.name,
        "kind": _enum_name(_SPAN_KINDS, span.kind),
        "start_ns": start or None,
        "end_ns": end or None,
        # a span that has not ended, as some SDKs export it, has no duration yet
        "duration_ms": (end - start) / 1e6 if start and end else None,
        "status": _enum_name(_STATUS, code),
        "status_message": message or None,
        "attributes": _attributes_text(span.attributes, depth),
        "dropped_attributes": span.dropped_attributes_count or None,
        "dropped_events": span.dropped_events_count or None,
        "dropped_links": span.dropped_links_count or None,
        "events": _json_or_none([_span_event(one, depth) for one in span.events]),
        "links": _json_or_none([_span_link(one, depth) for one in span.links]),
        "flags": span.flags or None,
    }
    return [row]


def _span_event(one: Any, depth: int) -> Row:
    return {"name": one.name, "time_ns": one.time_unix_nano, "attributes": _attributes(one.attributes, depth)}


def _span_link(one: Any, depth: int) -> Row:
    return {
        "trace_id": one.trace_id.hex(),
        "span_id": one.span_id.hex(),
        "attributes": _attributes(one.attributes, depth),
    }


def _enum_name(names: tuple[str, ...], number: int) -> str:
    """Return the name of an enum's number; the first name for numbers that later versions of OTLP have added."""
    return names[number] if 0 <= number < len(names) else names[0]


_READERS = {"otel_metrics": _metric, "otel_logs": _log, "otel_spans": _span}
