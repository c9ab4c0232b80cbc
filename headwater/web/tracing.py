"""Read W3C trace contexts, and make the spans of requests: what comes in goes on with the batch.

Spans are made through `opentelemetry-api`: where the process has no SDK configured they cost little, and the caller's
own `traceparent` goes on as it came.
"""

import re
from collections.abc import Mapping
from typing import Any

from opentelemetry import propagate, trace

__all__ = ["is_sampled", "parse_traceparent", "span", "traceparent_of"]

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_tracer = trace.get_tracer("headwater.gateway")


def parse_traceparent(text: str | None) -> str | None:
    """Return the header in its normal form, or None for one that may not be passed on; W3C says to ignore bad ones."""
    found = _TRACEPARENT.fullmatch(text.strip()) if text else None
    if found is None or found[1] == "ff" or not int(found[2], 16) or not int(found[3], 16):
        return None
    if found[1] == "00" and found[5]:
        return None
    return f"00-{found[2]}-{found[3]}-{int(found[4], 16) & 1:02x}"


def is_sampled(traceparent: str | None) -> bool:
    """Say whether somebody records the trace: only then is it worth a batch of its own."""
    return traceparent is not None and traceparent.endswith("-01")


def span(name: str, headers: Mapping[str, str]) -> Any:
    """Return the server's span of a request, as a context manager."""
    return _tracer.start_as_current_span(name, context=propagate.extract(headers), kind=trace.SpanKind.SERVER)


def traceparent_of(current: Any, headers: Mapping[str, str]) -> str | None:
    """Return what goes with the batch: the current span where it is recorded, else the header that came in."""
    context = current.get_span_context()
    if current.is_recording() and context.is_valid:
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags) & 1:02x}"
    return parse_traceparent(headers.get("traceparent"))
