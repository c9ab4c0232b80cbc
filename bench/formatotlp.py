"""Make what the OpenTelemetry Collector and CloudWatch's metric streams write, and decode it by hand, all columns."""

import base64
import json
from typing import Any

from google.protobuf.json_format import MessageToDict, Parse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bench.formatcases import NOON_MS, FormatCase, Rows, batches
from headwater import formats
from headwater.contract import load_contract
from headwater.formats.framing import uvarint


def text(value: Any) -> str | None:
    return json.dumps(value, separators=(",", ":")) if value else None


def attributes(listed: Any) -> dict[str, Any]:
    """Texts alone: less than the decoder takes."""
    return {one.key: one.value.string_value for one in listed}


def head(resource: Any, scope: Any) -> dict[str, Any]:
    of_resource = attributes(resource.resource.attributes)
    return {
        "service": of_resource["service.name"], "resource": json.dumps(of_resource, separators=(",", ":")),
        "scope": scope.scope.name or None, "scope_version": scope.scope.version or None,
        "scope_attributes": text(attributes(scope.scope.attributes)), "schema_url": resource.schema_url or None,
    }  # fmt: skip


def span_rows(found: Any) -> Rows:
    """All columns of the contract, as the decoder has them."""
    for resource in found.resource_spans:
        for scope in resource.scope_spans:
            shared = head(resource, scope)
            for one in scope.spans:
                start, end = one.start_time_unix_nano, one.end_time_unix_nano
                yield {
                    **shared, "ts": start // 10**6, "trace_id": one.trace_id.hex(), "span_id": one.span_id.hex(),
                    "parent_span_id": one.parent_span_id.hex() or None, "trace_state": one.trace_state or None,
                    "name": one.name, "kind": ["unspecified", "internal", "server"][one.kind], "start_ns": start,
                    "end_ns": end, "duration_ms": (end - start) / 1e6,
                    "status": ["unset", "ok", "error"][one.status.code], "status_message": one.status.message or None,
                    "attributes": json.dumps(attributes(one.attributes), separators=(",", ":")),
                    "events": text([attributes(event.attributes) for event in one.events]),
                    "links": text([attributes(link.attributes) for link in one.links]),
                    "dropped_attributes": one.dropped_attributes_count or None, "flags": one.flags or None,
                    "dropped_events": one.dropped_events_count or None,
                    "dropped_links": one.dropped_links_count or None,
                }  # fmt: skip


def spans(ats: range) -> ExportTraceServiceRequest:
    made = ExportTraceServiceRequest()
    resource = made.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    for at in ats:
        one = resource.scope_spans.add().spans.add() if at == ats[0] else resource.scope_spans[0].spans.add()
        one.name, one.trace_id, one.span_id, one.kind = f"GET /{at}", at.to_bytes(16), at.to_bytes(8), 2
        one.start_time_unix_nano, one.end_time_unix_nano = (NOON_MS - at) * 10**6, (NOON_MS - at) * 10**6 + 1000
        one.attributes.add(key="http.method").value.string_value = "GET"
        one.attributes.add(key="http.target").value.string_value = f"/{at}"
    return made


def otlp_protobuf() -> FormatCase:
    of = load_contract("otel_spans")
    datas = batches(lambda ats: spans(ats).SerializeToString())
    plain = ExportTraceServiceRequest.FromString
    return FormatCase(
        "OTLP, protobuf", "FromString and a loop", formats.otlp("otel_spans"), of, datas, plain, span_rows
    )


def otlp_json() -> FormatCase:
    def with_hex(ats: range) -> bytes:
        found = MessageToDict(spans(ats))
        for one in found["resourceSpans"][0]["scopeSpans"][0]["spans"]:
            one |= {name: base64.b64decode(one[name]).hex() for name in ("traceId", "spanId")}
        return json.dumps(found).encode()

    def plain(data: bytes) -> ExportTraceServiceRequest:
        found = json.loads(data)
        for one in found["resourceSpans"][0]["scopeSpans"][0]["spans"]:
            one |= {name: base64.b64encode(bytes.fromhex(one[name])).decode() for name in ("traceId", "spanId")}
        return Parse(json.dumps(found), ExportTraceServiceRequest())

    of = load_contract("otel_spans")
    return FormatCase(
        "OTLP, JSON",
        "json_format.Parse and a loop",
        formats.otlp("otel_spans"),
        of,
        batches(with_hex),
        plain,
        span_rows,
    )


def metric_stream() -> FormatCase:
    def made(ats: range) -> bytes:
        request = ExportMetricsServiceRequest()
        resource = request.resource_metrics.add()
        resource.resource.attributes.add(key="service.name").value.string_value = "aws"
        metrics = resource.scope_metrics.add().metrics
        for at in ats:
            metric = metrics.add(name=f"amazonaws.com/AWS/EC2/CPUUtilization{at % 9}", unit="Percent")
            point = metric.summary.data_points.add(count=5, sum=at / 3 + 1)
            point.start_time_unix_nano, point.time_unix_nano = (NOON_MS - at) * 10**6, (NOON_MS - at) * 10**6
            point.attributes.add(key="InstanceId").value.string_value = f"i-{at}"
            for quantile in (0.0, 1.0):
                point.quantile_values.add(quantile=quantile, value=at / 7)
        data = request.SerializeToString()
        return uvarint(len(data)) + data

    def plain(data: bytes) -> ExportMetricsServiceRequest:
        at = next(at for at, byte in enumerate(data) if byte < 0x80) + 1
        return ExportMetricsServiceRequest.FromString(data[at:])

    def rows(found: Any) -> Rows:
        for resource in found.resource_metrics:
            for scope in resource.scope_metrics:
                shared = head(resource, scope)
                for one in scope.metrics:
                    for point in one.summary.data_points:
                        pairs = [{"quantile": pair.quantile, "value": pair.value} for pair in point.quantile_values]
                        yield {
                            **shared, "metric": one.name, "kind": "summary", "unit": one.unit or None,
                            "description": one.description or None, "ts": point.time_unix_nano // 10**6,
                            "time_ns": point.time_unix_nano, "start_ns": point.start_time_unix_nano,
                            "attributes": json.dumps(attributes(point.attributes), separators=(",", ":")),
                            "flags": point.flags or None, "count": point.count, "sum": point.sum,
                            "buckets": json.dumps({"quantile_values": pairs}, separators=(",", ":")),
                        }  # fmt: skip

    of = load_contract("otel_metrics")
    return FormatCase(
        "CloudWatch metric stream", "FromString and a loop", formats.metric_stream(), of, batches(made), plain, rows
    )


OTLP_CASES = (otlp_protobuf, otlp_json, metric_stream)
