"""Arrays of numpy and Arrow as all modules write them: types of one dimension, and chunked columns made whole."""

import numpy as np
import pyarrow as pa

__all__ = ["Ints", "Mask", "coded", "times", "whole"]

Ints = np.ndarray[tuple[int], np.dtype[np.int64]]
Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]


def whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return the column as one array; a column of one chunk is not copied.

    >>> whole(pa.chunked_array([[1, 2], [3]])).to_pylist()
    [1, 2, 3]
    """
    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def coded(column: pa.ChunkedArray | pa.Array) -> pa.DictionaryArray:
    """Return the column as one dictionary-encoded array, in which each value has one code.

    >>> column = pa.chunked_array([pa.array(["b", "a"]).dictionary_encode(), pa.array(["a"]).dictionary_encode()])
    >>> coded(column).indices.to_pylist(), coded(column).dictionary.to_pylist()
    ([0, 1, 1], ['b', 'a'])
    """
    if isinstance(column, pa.ChunkedArray) and pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    one = whole(column)
    return one if pa.types.is_dictionary(one.type) else one.dictionary_encode()


def times(table: pa.Table, column: str) -> Ints:
    """Return a time column of ms or µs without nulls in epoch ms, rounded down.

    >>> times(pa.table({"ts": pa.array([1, 2], pa.timestamp("ms", "UTC"))}), "ts").tolist()
    [1, 2]
    """
    found: Ints = table.column(column).cast(pa.int64()).to_numpy()
    return found // 1000 if table.schema.field(column).type.unit == "us" else found
