"""The rows of one column as numpy sees them."""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headwater.arrays import coded
from headwater.contract.written import as_text
from headwater.errors import UsageError

__all__ = ["DECIMAL", "ColumnRows", "Int64s", "column_rows", "kind_of", "scale_of"]

DECIMAL = "decimal "
"""Beginning of the kind of decimals; the scale follows."""

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ColumnRows:
    """Hold the values of a column that are not null, with the slot and event time (ms) of each, in row order.

    The kind is int, bool, time (ms) or date (days), all as int64; float as float64; or str, where `values` are ranks in
    the sorted `texts`. UUIDs, times of day and times in microseconds are texts too, which sort as they do. Of decimals
    the kind names the scale, and `texts` are the sorted numbers without their point.
    """

    field: str
    kind: str
    values: npt.NDArray[Any]
    slots: Int64s
    ts_ms: Int64s
    texts: npt.NDArray[np.object_] | None = None

    @cached_property
    def floats(self) -> npt.NDArray[np.float64]:
        """Return the values as floats."""
        if self.texts is not None and self.kind.startswith(DECIMAL):
            per = 10 ** scale_of(self.kind)
            found: npt.NDArray[np.float64] = np.array([float(Fraction(one, per)) for one in self.texts])[self.values]
            return found
        return self.values.astype(np.float64, copy=False)


def scale_of(kind: str) -> int:
    """Return the scale in the kind of decimals."""
    return int(kind.removeprefix(DECIMAL))


def kind_of(value: Any) -> str:
    """Return the kind of a value in a partial."""
    if isinstance(value, dict):
        if "n" in value:
            return f"{DECIMAL}{len(value['n'].partition('.')[2])}"
        return "time" if "t" in value else "date"
    return type(value).__name__


def column_rows(table: pa.Table, field: str, slots: Int64s, ts_ms: Int64s) -> ColumnRows | None:
    """Read a column of a table; None when it holds nulls only."""
    if field not in table.column_names:
        raise UsageError(f"an aggregate reads column {field!r}, which is not there: {', '.join(table.column_names)}")
    column = table.column(field)
    if column.null_count == len(column):
        return None
    if column.null_count:
        valid = np.flatnonzero(pc.is_valid(column).to_numpy(zero_copy_only=False))
        slots, ts_ms, column = slots[valid], ts_ms[valid], column.drop_null()
    column = pa.chunked_array([as_text(chunk, decimals=False) for chunk in column.chunks])
    plain = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_decimal(plain):
        codes, numbers = _ranked_decimals(column)
        return ColumnRows(field, f"{DECIMAL}{plain.scale}", codes, slots, ts_ms, numbers)
    if pa.types.is_string(plain) or pa.types.is_large_string(plain):
        codes, texts = _ranked(column)
        return ColumnRows(field, "str", codes, slots, ts_ms, texts)
    if column.type != plain:
        column = column.cast(plain)
    kind, target = _numeric(field, plain)
    return ColumnRows(field, kind, _numpy(column, plain, target), slots, ts_ms)


def _numeric(field: str, plain: pa.DataType) -> tuple[str, pa.DataType]:
    kinds = pa.types
    if kinds.is_floating(plain):
        return "float", pa.float64()
    if kinds.is_integer(plain):
        return "int", pa.int64()
    if kinds.is_boolean(plain):
        return "bool", pa.int64()
    if kinds.is_timestamp(plain):
        return "time", pa.timestamp("ms", plain.tz)
    if kinds.is_date(plain):
        return "date", pa.date32()
    raise UsageError(f"no aggregate reads columns of type {plain}: column {field!r}")


def _numpy(column: pa.ChunkedArray, plain: pa.DataType, target: pa.DataType) -> npt.NDArray[Any]:
    if plain != target:
        column = column.cast(target, safe=not pa.types.is_timestamp(target))
    if pa.types.is_date(target):
        column = column.cast(pa.int32()).cast(pa.int64())
    elif pa.types.is_timestamp(target):
        column = column.cast(pa.int64())
    chunks = [chunk.to_numpy(zero_copy_only=True) for chunk in column.chunks]
    values: npt.NDArray[Any] = chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
    return values


def _ranked_decimals(column: pa.ChunkedArray) -> tuple[Int64s, npt.NDArray[np.object_]]:
    array = coded(column)
    data = array.dictionary.cast(pa.decimal128(38, array.dictionary.type.scale)).buffers()[1]
    held = memoryview(data).cast("B")
    numbers = [
        int.from_bytes(held[at : at + 16], "little", signed=True) for at in range(0, 16 * len(array.dictionary), 16)
    ]
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    found = np.empty(len(order), dtype=object)
    found[:] = [numbers[at] for at in order]
    return ranks[array.indices.to_numpy(zero_copy_only=False)], found


def _ranked(column: pa.ChunkedArray) -> tuple[Int64s, npt.NDArray[np.object_]]:
    array = coded(column)
    if array.dictionary.null_count:
        array = array.cast(array.type.value_type).dictionary_encode()
    # Arrow sorts by UTF-8 bytes, which is the order of code points and so Python's own
    order = pc.array_sort_indices(array.dictionary)
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order.to_numpy()] = np.arange(len(order))
    texts = np.empty(len(order), dtype=object)
    texts[:] = array.dictionary.take(order).to_pylist()
    return ranks[array.indices.to_numpy(zero_copy_only=False)], texts
