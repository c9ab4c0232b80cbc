"""Events as JSON objects.

Two readers give the same answer: `pyarrow.json` over the joined events with the contract's schema for the usual case,
and Python's for whatever that does not take (`conform_rows`). The first is used only where it is known to read as the
second does; the rules are with each check.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from headwater.codec.bounds import MAX_VALUES, check_containers, has_many
from headwater.codec.decoded import Decoded, kept_rows
from headwater.codec.jsonvalues import ValueEnds, array_values, check_utf8, space_end
from headwater.codec.rows import MAX_EVENTS, Row, Unread, decode_rows, one_line
from headwater.contract import Contract, InvalidRow, conform
from headwater.contract.conform import too_many_invalid
from headwater.contract.rowcolumns import conform_rows
from headwater.contract.written import EXACT, STRICT, read_number
from headwater.errors import InvalidEvent, InvalidRecord
from headwater.parts import in_parts

__all__ = [
    "MAX_EVENTS",
    "decode_payloads",
    "decode_text",
    "event_texts",
    "is_one_object",
    "json_objects",
    "json_row",
    "object_lines",
    "one_line",
    "read_object",
    "split_objects",
]

_MOST_LINES = 2 * MAX_EVENTS
"""Lines, empty ones too, of objects one a line."""
_PART = 4_096
_PART_BYTES = 4 << 20
"""Text of the events that are read together: 4 MiB of small values take up to 180 MiB."""
_SEPARATORS = re.compile(rb"\}[\0\x1e\s]+\{")
_ADJACENT = re.compile(rb"\}[ \t\r\0\x1e]*\{")
"""Between two objects of a line; in an object only within a text."""
_WIDE_DIGITS = 76
_LONG = r"[0-9]{39}"
_POWER = r'[:"\s][+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)[eE][+-]?[0-9]+["\s,}]'
_ESCAPED = r"\\u00(3[0-9]|2[bdeBDE]|[46]5)"
_WIDE = f"{_LONG}|{_POWER}|{_ESCAPED}"
"""In JSON whose decimals may not fit 256 bits: many digits in a row, an exponent, or a sign of a number escaped."""
_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN, _WRITTEN = json.JSONDecoder(), json.JSONDecoder(parse_float=read_number)


def decode_text(text: bytes, contract: Contract) -> Decoded:
    """Decode the events in stripped text: see `event_texts`."""
    return decode_payloads(event_texts(text), contract)


def event_texts(text: bytes) -> list[bytes]:
    """Return the events in stripped text, one each: of a JSON array, or objects one after the other.

    Objects may be separated by line breaks, by other white space, by NUL or record separators (RFC 7464), or by
    nothing, as Firehose and many shippers write them; each may span lines. Empty lines do not count.
    """
    return _array(text) if text.startswith(b"[") else split_objects(text)


def json_objects(data: bytes, texts: Callable[[bytes], list[bytes]] = event_texts, *, exact: bool = False) -> list[Any]:
    """Return the JSON values of a record, each read once where all are objects; else those of the `texts` in it.
    `exact` keeps how numbers are written.

    >>> json_objects(b'{"a": 1}\\n{"b": 2}'), json_objects(b"[1, 2]")
    ([{'a': 1}, {'b': 2}], [1, 2])
    """
    found: list[Any] = []
    decoder = _WRITTEN if exact else _PLAIN
    try:
        text = data.decode()
        value, at = decoder.raw_decode(text)
        if at == len(text) and type(value) is dict:
            return [value]
        at = 0
        while at < len(text):
            value, at = decoder.raw_decode(text, at)
            if type(value) is not dict:
                break
            found.append(value)
            at = _space(text, at) if at < len(text) else at
        else:
            return found
    except (ValueError, RecursionError):
        pass
    return [json.loads(one, parse_float=decoder.parse_float) for one in texts(data.strip())]


def split_objects(text: bytes) -> list[bytes]:
    """Return the objects of stripped text, one each; what is no JSON stays a line, for its reader to refuse."""
    if b"\0" in text or b"\x1e" in text:
        text = _SEPARATORS.sub(b"}\n{", text)
    first, more, _ = text.partition(b"\n")
    found = None if not more or _parses(first.strip()) else _sequence(text)
    if found is None:
        if text.count(b"\n") > _MOST_LINES:
            raise InvalidRecord(f"more than {_MOST_LINES} lines")
        found = _separated([line for line in map(bytes.strip, text.split(b"\n")) if line])
    return found


def is_one_object(text: bytes) -> bool:
    """Tell whether stripped text looks like one object on one line: such texts are read many in one pass."""
    return text[:1] == b"{" and text[-1:] == b"}" and b"\n" not in text and not _ADJACENT.search(text)


def object_lines(text: bytes) -> list[bytes] | None:
    """Return the lines of stripped text where each looks like one object; None where one does not."""
    breaks = text.count(b"\n")
    if text[:1] != b"{" or text[-1:] != b"}" or breaks >= MAX_EVENTS or breaks != text.count(b"}\n{"):
        return None
    return None if _ADJACENT.search(text) else text.split(b"\n")


def _separated(lines: list[bytes]) -> list[bytes]:
    """Return the lines; one that holds several objects is taken apart."""
    if not any(_ADJACENT.search(line) for line in lines):
        return lines
    return [one for line in lines for one in (_ADJACENT.search(line) and _sequence(line)) or [line]]


def _sequence(text: bytes) -> list[bytes] | None:
    """Return the objects that stand end to end in the text; None when it is not all objects."""
    found: list[bytes] = []
    try:
        check_containers(text)
        check_utf8(text)
        values, at = ValueEnds(text), 0
        while at < len(text):
            if text[at : at + 1] != b"{" or len(found) == MAX_EVENTS:
                return None
            end = values.end(at)
            found.append(text[at:end].replace(b"\n", b" "))
            at = space_end(text, end)
    except (ValueError, RecursionError, InvalidRecord):
        return None
    return found


def decode_payloads(payloads: Sequence[bytes], contract: Contract, most: int = MAX_EVENTS) -> Decoded:
    """Decode one JSON object each. What is none, or breaks the contract, is an InvalidRow; the others are kept.

    Raise InvalidRecord for more than `MAX_EVENTS`, and once more than `most` are invalid.
    """
    if len(payloads) > MAX_EVENTS:
        raise InvalidRecord(f"more than {MAX_EVENTS} events")
    if contract.selects:
        return _selected(payloads, contract, most)
    parts = _in_parts(payloads, contract, most)
    invalid = tuple(row for part in parts for row in part.invalid)
    return Decoded(
        contract=contract.name,
        version=contract.version,
        table=pa.concat_tables([part.table for part in parts]),
        rows=kept_rows(len(payloads), invalid),
        invalid=invalid,
        total=len(payloads),
    )


def _selected(payloads: Sequence[bytes], contract: Contract, most: int) -> Decoded:
    """Decode events whose fields are to be looked for; a dead letter has the event as it was written."""
    read = [read_object(payload, exact=contract.exact) for payload in payloads]
    rows = [Unread(row, payload) if isinstance(row, str) else row for row, payload in zip(read, payloads, strict=True)]
    found = decode_rows(rows, contract, most=most)
    return replace(found, invalid=tuple(row._replace(event=payloads[row.index]) for row in found.invalid))


class _ParsedRows(NamedTuple):
    table: pa.Table
    invalid: list[InvalidRow]


def _in_parts(payloads: Sequence[bytes], contract: Contract, most: int) -> list[_ParsedRows]:
    """Read events in parts, which bound the memory; in one pass each, or where that cannot be in smaller parts.

    A smaller part is tried in one pass when the one before it was all right: no event goes through Arrow more than
    twice.
    """
    parts, start, invalid = list[_ParsedRows](), 0, 0
    for part in list(in_parts(payloads, len, MAX_EVENTS, _PART_BYTES)) or [[]]:
        found = _at_once(part, contract, start)
        for made in _in_small_parts(part, contract, start) if found is None else [found]:
            parts.append(made)
            invalid += len(made.invalid)
            if invalid > most:
                first = next(row for one in parts for row in one.invalid)
                raise InvalidRecord(too_many_invalid(most, len(payloads), first.index, first.reason))
        start += len(part)
    return parts


def _in_small_parts(payloads: Sequence[bytes], contract: Contract, start: int) -> Iterator[_ParsedRows]:
    made: _ParsedRows | None = None
    for at in range(0, len(payloads) or 1, _PART):
        part = payloads[at : at + _PART]
        first = start + at
        at_once = _at_once(part, contract, first) if made is not None and not made.invalid else None
        made = at_once or _apart(part, contract, range(first, first + len(part)))
        yield made


def _array(text: bytes) -> list[bytes]:
    """Return the values of an array as they are written: a number may have more digits than a float keeps."""
    check_containers(text)
    try:
        return [one.replace(b"\n", b" ") for one in array_values(text, MAX_EVENTS)]
    except (ValueError, RecursionError) as error:
        raise InvalidRecord(f"not JSON: {one_line(error)}") from error


def _space(text: str, at: int) -> int:
    """Return where the white space that begins here ends."""
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _parses(text: bytes) -> bool:
    if has_many(text):
        return False
    try:
        json.loads(text.decode())
    except (ValueError, RecursionError):
        return False
    return True


def _at_once(payloads: Sequence[bytes], contract: Contract, start: int = 0) -> _ParsedRows | None:
    """Decode all payloads, of which the first has the place `start`, in one pass; None where this cannot be."""
    text = b"\n".join(payloads)
    if not _one_object_a_line(text, len(payloads)) or any(map(has_many, payloads)):
        return None
    try:
        text.decode()  # Arrow takes any bytes for text
        if contract.exact and pc.match_substring_regex(pa.array([text], pa.large_binary()), _WIDE)[0].as_py():
            return None
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
    table = conformed.table.cast(contract.arrow_schema)
    if not conformed.invalid:
        return _ParsedRows(table, [])
    # what is wrong is worded after the events as Python reads them
    wrong = [row.index for row in conformed.invalid]
    invalid = list[InvalidRow]()
    for first in range(0, len(wrong), _PART):
        some = wrong[first : first + _PART]
        judged = _apart([payloads[at] for at in some], contract, [start + at for at in some])
        if judged.table.num_rows:
            return None
        invalid += judged.invalid
    return _ParsedRows(table, invalid)


def _one_object_a_line(text: bytes, lines: int) -> bool:
    """Tell whether each line is one object, given that no value is an object and that there are as many objects as
    lines.

    Without this, Arrow would also read two objects of one line, or one over two.
    """
    breaks = text.count(b"\n")
    return breaks == lines - 1 == text.count(b"}\n{") and text.startswith(b"{") and text.endswith(b"}")


def _reading_schema(contract: Contract, first: bytes) -> pa.Schema:
    """Return what to read each column as: names and times as the first event writes them, float32 by way of float64 as
    Python does, and decimals in 256 bits, in which none wraps when it is scaled.
    """
    event = json.loads(first)
    fields = []
    for field, names in zip(contract.arrow_schema, contract.fields, strict=True):
        name = next((name for name in (field.name, *names.was) if name in event), field.name)
        kind = field.type
        if pa.types.is_timestamp(kind):
            kind = _time_type(event.get(name), kind)
        elif pa.types.is_date(kind) or names.kind.name in ("time", "uuid", "binary"):
            kind = pa.string()
        elif pa.types.is_float32(kind):
            kind = pa.float64()
        elif pa.types.is_decimal(kind):
            kind = pa.decimal256(_WIDE_DIGITS, kind.scale)
        fields.append(pa.field(name, kind))
    return pa.schema(fields)


def _time_type(first: object, kind: pa.DataType) -> pa.DataType:
    """Return a type with enough digits: Arrow reads no more digits of a fraction than its unit has, and Python writes
    six, Go and Java up to nine.
    """
    if isinstance(first, int):
        return pa.int64()
    digits = len(first.partition(".")[2].rstrip("Z").partition("+")[0]) if isinstance(first, str) else 0
    unit = kind.unit if digits <= 3 else "us" if digits <= 6 else "ns"
    return pa.timestamp(unit, kind.tz)


def _apart(payloads: Sequence[bytes], contract: Contract, places: Sequence[int]) -> _ParsedRows:
    """Read each event's JSON by itself, and hold what was read to the contract together."""
    read = [read_object(payload, exact=contract.exact) for payload in payloads]
    reasons = {at: row for at, row in enumerate(read) if isinstance(row, str)}
    kept = [at for at in range(len(read)) if at not in reasons] if reasons else range(len(read))
    table, faults = conform_rows(contract, [row for row in read if not isinstance(row, str)])
    for at, fault in faults.items():
        line = one_line(fault)
        reasons[kept[at]] = line if isinstance(fault, str | InvalidEvent) else f"not JSON: {line}"
    return _ParsedRows(table, [InvalidRow(places[at], reasons[at], payloads[at]) for at in sorted(reasons)])


def read_object(payload: bytes, *, exact: bool = False) -> Row | str:
    """Return the object in a payload, or the reason why there is none; `exact` keeps how numbers are written."""
    decoder = EXACT if exact else STRICT
    if has_many(payload):
        return f"has more than {MAX_VALUES} values"
    try:
        text = payload.decode()
        event, end = decoder.raw_decode(text, _space(text, 0))
        if end != len(text):  # white space after it, or more than one value
            event = decoder.decode(text)
    except UnicodeError:
        return "not UTF-8 text"
    except (ValueError, RecursionError) as error:
        return f"not JSON: {one_line(error)}"
    return event if isinstance(event, dict) else "not a JSON object"


def json_row(contract: Contract) -> Callable[[bytes], list[Row]]:
    """Return a decoder of JSON as it is read without any: of a record that is one object, and nothing else."""
    read = (EXACT if contract.exact else STRICT).raw_decode

    def decode(data: bytes) -> list[Row]:
        text = data.decode()
        found, end = read(text)
        if type(found) is not dict or text[end:].strip(" \t\r\n"):
            raise InvalidRecord("not one object")
        return [found]

    return decode
