"""Compute the digest of a batch's rows: equal for equal rows in equal order, whoever sealed them and however.

Here belongs what "the same content" means. Which batch is compared with which is the reader's business.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from headwater.contract.nestedcolumns import parts

__all__ = ["in_order_of_appearance", "rows_digest"]

_BYTES = 16
"""128 bits: no two batches of a stream meet by chance, and no client can forge a batch with another's digest."""


def rows_digest(names: Sequence[str], columns: Sequence[pa.Array]) -> str:
    """Return the digest of rows, given by column: 32 hexadecimal digits.

    It is over the number of rows, and for each column over its name, its type, which rows are null, and the values of
    the others. It is not over the identity (origin and numbers), the contract's name and version, or the trace: rows
    sealed again under another identity keep their digest. Strings come as dictionaries with the values in the order
    of their first appearance (`in_order_of_appearance`), so the codes do not depend on who made them.

    >>> one, two = pa.array([1.5, None]), pa.array([1.5, 0.0])
    >>> rows_digest(["value"], [one]) == rows_digest(["value"], [two])
    False
    """
    found = hashlib.blake2b(digest_size=_BYTES)
    for name, column in zip(names, columns, strict=True):
        found.update(f"{name}:{column.type}:{len(column)}:{column.null_count};".encode())
        if column.null_count:
            found.update(np.packbits(column.is_null().to_numpy(zero_copy_only=False)).tobytes())
        if pa.types.is_nested(column.type):
            _add_nested(found, column)
        elif pa.types.is_dictionary(column.type):
            found.update(_values(column.indices))
            found.update(_texts(column.dictionary))
        elif pa.types.is_binary(column.type) or pa.types.is_string(column.type):  # texts within others
            found.update(_texts(column.drop_null()))
        else:
            found.update(_values(column))
    return found.hexdigest()


def _add_nested(found: Any, column: pa.Array) -> None:
    """Add the parts of lists, maps and structs; what a null hides has none."""
    if pa.types.is_struct(column.type):
        columns = column.drop_null().flatten()
    else:
        lengths, *columns = parts(column)
        found.update(lengths.tobytes())
    for number, one in enumerate(columns):
        found.update(rows_digest([str(number)], [one]).encode())


def _values(column: pa.Array) -> bytes:
    """Return the values' bytes; what a null hides counts as zero."""
    if pa.types.is_decimal(column.type) or pa.types.is_fixed_size_binary(column.type):
        return _wide(column)
    if pa.types.is_time(column.type):
        column = column.view(pa.int64())
    if column.null_count:
        if pa.types.is_temporal(column.type):  # days and milliseconds are whole numbers underneath
            column = column.view(pa.int32() if column.type.bit_width == 32 else pa.int64())
        column = column.fill_null(False if pa.types.is_boolean(column.type) else 0)
    return bytes(column.to_numpy(zero_copy_only=False).tobytes())


def _wide(column: pa.Array) -> bytes:
    """Return the bytes of values of one width that no number of numpy's has."""
    width = column.type.bit_width // 8
    found = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * width : (column.offset + len(column)) * width]
    if not column.null_count:
        return found.tobytes()
    rows = found.reshape(-1, width).copy()
    rows[column.is_null().to_numpy(zero_copy_only=False)] = 0
    return rows.tobytes()


def _texts(values: pa.Array) -> bytes:
    """Return strings or bytes with their lengths, so that no other list of them has the same bytes."""
    lengths = np.frombuffer(values.buffers()[1], np.int32)[values.offset : values.offset + len(values) + 1]
    data = values.buffers()[2]
    text = memoryview(data)[lengths[0] : lengths[-1]] if data is not None and len(values) else b""
    return np.diff(lengths).tobytes() + bytes(text)


def in_order_of_appearance(coded: pa.DictionaryArray) -> pa.DictionaryArray:
    """Return the same column with only the values that it uses, in the order in which they first appear."""
    valid = coded.indices.is_valid().to_numpy(zero_copy_only=False)
    codes = coded.indices.fill_null(0).to_numpy()
    first = np.full(max(len(coded.dictionary), 1), len(codes))
    rows = np.flatnonzero(valid)[::-1]
    first[codes[rows]] = rows  # backwards: of a value's rows the first is written last
    used = np.argsort(first, kind="stable")[: np.count_nonzero(first < len(codes))]
    place = np.zeros(len(first), np.int32)
    place[used] = np.arange(len(used), dtype=np.int32)
    values = coded.dictionary.take(pa.array(used)).cast(pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(place[codes], pa.int32(), mask=~valid), values)
