"""Events as JSON objects.

Two readers give the same answer: `pyarrow.json` over the joined events with the contract's schema for the usual case,
and row by row through `validate_row` for whatever that does not take. The first is used only where it is known to read
as the second does; the rules are with each check.
"""

import json
from collections.abc import Mapping, Sequence
from typing import NoReturn

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from headwater.codec.decoded import Decoded, kept_rows
from headwater.contract import Contract, InvalidRow, conform, validate_row
from headwater.errors import InvalidEvent, InvalidRecord

__all__ = ["decode_payloads", "decode_text", "event_json"]

MAX_EVENTS = 1 << 20
_BOUNDS_MS = (-62_135_596_800_000, 253_402_300_799_999)
"""The years 1 to 9999, which is what Python's datetime holds."""
_TIMESTAMP = r"^[12]\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?(Z|\+00:00)$"
_DATE = r"^[12]\d{3}-\d\d-\d\d$"


def decode_text(text: bytes, contract: Contract) -> Decoded:
    """Stripped text that is a JSON array of events, one event, or one event a line; empty lines don't count."""
    if text.startswith(b"["):
        return decode_payloads(_array(text), contract)
    lines = [line for line in map(bytes.strip, text.split(b"\n")) if line]
    if len(lines) > 1 and not _parses(lines[0]) and _parses(text):
        lines = [text]
    return decode_payloads(lines, contract)


def decode_payloads(payloads: Sequence[bytes], contract: Contract) -> Decoded:
    """One JSON object each. What is none, or breaks the contract, is an InvalidRow; the others are not touched by it."""
    if len(payloads) > MAX_EVENTS:
        raise InvalidRecord(f"more than {MAX_EVENTS} events")
    found = _at_once(payloads, contract)
    table, invalid = found if found is not None else _row_by_row(payloads, contract)
    return Decoded(
        contract=contract.name,
        version=contract.version,
        table=table,
        rows=kept_rows(len(payloads), invalid),
        invalid=invalid,
        total=len(payloads),
    )


def _array(text: bytes) -> list[bytes]:
    try:
        events = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidRecord(f"not JSON: {error}") from error
    return [json.dumps(event).encode() for event in events]


def _parses(text: bytes) -> bool:
    try:
        json.loads(text.decode())
    except (ValueError, RecursionError):
        return False
    return True


def _at_once(payloads: Sequence[bytes], contract: Contract) -> tuple[pa.Table, tuple[InvalidRow, ...]] | None:
    """All payloads in one pass, or None where row by row must decide."""
    text = b"\n".join(payloads)
    if not _one_object_a_line(text, len(payloads)):
        return None
    try:
        text.decode()  # Arrow takes any bytes for text
        read = pj.read_json(
            pa.BufferReader(text),
            read_options=pj.ReadOptions(use_threads=False, block_size=max(1 << 20, len(text) + 1)),
            parse_options=pj.ParseOptions(
                explicit_schema=_reading_schema(contract, payloads[0]), unexpected_field_behavior="error"
            ),
        )
        table = _typed(read, contract.arrow_schema)
        if table is None or table.num_rows != len(payloads):
            return None
        conformed = conform(contract, table)
    except (pa.ArrowException, ValueError, RecursionError, InvalidEvent):
        return None
    invalid = []
    for row in conformed.invalid:
        verdict = _judge(payloads[row.index], contract)
        if isinstance(verdict, dict):
            return None
        invalid.append(InvalidRow(row.index, verdict, payloads[row.index]))
    return conformed.table, tuple(invalid)


def _one_object_a_line(text: bytes, lines: int) -> bool:
    """Whether each line is one object, given that no value is an object and that there are as many objects as lines.

    Without this, Arrow would also read two objects of one line, or one over two.
    """
    breaks = text.count(b"\n")
    return breaks == lines - 1 == text.count(b"}\n{") and text.startswith(b"{") and text.endswith(b"}")


def _reading_schema(contract: Contract, first: bytes) -> pa.Schema:
    """What to read each column as: times as the first event writes them, float32 by way of float64 as Python does."""
    event = json.loads(first)
    fields = []
    for field in contract.arrow_schema:
        kind = field.type
        if pa.types.is_timestamp(kind):
            kind = pa.int64() if isinstance(event.get(field.name), int) else pa.string()
        elif pa.types.is_date(kind):
            kind = pa.string()
        elif pa.types.is_float32(kind):
            kind = pa.float64()
        fields.append(pa.field(field.name, kind))
    return pa.schema(fields)


def _typed(read: pa.Table, schema: pa.Schema) -> pa.Table | None:
    """The columns in the contract's types; None where a value is written in a way only the slow path knows."""
    columns = []
    for field in schema:
        column = read.column(field.name)
        if pa.types.is_timestamp(field.type) or pa.types.is_date(field.type):
            if not _usual_times(column, field.type):
                return None
            column = column.cast(field.type)
        elif pa.types.is_float32(field.type):
            column = column.cast(field.type, safe=False)
        columns.append(column)
    return pa.table(columns, names=schema.names)


def _usual_times(column: pa.ChunkedArray, kind: pa.DataType) -> bool:
    if column.null_count == len(column):
        return True
    if pa.types.is_string(column.type):
        pattern = _DATE if pa.types.is_date(kind) else _TIMESTAMP
        return bool(pc.all(pc.match_substring_regex(column, pattern)).as_py())
    span = pc.min_max(column).as_py()
    return bool(_BOUNDS_MS[0] <= span["min"] and span["max"] <= _BOUNDS_MS[1])


def _row_by_row(payloads: Sequence[bytes], contract: Contract) -> tuple[pa.Table, tuple[InvalidRow, ...]]:
    schema = contract.arrow_schema
    rows, invalid = [], []
    for index, payload in enumerate(payloads):
        verdict = _judge(payload, contract)
        if isinstance(verdict, dict):
            rows.append(verdict)
        else:
            invalid.append(InvalidRow(index, verdict, payload))
    return pa.Table.from_pylist(rows, schema=schema), tuple(invalid)


def _judge(payload: bytes, contract: Contract) -> dict[str, object] | str:
    """The coerced event, or the reason why it is none."""
    try:
        event = json.loads(payload.decode(), parse_constant=_refuse)
        if not isinstance(event, Mapping):
            return "not a JSON object"
        for value in event.values():
            if isinstance(value, str):
                value.encode()  # half a surrogate pair is no text
        return dict(validate_row(contract, event))
    except InvalidEvent as error:
        return str(error)
    except UnicodeError:
        return "not UTF-8 text"
    except (ValueError, OverflowError, RecursionError) as error:
        return f"not JSON: {error}"


def _refuse(token: str) -> NoReturn:
    raise ValueError(f"{token} is not a JSON number")


def event_json(table: pa.Table) -> list[bytes]:
    """Each row as one JSON object on one line; times in ISO 8601, UTC, with milliseconds and Z."""
    names = table.column_names
    columns = [_jsonable(column).to_pylist() for column in table.columns]
    return [
        json.dumps(dict(zip(names, row, strict=True)), separators=(",", ":"), ensure_ascii=False, default=str).encode()
        for row in zip(*columns, strict=True)
    ]


def _jsonable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_timestamp(column.type):
        text = column.cast(pa.timestamp("ms", column.type.tz), safe=False).cast(pa.timestamp("ms")).cast(pa.string())
        return pc.binary_join_element_wise(pc.replace_substring(text, " ", "T", max_replacements=1), "Z", "")
    if pa.types.is_date(column.type):
        return column.cast(pa.string())
    return column
