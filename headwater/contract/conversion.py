"""Convert columns of other types to their field's. Nothing is lost but the part of a time below the millisecond."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from headwater.contract.definition import Field
from headwater.contract.values import EXACT_FLOATS, MAX_MS, MIN_MS
from headwater.errors import InvalidEvent

__all__ = ["converted", "nulls"]

_PER_MS = {"us": 1_000, "ns": 1_000_000}
_STRING = pa.string()
_UTC_MS = pa.timestamp("ms", "UTC")


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
    if pa.types.is_null(kind):
        return nulls(field, len(column))
    if field.type == "json" or field.format:
        raise pa.ArrowInvalid("values that are read one by one")
    if field.type == "timestamp":
        found = _times(field, column)
    else:
        found = _CONVERSIONS[field.type](column, field.arrow_type)
    if found is None:
        raise InvalidEvent(f"field {field.name}: a column of {kind} cannot be read as {field.type}")
    return found


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


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
    if pa.types.is_timestamp(found):
        return _as_ms(column)
    if _is_text(found):
        return _as_ms(_text_times(column))
    if pa.types.is_integer(found):
        return _counted_times(field, column.cast(pa.int64()))
    if pa.types.is_date(found):
        return column.cast(pa.date32()).cast(pa.timestamp("ms")).cast(pa.int64()).cast(field.arrow_type)
    return None


def _counted_times(field: Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Read numbers of the field's unit since 1970."""
    made = _as_ms(column.cast(pa.timestamp(field.epoch, "UTC")))
    least = pc.min(made.cast(pa.int64())).as_py()
    if least is not None and least < field.earliest_ms:
        raise pa.ArrowInvalid("times that no clock gives")  # to be read and refused one by one
    return made


def _text_times(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Read times that all have a zone, or all have none: anything else is left to be read one by one."""
    try:
        return column.cast(pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:
        return column.cast(pa.timestamp("us"))


def _as_ms(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert times of any unit and zone to milliseconds, rounded down."""
    unit = column.type.unit
    count = column.cast(pa.int64())
    if unit == "s":
        # Seconds that are no milliseconds in 64 bits become ones that lie outside all years, and are refused there.
        count = pc.max_element_wise(count, MIN_MS // 1000 - 1, skip_nulls=False)
        count = pc.multiply(pc.min_element_wise(count, MAX_MS // 1000 + 1, skip_nulls=False), 1000)
    elif unit != "ms":
        per = _PER_MS[unit]
        quotient = pc.divide(count, per)
        if (least := pc.min(count).as_py()) is not None and least < 0:
            # Arrow divides towards zero.
            quotient = pc.subtract(quotient, pc.less(count, pc.multiply(quotient, per)).cast(pa.int64()))
        count = quotient
    return count.cast(_UTC_MS)


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
}
