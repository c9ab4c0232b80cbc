"""Spans and metrics over OTLP, where the environment says where to: OTEL_EXPORTER_OTLP_ENDPOINT and its kin.

opentelemetry is a part of the extra `web`; without it, or without an endpoint, nothing is exported.
"""

from importlib.util import find_spec
from typing import Any

from headwater.config import exports_telemetry

__all__ = ["export_telemetry", "tracer"]

_exporting: set[str] = set()


def export_telemetry(service: str) -> Any:
    """Export this process's spans and metrics, once; the meter to register with, None where nothing is exported.

    Providers that the process has set before are left as they are.
    """
    if not exports_telemetry() or find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        return None
    from opentelemetry import metrics, trace
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    if not _exporting:
        _exporting.add(service)
        resource = Resource.create({"service.name": service})
        spans = TracerProvider(resource=resource)
        spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(spans)
        metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())], resource))
    return metrics.get_meter("headwater")


def tracer(service: str) -> Any:
    """Return a tracer; None where opentelemetry is not installed."""
    if find_spec("opentelemetry") is None:
        return None
    from opentelemetry import trace

    export_telemetry(service)
    return trace.get_tracer("headwater")
