"""Read the texts of Parquet within a bound: a text that a column says once may stand in each of its rows.

A dictionary page of a megabyte and a run of its index, a few bytes long, are 65,536 rows of a megabyte each. So texts
are read as they lie in the file, and written out for as many rows at a time as the bound allows.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["plain_tables", "text_columns"]

_MOST_BYTES = 16 << 20
"""Bytes of texts in one table."""


def text_columns(file: Any) -> list[str]:
    """Return the names of a file's columns of text, those of Arrow's own dictionary type included."""
    kinds = dict(zip(file.schema_arrow.names, file.schema_arrow.types, strict=True))
    return [name for name, kind in kinds.items() if _is_text(kind)]


def plain_tables(batch: pa.RecordBatch, texts: list[str]) -> Iterator[pa.Table]:
    """Yield the rows of a batch in tables of bounded size; the columns in `texts` come as plain text."""
    sizes = np.zeros(batch.num_rows, np.int64)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name in texts and pa.types.is_dictionary(column.type):
            lengths = pc.binary_length(column.dictionary).take(column.indices)
            sizes += pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    ends = np.cumsum(sizes)
    start = 0
    while start < batch.num_rows:
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _MOST_BYTES, side="right")))
        part = batch.slice(start, stop - start)
        yield pa.table([_plain(column) for column in part.columns], names=part.schema.names)
        start = stop


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value))


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
