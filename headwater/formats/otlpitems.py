"""Take an OTLP export request apart into its items: log records, spans, metrics, each with its resource and scope.

A request is read in one pass where it can be. Where not, each item is read by itself, so that one with invalid UTF-8,
an id that is no hexadecimal or nesting without end costs only itself. Fields as in opentelemetry-proto's .proto files.
"""

import base64
import json
import re
from collections.abc import Iterator
from functools import cache
from itertools import chain, count
from typing import Any, NamedTuple, TypeVar

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from headwater.codec.bounds import TextBudget, TooLarge, check_messages, check_values
from headwater.codec.rows import Unread, one_line
from headwater.errors import InvalidRecord
from headwater.formats.framing import take_uvarint, uvarint

__all__ = [
    "SIGNALS",
    "Signal",
    "checked",
    "has_unknown_fields",
    "item_request",
    "old_labels",
    "parse_json",
    "parse_protobuf",
    "pieces",
    "snake",
]

Data = TypeVar("Data", bytes, memoryview)


class Signal(NamedTuple):
    """Hold the names of a signal's request: its message, and the JSON names of its lists at each level."""

    request: Any
    resources: str
    scopes: str
    items: str


SIGNALS = {
    "otel_metrics": Signal(ExportMetricsServiceRequest, "resourceMetrics", "scopeMetrics", "metrics"),
    "otel_logs": Signal(ExportLogsServiceRequest, "resourceLogs", "scopeLogs", "logRecords"),
    "otel_spans": Signal(ExportTraceServiceRequest, "resourceSpans", "scopeSpans", "spans"),
}
"""Kinds of items by the shipped contract that holds the rows."""
_IDS = frozenset({"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"})
_HEX = re.compile(r"[0-9a-fA-F]*")
_LENGTH_DELIMITED = 2
_FIXED = {1: 8, 5: 4}
_PART = 500
"""Items of a large body in JSON that are read at once; each is there three times meanwhile."""
_LARGE = 1 << 20
_MOST_CONTAINERS = 700_000
"""Objects and lists of a body in JSON, all of which are there at once: 16 MiB of short attributes have 650,000."""
_MOST_FIELDS = 700_000
"""Resources, scopes and items of a large body in protobuf, with what stands beside them; each takes 2 µs."""
_MOST_POINTS = 4_096
_PART_BYTES = 1 << 20
"""Bytes of a body in protobuf that are read at once."""
_MOST_VALUES = 100_000
"""Values of one item; in JSON objects and lists of the items that are read at once. Each takes half a kilobyte until it
is text."""
_LIST, _ITEMS = 1, 2
"""The numbers of a request's list of resources, and of the list within a resource and within a scope."""


def parse_protobuf(body: bytes, contract: str) -> Iterator[Message | Unread]:
    """Yield requests that together hold the body's items, and what cannot be read of it.

    A large body is read in parts, which bound the memory: two bytes may be a message of eighty. Raise InvalidRecord
    when the body is no export request at all, or nothing that is known is in it.
    """
    signal = SIGNALS[contract]
    known = strange = False
    parts = _protobuf_parts(body, _PART_BYTES)
    for part in chain([next(parts, body)], parts):
        for one in _from_protobuf(part, signal):
            has_items = isinstance(one, Unread) or _has_items(one, signal)
            known = known or has_items
            strange = strange or (not has_items and has_unknown_fields(one))
            yield one
    if strange and not known:
        raise InvalidRecord(f"nothing in it is known as {signal.items} of OTLP")


def _from_protobuf(part: bytes, signal: Signal) -> Iterator[Message | Unread]:
    """Yield the request that a part is; where it is none, each of its items in a request of its own."""
    try:
        check_messages(part)
        yield signal.request.FromString(part)
    except InvalidRecord as error:
        yield Unread(str(error), part)
    except DecodeError as error:
        items = _protobuf_parts(part, 0)
        first = next(items, None)
        if first is None:
            raise InvalidRecord(f"not an OTLP request in protobuf: {one_line(error)[:200]}") from None
        for item in chain([first], items):
            try:
                yield signal.request.FromString(item)
            except DecodeError as wrong:
                yield Unread(f"not OTLP in protobuf: {one_line(wrong)[:200]}", item)


def parse_json(body: bytes, contract: str, nesting: int) -> Iterator[Message | Unread]:
    """Yield requests that together hold the items of a body in OTLP's JSON, whose ids are hexadecimal.

    A list that is not OTLP's (of another version, or misspelt) is an Unread of its own. Raise InvalidRecord when the
    body is no export request at all, or nothing that is known is in it.
    """
    signal = SIGNALS[contract]
    try:
        check_values(body, _MOST_CONTAINERS)
        found = json.loads(body.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InvalidRecord(f"not an OTLP request in JSON: {one_line(error)}") from None
    if not isinstance(found, dict):
        raise InvalidRecord("not an OTLP request in JSON: the body is no JSON object")
    if found and _named(found, signal.resources) is None:
        raise InvalidRecord(f"not an OTLP request in JSON: it has no {signal.resources}")
    for part in _parts(found, signal, _PART) if len(body) > _LARGE else [found]:
        try:
            yield _from_json(part, signal, nesting)
        except InvalidRecord:  # of one of its items, or all together have too many values
            yield from _json_items(part, signal, nesting)
    yield from _unknown_parts(found, signal)


def _has_items(request: Any, signal: Signal) -> bool:
    resources = getattr(request, snake(signal.resources))
    return any(getattr(scope, snake(signal.items)) for one in resources for scope in getattr(one, snake(signal.scopes)))


def _from_json(found: dict[str, Any], signal: Signal, nesting: int) -> Message:
    made: Message = signal.request()
    try:
        ParseDict(
            _with_ids(found, 2 * nesting + 20, count()),
            made,
            ignore_unknown_fields=True,
            max_recursion_depth=2 * nesting + 20,
        )
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, ParseError) as error:
        raise InvalidRecord(f"not an OTLP request in JSON: {one_line(error)[:200]}") from None
    return made


def _with_ids(value: Any, depth: int, made: Iterator[int]) -> Any:
    """Return the value with hexadecimal ids in base64, as protobuf's own JSON has bytes; count what is made."""
    if not isinstance(value, (dict, list)):
        return value
    if not depth:
        raise ValueError("nested too deeply")
    if next(made) > _MOST_VALUES:
        raise ValueError(f"more than {_MOST_VALUES:,} objects and lists")
    if isinstance(value, list):
        return [_with_ids(one, depth - 1, made) for one in value]
    return {
        name: _id(name, one) if name in _IDS and isinstance(one, str) else _with_ids(one, depth - 1, made)
        for name, one in value.items()
    }


def _id(name: str, text: str) -> str:
    if not _HEX.fullmatch(text) or len(text) % 2:
        raise ValueError(f"{name} {text[:40]!r} is not hexadecimal")
    return base64.b64encode(bytes.fromhex(text)).decode()


def _no_number(token: str) -> Any:
    raise ValueError(f"{token} is not a JSON number: OTLP writes it as text")


def _json_items(found: dict[str, Any], signal: Signal, nesting: int) -> Iterator[Message | Unread]:
    """Read each item in a request of its own."""
    for one in _parts(found, signal, 1):
        try:
            yield _from_json(one, signal, nesting)
        except InvalidRecord as error:
            yield Unread(str(error), json.dumps(one).encode())


def _parts(found: dict[str, Any], signal: Signal, most: int) -> Iterator[dict[str, Any]]:
    """Yield requests of at most so many items each, with their resource and scope.

    Raise TooLarge once what they share comes to too many bytes, that of each request counted.
    """
    budget = TextBudget()
    listed, size = list[dict[str, Any]](), 0
    for resource in _dicts(_named(found, signal.resources)):
        shared = {name: value for name, value in resource.items() if name not in _spellings(signal.scopes)}
        of_resource = json.dumps(shared)
        for scope in _dicts(_named(resource, signal.scopes)):
            of_scope = {name: value for name, value in scope.items() if name not in _spellings(signal.items)}
            heads = [of_resource, json.dumps(of_scope)]
            items = _list(_named(scope, signal.items))
            for at in range(0, len(items), most):
                some = items[at : at + most]
                budget.take(heads, {str})
                if size + len(some) > most:
                    yield {signal.resources: listed}
                    listed, size = [], 0
                listed.append(shared | {signal.scopes: [of_scope | {signal.items: some}]})
                size += len(some)
    if listed:
        yield {signal.resources: listed}


def _unknown_parts(found: dict[str, Any], signal: Signal) -> Iterator[Unread]:
    """Yield the lists beside those that are known, such as `instrumentationLibrarySpans` of OTLP before 0.19."""

    def strangers(part: dict[str, Any], known: str) -> Iterator[Unread]:
        for name, value in part.items():
            if isinstance(value, list) and value and name not in _spellings(known):
                text = json.dumps({name: value}).encode()
                yield Unread(f"{name[:60]} is no list of OTLP in its place: {known} is", text)

    yield from strangers(found, signal.resources)
    for resource in _dicts(_named(found, signal.resources)):
        yield from strangers({name: one for name, one in resource.items() if name != "entityRefs"}, signal.scopes)
        for scope in _dicts(_named(resource, signal.scopes)):
            yield from strangers(scope, signal.items)


def has_unknown_fields(message: Message) -> bool:
    """Return True when a message has fields, at any depth, that its definition does not know."""
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    return bool(known.ByteSize() < message.ByteSize())


def item_request(signal: Signal, resource: Any, scope: Any, item: Any) -> bytes:
    """Return one item as a request of its own, in protobuf, so that it can be sent again."""
    made = signal.request()
    its_resource = getattr(made, snake(signal.resources)).add()
    its_resource.resource.CopyFrom(resource.resource)
    its_resource.schema_url = resource.schema_url
    its_scope = getattr(its_resource, snake(signal.scopes)).add()
    its_scope.scope.CopyFrom(scope.scope)
    its_scope.schema_url = scope.schema_url
    getattr(its_scope, snake(signal.items)).add().CopyFrom(item)
    return bytes(made.SerializeToString())


def old_labels(point: Any) -> dict[str, str]:
    """Return the labels of a data point of OTLP before 0.9, as CloudWatch writes them in its OpenTelemetry 0.7 format.

    They were texts, and their field is none of later versions.
    """
    found = dict[str, str]()
    for one in UnknownFieldSet(point):
        if one.field_number == _LIST and one.wire_type == _LENGTH_DELIMITED:
            parts = dict(_fields(one.data))
            try:
                found[parts.get(1, b"").decode()] = parts.get(2, b"").decode()
            except UnicodeDecodeError:
                raise InvalidRecord("a label that is no UTF-8 text") from None
    return found


def pieces(item: Any) -> Iterator[Any]:
    """Yield an item; a metric of very many points as several of fewer, since all rows of one are there at once."""
    kind: str = (item.WhichOneof("data") or "") if item.DESCRIPTOR.name == "Metric" else ""
    points = getattr(item, kind).data_points if kind else ()
    if len(points) <= _MOST_POINTS:
        yield item
        return
    empty = type(item)()
    empty.CopyFrom(item)
    del getattr(empty, kind).data_points[:]
    for at in range(0, len(points), _MOST_POINTS):
        piece = type(item)()
        piece.CopyFrom(empty)
        getattr(piece, kind).data_points.extend(points[at : at + _MOST_POINTS])
        yield piece


@cache
def snake(name: str) -> str:
    """Return the name of a field in protobuf for its name in JSON."""
    return re.sub(r"([A-Z])", r"_\1", name).lower()


def _spellings(name: str) -> tuple[str, str]:
    return name, snake(name)


def _named(part: dict[str, Any], name: str) -> Any:
    return next((part[one] for one in _spellings(name) if one in part), None)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in _list(value) if isinstance(one, dict)]


def _protobuf_parts(body: bytes, most: int) -> Iterator[bytes]:
    """Yield requests of at most so many bytes, or of one item, that together have the items of a body.

    Raise TooLarge once what they share comes to too many bytes, that of each request counted, or for too many fields.
    """
    if 0 < len(body) <= most:
        yield body
    else:
        yield from _split(memoryview(body), _LIST, 3, most, _WalkBudget())


class _WalkBudget(TextBudget):
    """Bound what the requests of one body share, and how many fields are walked over for them."""

    def __init__(self) -> None:
        super().__init__()
        self._walked = 0

    def counted(self, message: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Yield a message's fields; TooLarge once those of all messages are too many."""
        for one in _fields(message):
            self._walked += 1
            if self._walked > _MOST_FIELDS:
                raise TooLarge(f"protobuf of more than {_MOST_FIELDS} resources, scopes and items")
            yield one


def _split(message: memoryview, number: int, levels: int, most: int, budget: _WalkBudget) -> Iterator[bytes]:
    """Yield messages with some of a message's list each, whose field has this number, and all of its other fields.

    `levels` is how many lists there are within one another: those of resources, of scopes, of items.
    """
    shared = b"".join(_field(at, one) for at, one in budget.counted(message) if at not in (0, number))
    some, size = list[bytes](), len(shared)
    for at, one in _fields(message):
        if at != number:
            continue
        whole = levels == 1 or 0 < len(one) <= most
        for piece in (one,) if whole else _split(one, _ITEMS, levels - 1, most, budget):
            if some and size + len(piece) > most:
                budget.take([shared], {bytes})
                yield shared + b"".join(some)
                some, size = [], len(shared)
            some.append(_field(number, piece))
            size += len(some[-1])
    if some:
        budget.take([shared], {bytes})
        yield shared + b"".join(some)


def checked(message: Any) -> Any:
    """Return an item, a point or a resource; InvalidRecord where it has too many values to be made at once."""
    if message.ByteSize() > _PART_BYTES:
        check_messages(message.SerializeToString(), _MOST_VALUES)
    return message


def _fields(data: Data) -> Iterator[tuple[int, Data]]:
    """Yield the number and content of each length-delimited field of a message; others are 0 and nothing.

    Raise InvalidRecord where it is no message.
    """
    at = 0
    while at < len(data):
        tag, at = take_uvarint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == _LENGTH_DELIMITED:
            length, at = take_uvarint(data, at)
            if length > len(data) - at:
                raise InvalidRecord("not an OTLP request in protobuf: it is cut")
            yield number, data[at : at + length]
            at += length
        elif kind == 0:
            _, at = take_uvarint(data, at)
            yield 0, data[at:at]
        elif kind in _FIXED and at + _FIXED[kind] <= len(data):
            at += _FIXED[kind]
            yield 0, data[at:at]
        else:
            raise InvalidRecord("not an OTLP request in protobuf")


def _field(number: int, content: bytes | memoryview) -> bytes:
    return uvarint(number << 3 | _LENGTH_DELIMITED) + uvarint(len(content)) + content
