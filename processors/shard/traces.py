"""Report the trace contexts of batches at the commit: in a log line, and as a span of each trace.

Nothing depends on it: a trace is reported when the commit that has its events succeeds, and forgotten with the worker.
"""

import logging
from collections.abc import Sequence
from typing import Any

from headwater.clock import Clock
from headwater.telemetry.spans import tracer

__all__ = ["Traces"]

MOST = 100
"""Most traces reported of one commit, which may have millions of events."""

log = logging.getLogger("headwater.processor")


class Traces:
    """Hold the trace contexts of the batches taken in since the last commit."""

    def __init__(self, shard_id: str, clock: Clock) -> None:
        self._shard_id, self._clock = shard_id, clock
        self._begun: dict[str, int] = {}

    def add(self, traceparents: Sequence[str]) -> None:
        """Note the trace contexts of batches that were taken in now."""
        for one in traceparents:
            if len(self._begun) < MOST:
                self._begun.setdefault(one, self._clock.now_ms())

    def committed(self, position: str, files: Sequence[str]) -> None:
        """Report the noted traces: their events are in a commit that names these files."""
        if not self._begun:
            return
        begun, self._begun = self._begun, {}
        ids = sorted({one.split("-")[1] for one in begun if one.count("-") == 3})
        more = {"shard": self._shard_id, "position": position, "files": list(files), "traces": ids}
        log.info("traced batches committed", extra=more)
        spans = tracer("headwater-processor")
        if spans is not None:
            self._spans(spans, begun, {"headwater.shard": self._shard_id, "headwater.files": list(files)})

    def _spans(self, spans: Any, begun: dict[str, int], attributes: dict[str, Any]) -> None:
        # imported here: OpenTelemetry is an optional dependency
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        for traceparent, since in begun.items():
            context = TraceContextTextMapPropagator().extract({"traceparent": traceparent})
            span = spans.start_span(
                "process and commit",
                context,
                trace.SpanKind.CONSUMER,
                attributes,
                start_time=since * 1_000_000,
            )
            span.end(self._clock.now_ms() * 1_000_000)
