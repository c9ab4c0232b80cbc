"""Write columns of types that JSON does not have as text, and read numbers of JSON without rounding. Pure.

What is written here is what `read_value` reads back as the same value.
"""

import base64
import json
import uuid
from datetime import UTC, date, datetime, time
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from headwater.arrays import whole
from headwater.contract.scalars import JsonNumber, decimal_text
from headwater.contract.types import UUID

__all__ = [
    "EXACT",
    "STRICT",
    "as_json",
    "as_text",
    "bytes_as_json",
    "exact_json",
    "json_values",
    "key_texts",
    "read_number",
]


def _refuse(token: str) -> NoReturn:
    raise ValueError(f"{token} is not a JSON number")


def read_number(text: str) -> float:
    """Return a number of JSON with a point or an exponent; one that a float may round knows how it is written.

    >>> read_number("0.10"), read_number("0.1234567890123456789").text
    (0.1, '0.1234567890123456789')
    """
    return JsonNumber(text) if len(text) > _KEPT or "e" in text or "E" in text else float(text)


_KEPT = 16
"""Characters of a number of at most 15 digits and a point, which no float rounds."""
STRICT = json.JSONDecoder(parse_constant=_refuse)
"""Reads JSON as its standard has it: no NaN, no infinities."""
EXACT = json.JSONDecoder(parse_constant=_refuse, parse_float=read_number)
"""The same, and numbers know how they are written."""


def exact_json(value: Any, encoder: json.JSONEncoder) -> str:
    """Return what the encoder writes, with the numbers of JSON as they were written.

    >>> exact_json(EXACT.decode('{"a": [1.50, 0.1234567890123456789]}'), json.JSONEncoder())
    '{"a":[1.5,0.1234567890123456789]}'
    """
    return _exact_json(value, encoder) if _has_written(value) else encoder.encode(value)


def _has_written(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_written, value.values()))
    return any(map(_has_written, value)) if isinstance(value, list | tuple) else type(value) is JsonNumber


def _exact_json(value: Any, encoder: json.JSONEncoder) -> str:
    if type(value) is JsonNumber:
        return value.text
    if isinstance(value, dict):
        return (
            "{" + ",".join([f"{encoder.encode(str(k))}:{_exact_json(one, encoder)}" for k, one in value.items()]) + "}"
        )
    if isinstance(value, list | tuple):
        return "[" + ",".join([_exact_json(one, encoder) for one in value]) + "]"
    return encoder.encode(value)


def json_values(column: pa.ChunkedArray) -> list[Any]:
    """Return the values as `json.dumps` takes them: those of `as_json`, and lists and objects of them."""
    if not pa.types.is_nested(column.type):
        found: list[Any] = as_json(column).to_pylist()
        return found
    return [_part(column.type, one) for one in column.to_pylist()]


def _part(kind: pa.DataType, value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if pa.types.is_map(kind):
        return {str(key): _part(kind.item_type, one) for key, one in value}
    if isinstance(value, dict):
        return {name: _part(kind.field(name).type, one) for name, one in value.items()}
    if isinstance(value, list):
        return [_part(kind.value_type, one) for one in value]
    if isinstance(value, datetime):
        fine = "milliseconds" if kind.unit in ("s", "ms") else "microseconds"
        return (value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)).isoformat(
            "T", fine
        ) + "Z"
    if isinstance(value, date | uuid.UUID):
        return str(value)
    return _dashed(value.hex()) if kind == UUID else _text(value)


def as_json(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the column as JSON has its values: times in ISO 8601, UTC, with milliseconds or microseconds and Z,
    decimals and UUIDs as text, bytes in base64; all else as it is.
    """
    kind = column.type
    if pa.types.is_timestamp(kind):
        unit = "ms" if kind.unit in ("s", "ms") else "us"
        text = column.cast(pa.timestamp(unit, kind.tz), safe=False).cast(pa.timestamp(unit)).cast(pa.string())
        return pc.binary_join_element_wise(pc.replace_substring(text, " ", "T", max_replacements=1), "Z", "")
    if pa.types.is_date(kind):
        return column.cast(pa.string())
    if isinstance(kind, pa.BaseExtensionType):
        return as_json(column.cast(kind.storage_type))
    if not _is_written(kind):
        return column
    coded = column if pa.types.is_dictionary(kind) else column.dictionary_encode()
    chunks = []
    for chunk in coded.chunks:
        texts = pa.array([None if one is None else _text(one) for one in _values(chunk.dictionary)], pa.string())
        chunks.append(texts.take(chunk.indices))
    return pa.chunked_array(chunks, pa.string())


def bytes_as_json(column: pa.ChunkedArray, field_type: str) -> pa.ChunkedArray:
    """Return a column of any type of bytes as a field of the type has them in JSON; any other column as it is.

    >>> bytes_as_json(pa.chunked_array([[b"0123456789abcdef", b"x"]]), "uuid").to_pylist()
    ['30313233-3435-3637-3839-616263646566', 'eA==']
    """
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.cast(column.type.storage_type)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not _is_bytes(column.type):
        return column
    column = column.cast(pa.binary())
    texts = as_json(column)
    if field_type != "uuid":
        return texts
    sixteen = pc.if_else(pc.equal(pc.binary_length(column), UUID.byte_width), column, None)
    return pc.coalesce(as_json(sixteen.cast(UUID)), texts)


def as_text(column: pa.Array, *, decimals: bool = True) -> pa.Array:
    """Return a column of UUIDs, times of day, times in microseconds or `decimals` as text; any other as it is.

    The text is what a key of a view is, and sorts as the values do but for decimals.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    fine = pa.types.is_timestamp(kind) and kind.unit == "us"
    if not fine and kind != UUID and not (decimals and pa.types.is_decimal(kind)) and not pa.types.is_time(kind):
        return column
    if pa.types.is_dictionary(column.type):
        return as_text(column.dictionary).take(column.indices)
    return as_json(pa.chunked_array([column])).combine_chunks()


def key_texts(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column of keys as plain texts, to compare with what a user has written."""
    column = whole(column)
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.cast(column.type.storage_type)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return (column if pa.types.is_timestamp(kind) else as_text(column)).cast(pa.string())


def _is_written(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(_is_bytes(kind) or pa.types.is_decimal(kind) or pa.types.is_time(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _values(column: pa.Array) -> list[Any]:
    if pa.types.is_time(column.type):
        counts = column.cast(_STORED[column.type.bit_width]).to_pylist()
        return [one if one is None else _clock(one, column.type.unit) for one in counts]
    found: list[Any] = column.to_pylist()
    return found if column.type != UUID else [one if one is None else _dashed(one.hex()) for one in found]


_STORED = {32: pa.int32(), 64: pa.int64()}
_PER_US = {"s": 1_000_000, "ms": 1_000, "us": 1}


def _clock(count: int, unit: str) -> time | int:
    """Return a time of day; the number itself where it is outside the day."""
    us = count // 1_000 if unit == "ns" else count * _PER_US[unit]
    seconds, micros = divmod(us, 1_000_000)
    return time(seconds // 3600, seconds // 60 % 60, seconds % 60, micros) if 0 <= seconds < 86_400 else us


def _dashed(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, time):
        return value.isoformat()
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else decimal_text(value)
