"""Convert columns of other types to their field's. Nothing is lost but the part of a time below the field's unit."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.contract.definition import Field
from headwater.contract.nestedcolumns import has_odd_decimal, unviewed_type
from headwater.contract.types import MOST_DIGITS, TIMES, UUID
from headwater.contract.values import EXACT_FLOATS, MAX_MS, MIN_MS
from headwater.errors import InvalidEvent

__all__ = ["converted", "micros_column", "nulls", "seconds_column", "unviewed"]

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_STRING = pa.string()
_INT64_DIGITS = 19
_WIDE_DIGITS = 2 * MOST_DIGITS
"""Digits of a decimal in 256 bits: what has as many as a field's before the point and behind it fits."""
_DECIMAL_TEXT = r"^[+-]?([0-9]{1,38}([.][0-9]{0,38})?|[.][0-9]{1,38})$"
_TIME_TEXT = r"^[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?$"
_UUID_TEXT = r"^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"
_UUID_DIGITS = [at for at in range(36) if at not in (8, 13, 18, 23)]


def nulls(field: Field, rows: int) -> pa.ChunkedArray:
    """Return a column of nulls."""
    return pa.chunked_array([pa.nulls(rows, field.arrow_type)])


def converted(field: Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert a column to the field's type; a string column stays dictionary-encoded.

    Raise ArrowException when single values do not fit, InvalidEvent when the type cannot be read as the field's.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        inner = kind.value_type
        if field.type == "string" and (inner.equals(_STRING) or _is_text(inner)):
            return _dictionaries(column, inner)
        column = column.cast(inner)
        return column if inner == field.arrow_type else converted(field, column)
    if isinstance(kind, pa.BaseExtensionType):
        return converted(field, column.cast(kind.storage_type))
    if pa.types.is_null(kind):
        return nulls(field, len(column))
    if field.type == "json" or field.format:
        raise pa.ArrowInvalid("values that are read one by one")
    if field.type in TIMES:
        found = _times(field, column)
    else:
        found = _CONVERSIONS[field.kind.name](column, field.arrow_type)
    if found is None:
        raise InvalidEvent(f"field {field.name}: a column of {kind} cannot be read as {field.type}")
    return found


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def unviewed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of views, or of dictionaries of them, in plain texts or bytes: few functions of Arrow take views.

    >>> unviewed(pa.chunked_array([["a"]], pa.string_view())).type
    DataType(string)
    """
    if pa.types.is_nested(column.type):
        plain = unviewed_type(column.type)
        return column if plain == column.type else column.cast(plain)
    coded = pa.types.is_dictionary(column.type)
    kind = column.type.value_type if coded else column.type
    if not pa.types.is_string_view(kind) and not pa.types.is_binary_view(kind):
        return column
    plain = _STRING if pa.types.is_string_view(kind) else pa.binary()
    if not coded:
        return column.cast(plain)
    chunks = [pa.DictionaryArray.from_arrays(one.indices, one.dictionary.cast(plain)) for one in column.chunks]
    return pa.chunked_array(chunks, pa.dictionary(column.type.index_type, plain))


def _dictionaries(column: pa.ChunkedArray, inner: pa.DataType) -> pa.ChunkedArray:
    """Return dictionaries of plain strings without null among them: then the codes alone say what is null."""
    if inner.equals(_STRING) and not any(chunk.dictionary.null_count for chunk in column.iterchunks()):
        return column
    index = column.type.index_type
    chunks = []
    for chunk in column.chunks:
        values = chunk.dictionary.cast(_STRING)
        coded = pa.DictionaryArray.from_arrays(chunk.indices, values)
        if values.null_count:
            coded = coded.cast(_STRING).dictionary_encode().cast(pa.dictionary(index, _STRING))
        chunks.append(coded)
    return pa.chunked_array(chunks, pa.dictionary(index, _STRING))


def _strings(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    return column.cast(kind) if _is_text(column.type) else None


def _same(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    return column if column.type == kind else None


def _integers(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    found = column.type
    if pa.types.is_float16(found):
        column = column.cast(pa.float32())
    if pa.types.is_floating(found):
        largest = pc.max(pc.abs(column)).as_py()
        if largest is not None and not largest < EXACT_FLOATS:
            raise pa.ArrowInvalid("whole numbers that a float may have rounded")  # to be read and refused one by one
    return column.cast(kind) if pa.types.is_integer(found) or pa.types.is_floating(found) else None


def _floats(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    found = column.type
    if pa.types.is_integer(found):
        # By way of float64, as Python does: straight to float32 would round differently.
        column = column.cast(pa.float64(), safe=False)
    elif not pa.types.is_floating(found):
        return None
    return column.cast(kind, safe=False)


def _times(field: Field, column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    found = column.type
    unit = field.arrow_type.unit
    if pa.types.is_timestamp(found):
        return _counted_in(column, unit)
    if _is_text(found):
        return _counted_in(_text_times(column), unit)
    if pa.types.is_integer(found):
        return _counted_times(field, column.cast(pa.int64()))
    if pa.types.is_date(found):
        days = column.cast(pa.date32()).cast(pa.timestamp("s")).cast(pa.timestamp("s", "UTC"))
        return _counted_in(days, unit)
    return None


def _counted_times(field: Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Read numbers of the field's unit since 1970."""
    unit = field.arrow_type.unit
    made = _counted_in(column.cast(pa.timestamp(field.epoch, "UTC")), unit)
    least = pc.min(made.cast(pa.int64())).as_py()
    if least is not None and least < field.earliest_ms * (_PER_SECOND[unit] // 1000):
        raise pa.ArrowInvalid("times that no clock gives")  # to be read and refused one by one
    return made


def seconds_column(values: Sequence[object]) -> pa.Array | None:
    """Return floats of seconds since 1970 as the microseconds that were written; None where one has finer digits.

    Below 2^32 the decimals of six digits lie further apart than the floats do, so that only one can have been meant.

    >>> str(seconds_column([1772366400.000123])[0])
    '2026-03-01 12:00:00.000123+00:00'
    """
    seconds = np.array(values, np.float64)
    if not (np.abs(seconds) < 2.0**32).all():
        return None
    counts = np.rint(seconds * 1e6)
    return (
        pa.array(counts.astype(np.int64)).cast(pa.timestamp("us", "UTC")) if (counts / 1e6 == seconds).all() else None
    )


def micros_column(values: Sequence[int | None]) -> pa.ChunkedArray:
    """Return microseconds since 1970 as times. Raise ValueError for one outside the years 1 to 9999.

    >>> micros_column([1, None]).type
    TimestampType(timestamp[us, tz=UTC])
    """
    made = pa.array(values, pa.int64())
    span = pc.min_max(made).as_py()
    if span["min"] is not None and not MIN_MS * 1000 <= span["min"] <= span["max"] <= MAX_MS * 1000 + 999:
        raise ValueError("a time outside the years 1 to 9999")
    return pa.chunked_array([made.cast(pa.timestamp("us", "UTC"))])


def _text_times(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Read times that all have a zone, or all have none: anything else is left to be read one by one."""
    try:
        return column.cast(pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:
        return column.cast(pa.timestamp("us"))


def _counted_in(column: pa.ChunkedArray, unit: str) -> pa.ChunkedArray:
    """Convert times of any unit and zone to milliseconds or microseconds, rounded down."""
    count, before, after = column.cast(pa.int64()), _PER_SECOND[column.type.unit], _PER_SECOND[unit]
    if before < after:
        # Times that are none in 64 bits of the smaller unit become ones outside all years, and are refused there.
        least, most = MIN_MS * before // 1000 - 1, MAX_MS * before // 1000 + 1
        count = pc.max_element_wise(count, least, skip_nulls=False)
        count = pc.multiply(pc.min_element_wise(count, most, skip_nulls=False), after // before)
    elif before > after:
        count = _floored(count, before // after)
    return count.cast(pa.timestamp(unit, "UTC"))


def _floored(count: pa.ChunkedArray, per: int) -> pa.ChunkedArray:
    quotient = pc.divide(count, per)
    if (least := pc.min(count).as_py()) is not None and least < 0:
        # Arrow divides towards zero.
        quotient = pc.subtract(quotient, pc.less(count, pc.multiply(quotient, per)).cast(pa.int64()))
    return quotient


def _decimals(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    """Scale by way of 256 bits, and only what cannot outgrow them: Arrow would wrap unnoticed."""
    found = column.type
    if pa.types.is_integer(found) and _INT64_DIGITS + kind.scale <= MOST_DIGITS:
        return column.cast(pa.int64()).cast(pa.decimal128(_INT64_DIGITS + kind.scale, kind.scale)).cast(kind)
    if _is_text(found):
        # what Arrow and the reader of single values take alike; the others are read one by one
        if not pc.all(pc.match_substring_regex(column, _DECIMAL_TEXT)).as_py():
            raise pa.ArrowInvalid("decimals that are read one by one")
        column = column.cast(_STRING)
    elif pa.types.is_integer(found) or pa.types.is_floating(found):
        raise pa.ArrowInvalid("numbers that are read one by one")
    elif not pa.types.is_decimal(found) or has_odd_decimal(found):
        return None
    elif found.precision + max(0, kind.scale - found.scale) > _WIDE_DIGITS:
        raise pa.ArrowInvalid("decimals that are read one by one")
    else:
        column.validate(full=True)  # no value has more digits than its type
    return column.cast(pa.decimal256(_WIDE_DIGITS, kind.scale)).cast(kind)


def _bytes(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    found = column.type
    if _is_text(found):
        raise pa.ArrowInvalid("base64 is read value by value")
    plain = pa.types.is_binary(found) or pa.types.is_large_binary(found) or pa.types.is_fixed_size_binary(found)
    return column.cast(kind) if plain else None


def _uuids(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    found = column.type
    if pa.types.is_binary(found) or pa.types.is_large_binary(found):
        raise pa.ArrowInvalid("bytes are read value by value")
    if found == UUID:
        return column
    if not _is_text(found):
        return None
    text = pc.fill_null(column.cast(_STRING), "00000000-0000-0000-0000-000000000000")
    if not pc.all(pc.match_substring_regex(text, _UUID_TEXT)).as_py():
        raise pa.ArrowInvalid("texts that are read one by one")
    chunks = []
    for chunk, given in zip(text.chunks, column.chunks, strict=True):
        digits = np.frombuffer("".join(chunk.to_pylist()).encode(), np.uint8).reshape(-1, 36)[:, _UUID_DIGITS]
        data = pa.py_buffer(bytes.fromhex(digits.tobytes().decode()))
        made = pa.FixedSizeBinaryArray.from_buffers(kind, len(chunk), [None, data])
        chunks.append(pc.if_else(given.is_valid(), made, None) if given.null_count else made)
    return pa.chunked_array(chunks, kind)


def _times_of_day(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    found = column.type
    if pa.types.is_integer(found):
        return column.cast(pa.int64()).cast(kind)
    if pa.types.is_time64(found) and found.unit == "ns":
        return _floored(column.cast(pa.int64()), 1_000).cast(kind)
    if pa.types.is_time(found):
        return column.cast(kind)
    if not _is_text(found):
        return None
    column = column.cast(_STRING)
    if not pc.all(pc.match_substring_regex(column, _TIME_TEXT)).as_py():
        raise pa.ArrowInvalid("texts that are read one by one")
    joined = pc.binary_join_element_wise("1970-01-01 ", column, "")
    return joined.cast(pa.timestamp("us")).cast(pa.int64()).cast(kind)


def _dates(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    if pa.types.is_date(column.type) or _is_text(column.type):
        return column.cast(kind)
    return None


_CONVERSIONS: dict[str, Callable[[pa.ChunkedArray, pa.DataType], pa.ChunkedArray | None]] = {
    "string": _strings,
    "boolean": _same,
    "int": _integers,
    "long": _integers,
    "float": _floats,
    "double": _floats,
    "date": _dates,
    "decimal": _decimals,
    "binary": _bytes,
    "uuid": _uuids,
    "time": _times_of_day,
}
