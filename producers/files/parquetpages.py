"""Bound the pages of a Parquet file before they are read (https://parquet.apache.org/docs/file-format/data-pages/).

Arrow makes room for each page as large as its header says, and a few bytes inflate to gigabytes; of each column one is
held at a time, and its dictionary. The headers are structs of Thrift's compact protocol, of which three numbers count.
"""

from typing import IO, Any

from headwater.errors import UsageError

__all__ = ["check_pages"]

_MOST_BYTES = 256 << 20
"""Bytes of what is held of a row group at once. Writers make pages of a megabyte, DuckDB of up to 100."""
_MOST_HEADER = 1 << 20
_UNPACKED, _PACKED, _DATA, _DICTIONARY, _DATA_2, _VALUES = 2, 3, 5, 7, 8, 1
"""The numbers of a header's fields: sizes of the page, the structs of pages by kind, in them the number of values."""
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 11, 12
_MOST_DEPTH = 8

Struct = dict[int, Any]


def check_pages(name: str, source: IO[bytes], metadata: Any) -> None:
    """Raise UsageError for a file of this name and metadata (pyarrow's) with pages that take too much memory together,
    or whose headers cannot be read."""
    try:
        _check(source, metadata)
    except ValueError as error:
        raise UsageError(f"{name}: no Parquet file that can be read: {error}") from error


def _check(source: IO[bytes], metadata: Any) -> None:
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        held = 0
        for at in range(group.num_columns):
            column = group.column(at)
            largest = _largest(source, column)
            held += largest
            if held > _MOST_BYTES:
                raise ValueError(
                    f"row group {number} takes more than {_MOST_BYTES >> 20} MiB at once, of which a page of column "
                    f"{column.path_in_schema[:60]} {largest:,} bytes: write it with smaller pages"
                )


def _largest(source: IO[bytes], column: Any) -> int:
    """Return the bytes of the largest page of a column's chunk, and of its dictionary."""
    at = column.data_page_offset
    if column.has_dictionary_page and 0 < column.dictionary_page_offset < at:
        at = column.dictionary_page_offset
    end, values, page, dictionary = at + column.total_compressed_size, 0, 0, 0
    while at < end and values < column.num_values:
        header, start = _header(source, at)
        size, packed = _count(header, _UNPACKED, at), _count(header, _PACKED, at)
        if _DICTIONARY in header:
            dictionary = max(dictionary, size + packed)
        else:
            page = max(page, size + packed)
        for kind in (_DATA, _DATA_2):
            if isinstance(header.get(kind), dict):
                values += _count(header[kind], _VALUES, at)
        at = start + packed
    return page + dictionary


def _count(found: Struct, field: int, at: int) -> int:
    number = found.get(field)
    if not isinstance(number, int) or number < 0:
        raise ValueError(f"no header of a page at byte {at}")
    return number


def _header(source: IO[bytes], at: int) -> tuple[Struct, int]:
    """Return the header of the page at a place, and where its content begins."""
    size = 512
    while size <= _MOST_HEADER:
        source.seek(at)
        data = source.read(size)
        try:
            found, length = _struct(data, 0, _MOST_DEPTH)
        except IndexError:  # more of it is to come
            if len(data) < size:
                break
            size *= 2
            continue
        return found, at + length
    raise ValueError(f"no header of a page at byte {at}")


def _struct(data: bytes, at: int, depth: int) -> tuple[Struct, int]:
    """Return the fields of a struct by their numbers. Raise IndexError where it is cut, ValueError where it is none."""
    found: Struct = {}
    number = 0
    while (head := data[at]) != _STOP:
        at += 1
        kind = head & 0x0F
        if head >> 4:
            number += head >> 4
        else:
            number, at = _zigzag(data, at)
        found[number], at = _value(data, at, kind, depth)
    return found, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if not depth:
        raise ValueError("a page's header that is nested too deeply")
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, at
    if kind == _STRUCT:
        return _struct(data, at, depth - 1)
    if kind == _BINARY:
        length, at = _varint(data, at)
        return None, _within(data, at + length)
    if kind in (_BYTE, _DOUBLE):
        return None, _within(data, at + (1 if kind == _BYTE else 8))
    if kind in (_LIST, _SET, _MAP):
        raise ValueError("a page's header with a list, which none has")
    if kind > _STRUCT:
        raise ValueError("no header of a page")
    return _zigzag(data, at)


def _within(data: bytes, at: int) -> int:
    if at > len(data):
        raise IndexError(at)
    return at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than 64 bits")


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at
