"""Read Parquet within a bound: a text that a column says once may stand in each of its rows.

A dictionary page of a megabyte and a run of its index, a few bytes long, are 65,536 rows of a megabyte each. So texts
and bytes, those within lists, maps and structs too, are read as they lie in the file, and written out for as many rows
at a time as the bound allows.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.arrays import Ints

__all__ = ["HowToRead", "how_to_read", "plain_tables"]

_MOST_BYTES = 16 << 20
"""Bytes of texts in one table."""
_ROWS, _FEW_ROWS = 65_536, 256
"""Rows that are read at a time: few where each text may share what is in the one before (delta byte arrays)."""
_SHARING, _NO_DICTIONARIES = "DELTA_BYTE_ARRAY", frozenset({"DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"})


class HowToRead(NamedTuple):
    """Hold how a file is to be read: `coded` are the paths of the columns to be read as dictionaries, `rows` how many
    rows at a time."""

    coded: list[str]
    rows: int


def how_to_read(file: Any) -> HowToRead:
    """Return how a ParquetFile is to be read."""
    coded, rows = list[str](), _ROWS
    for at in range(len(file.schema)):
        column = file.schema.column(at)
        chunks = [file.metadata.row_group(group).column(at) for group in range(file.metadata.num_row_groups)]
        encodings = {encoding for chunk in chunks for encoding in chunk.encodings}
        if column.physical_type == "BYTE_ARRAY" and not encodings & _NO_DICTIONARIES:
            coded.append(column.path)
        rows = min(rows, _FEW_ROWS if _SHARING in encodings else rows)
        if column.physical_type == "FIXED_LEN_BYTE_ARRAY":
            rows = min(rows, _MOST_BYTES // max(1, column.length))
        for group, chunk in enumerate(chunks):  # a row may have a long list
            of_group = file.metadata.row_group(group).num_rows
            rows = min(rows, _ROWS * of_group // max(1, chunk.num_values, of_group) if of_group else rows)
    return HowToRead(coded, max(1, rows))


def plain_tables(batch: pa.RecordBatch) -> Iterator[pa.Table]:
    """Yield the rows of a batch in tables of bounded size; what came as dictionaries comes as plain texts and bytes."""
    ends = np.cumsum(sum((_sizes(column) for column in batch.columns), np.zeros(batch.num_rows, np.int64)))
    start = 0
    while start < batch.num_rows:
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _MOST_BYTES, side="right")))
        part = batch.slice(start, stop - start)
        yield pa.table([_plain(column) for column in part.columns], names=part.schema.names)
        start = stop


def _sizes(column: pa.Array) -> Ints:
    """Return the bytes of each row's texts, written out."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        values = column.dictionary
        if pa.types.is_fixed_size_binary(values.type) or pa.types.is_primitive(values.type):
            return np.zeros(len(column), np.int64)
        lengths = pc.binary_length(values).take(column.indices)
        sizes: Ints = pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False).astype(np.int64)
        return sizes
    if pa.types.is_struct(kind):
        found: Ints = sum((_sizes(column.field(at)) for at in range(kind.num_fields)), np.zeros(len(column), np.int64))
        return found
    if pa.types.is_map(kind):
        return _summed(_sizes(column.keys) + _sizes(column.items), column.offsets)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _summed(_sizes(column.values), column.offsets)
    return np.zeros(len(column), np.int64)


def _summed(sizes: Ints, offsets: pa.Array) -> Ints:
    """Return for each list the sum of what is in it."""
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    found: Ints = np.diff(ends[offsets.to_numpy()])
    return found


def _plain(column: pa.Array) -> pa.Array:
    plain = _plain_type(column.type)
    return column if plain == column.type else column.cast(plain)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_struct(kind):
        return pa.struct([one.with_type(_plain_type(one.type)) for one in kind])
    if pa.types.is_map(kind):
        return pa.map_(_plain_type(kind.key_type), _plain_type(kind.item_type))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_plain_type(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_plain_type(kind.value_type)))
    return kind
