"""Check what a column in its field's type may hold: finite numbers, times that Python holds, bounds, values."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.clock import DAY_MS
from headwater.contract.definition import Field, Number
from headwater.contract.scalars import DAY_US
from headwater.contract.values import MAX_MS, MIN_MS

__all__ = ["Places", "long_texts", "refused_rows"]

_INT64 = pa.int64()
_INT32 = pa.int32()
Places = np.ndarray[tuple[int], np.dtype[np.intp]]


def refused_rows(field: Field, column: pa.ChunkedArray) -> Places | None:
    """Return the places of the values that break the contract; None where there are none. Nulls are not looked at."""
    if field.values:
        return _places(_unlisted(field, column))
    kind = field.type
    if kind in ("double", "float"):
        return _refused_floats(field, column)
    if kind == "timestamp":
        return _outside(_counts(column, _INT64), MIN_MS, MAX_MS)
    if kind == "timestamp_us":
        return _outside(_counts(column, _INT64), MIN_MS * 1000, MAX_MS * 1000 + 999)
    if kind == "time":
        return _outside(_counts(column, _INT64), 0, DAY_US - 1)
    if kind == "date":
        return _outside(_counts(column, _INT32), MIN_MS // DAY_MS, MAX_MS // DAY_MS)
    low, high = field.bounds
    if field.kind.name == "decimal":
        # Arrow reads 1.0 as a decimal(20, 20), too
        most = field.kind.largest
        low, high = (most.copy_negate() if low is None else low), (most if high is None else high)
    return None if low is None and high is None else _outside(column, low, high)


def long_texts(column: pa.ChunkedArray, limit: int) -> Places | None:
    """Return the places of the texts of more than `limit` bytes in UTF-8; None where there are none."""
    texts = [chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk for chunk in column.chunks]
    if all((pc.max(pc.binary_length(one)).as_py() or 0) <= limit for one in texts):
        return None
    long = [pc.greater(pc.binary_length(one), limit) for one in texts]
    parts = [
        one.take(chunk.indices) if pa.types.is_dictionary(chunk.type) else one
        for one, chunk in zip(long, column.chunks, strict=True)
    ]
    return _places(pa.chunked_array(parts, pa.bool_()))


def _refused_floats(field: Field, column: pa.ChunkedArray) -> Places | None:
    # NaN and infinity stay in a sum, so that one pass shows that there are none. A sum can also overflow by itself.
    total = pc.sum(column).as_py()
    if total is not None and not np.isfinite(total):
        finite = pc.is_finite(column)
        if not pc.all(finite).as_py():
            outside = _bad(pc.if_else(finite, column, None), *field.bounds)
            return _places(pc.or_(pc.invert(finite), outside))
    low, high = field.bounds
    return None if low is None and high is None else _outside(column, low, high)


def _counts(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Return times as the numbers that they are stored as."""
    return pa.chunked_array([chunk.view(kind) for chunk in column.iterchunks()], kind)


def _outside(column: pa.ChunkedArray, low: Number | None, high: Number | None) -> Places | None:
    for chunk in column.chunks:
        least, most = _extent(chunk)
        if least is not None and ((low is not None and least < low) or (high is not None and most > high)):
            return _places(_bad(column, low, high))
    return None


def _extent(chunk: pa.Array) -> tuple[Any, Any]:
    if len(chunk) == chunk.null_count:
        return None, None
    if chunk.null_count == 0 and not pa.types.is_decimal(chunk.type):
        values = chunk.to_numpy()
        return values.min(), values.max()
    span = pc.min_max(chunk).as_py()
    return span["min"], span["max"]


def _bad(column: pa.ChunkedArray, low: Number | None, high: Number | None) -> pa.ChunkedArray:
    if pa.types.is_decimal(column.type):
        low, high = pa.scalar(low, column.type), pa.scalar(high, column.type)
    below = pc.less(column, low) if low is not None else pc.and_(column.is_null(), False)
    above = pc.greater(column, high) if high is not None else pc.and_(column.is_null(), False)
    return pc.or_(below.fill_null(False), above.fill_null(False))


def _unlisted(field: Field, column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    if not pa.types.is_dictionary(column.type):
        listed = pc.is_in(column, field.value_set)
        return None if pc.all(listed).as_py() else pc.and_(pc.invert(listed), column.is_valid())
    if all(pc.all(pc.is_in(chunk.dictionary, field.value_set)).as_py() for chunk in column.chunks):
        return None
    # A dictionary may hold values that no row has.
    return pa.chunked_array(
        [pc.invert(pc.is_in(chunk.dictionary, field.value_set)).take(chunk.indices) for chunk in column.chunks],
        pa.bool_(),
    )


def _places(bad: pa.ChunkedArray | None) -> Places | None:
    if bad is None:
        return None
    places: Places = np.flatnonzero(bad.fill_null(False).to_numpy())
    return places if len(places) else None
