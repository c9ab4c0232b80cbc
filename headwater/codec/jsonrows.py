"""Events as JSON objects.

Two readers give the same answer: `pyarrow.json` over the joined events with the contract's schema for the usual case,
and row by row through `validate_row` for whatever that does not take. The first is used only where it is known to read
as the second does; the rules are with each check.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple, NoReturn

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from headwater.codec.decoded import Decoded, kept_rows
from headwater.contract import Contract, InvalidRow, conform, validate_row
from headwater.errors import InvalidEvent, InvalidRecord

__all__ = ["decode_payloads", "decode_text", "event_json", "one_line"]

MAX_EVENTS = 1 << 20
_ROW_BY_ROW = 16


def decode_text(text: bytes, contract: Contract) -> Decoded:
    """Stripped text that is a JSON array of events, one event, or one event a line; empty lines don't count."""
    if text.startswith(b"["):
        return decode_payloads(_array(text), contract)
    lines = [line for line in map(bytes.strip, text.split(b"\n")) if line]
    if len(lines) > 1 and not _parses(lines[0]) and _parses(text):
        lines = [text]
    return decode_payloads(lines, contract)


def decode_payloads(payloads: Sequence[bytes], contract: Contract) -> Decoded:
    """One JSON object each. What is none, or breaks the contract, is an InvalidRow and leaves the others alone."""
    if len(payloads) > MAX_EVENTS:
        raise InvalidRecord(f"more than {MAX_EVENTS} events")
    parts = _in_parts(payloads, contract)
    table = pa.concat_tables([part.table for part in parts])
    bounds = accumulate([part.total for part in parts], initial=0)
    invalid = tuple(
        InvalidRow(start + row.index, row.reason, row.event)
        for start, part in zip(bounds, parts, strict=False)
        for row in part.invalid
    )
    return Decoded(
        contract=contract.name,
        version=contract.version,
        table=table,
        rows=kept_rows(len(payloads), invalid),
        invalid=invalid,
        total=len(payloads),
    )


class _Part(NamedTuple):
    table: pa.Table
    invalid: tuple[InvalidRow, ...]
    total: int


def _in_parts(payloads: Sequence[bytes], contract: Contract) -> list[_Part]:
    """Halve until all events of a part can be read in one pass, so that a bad one costs only its neighbours."""
    found = _at_once(payloads, contract)
    if found is not None:
        return [found]
    if len(payloads) <= _ROW_BY_ROW:
        return [_row_by_row(payloads, contract)]
    middle = len(payloads) // 2
    return _in_parts(payloads[:middle], contract) + _in_parts(payloads[middle:], contract)


def _array(text: bytes) -> list[bytes]:
    try:
        events = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidRecord(f"not JSON: {one_line(error)}") from error
    return [json.dumps(event).encode() for event in events]


def _parses(text: bytes) -> bool:
    try:
        json.loads(text.decode())
    except (ValueError, RecursionError):
        return False
    return True


def _at_once(payloads: Sequence[bytes], contract: Contract) -> _Part | None:
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
        if read.num_rows != len(payloads):
            return None
        conformed = conform(contract, read)
    except (pa.ArrowException, ValueError, RecursionError, InvalidEvent):
        return None
    invalid = []
    for row in conformed.invalid:
        verdict = _judge(payloads[row.index], contract)
        if isinstance(verdict, dict):
            return None
        invalid.append(InvalidRow(row.index, verdict, payloads[row.index]))
    return _Part(conformed.table.cast(contract.arrow_schema), tuple(invalid), len(payloads))


def _one_object_a_line(text: bytes, lines: int) -> bool:
    """Whether each line is one object, given that no value is an object and that there are as many objects as lines.

    Without this, Arrow would also read two objects of one line, or one over two.
    """
    breaks = text.count(b"\n")
    return breaks == lines - 1 == text.count(b"}\n{") and text.startswith(b"{") and text.endswith(b"}")


def _reading_schema(contract: Contract, first: bytes) -> pa.Schema:
    """What to read each column as: names and times as the first event writes them, float32
    by way of float64 as Python does."""
    event = json.loads(first)
    fields = []
    for field, names in zip(contract.arrow_schema, contract.fields, strict=True):
        name = next((name for name in (field.name, *names.was) if name in event), field.name)
        kind = field.type
        if pa.types.is_timestamp(kind):
            kind = _time_type(event.get(name), kind)
        elif pa.types.is_date(kind):
            kind = pa.string()
        elif pa.types.is_float32(kind):
            kind = pa.float64()
        fields.append(pa.field(name, kind))
    return pa.schema(fields)


def _time_type(first: object, kind: pa.DataType) -> pa.DataType:
    """Arrow reads no more digits of a fraction than its unit has: Python writes six, Go and Java up to nine."""
    if isinstance(first, int):
        return pa.int64()
    digits = len(first.partition(".")[2].rstrip("Z").partition("+")[0]) if isinstance(first, str) else 0
    return kind if digits <= 3 else pa.timestamp("us" if digits <= 6 else "ns", kind.tz)


def _row_by_row(payloads: Sequence[bytes], contract: Contract) -> _Part:
    rows, invalid = [], []
    for index, payload in enumerate(payloads):
        verdict = _judge(payload, contract)
        if isinstance(verdict, dict):
            rows.append(verdict)
        else:
            invalid.append(InvalidRow(index, verdict, payload))
    return _Part(pa.Table.from_pylist(rows, schema=contract.arrow_schema), tuple(invalid), len(payloads))


def _judge(payload: bytes, contract: Contract) -> dict[str, object] | str:
    """The coerced event, or the reason why it is none."""
    try:
        event = json.loads(payload.decode(), parse_constant=_refuse)
        if not isinstance(event, Mapping):
            return "not a JSON object"
        return dict(validate_row(contract, event))
    except InvalidEvent as error:
        return one_line(error)
    except UnicodeError:
        return "not UTF-8 text"
    except (ValueError, OverflowError, RecursionError) as error:
        return f"not JSON: {one_line(error)}"


def one_line(error: Exception) -> str:
    """An error's text, fit for a log: one line, no half surrogates from hostile field names, not too long."""
    return " ".join(str(error).encode(errors="replace").decode().split())[:300]


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
