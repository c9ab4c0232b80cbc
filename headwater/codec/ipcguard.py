"""A look at an Arrow IPC stream before its columns are built.

Arrow checks the flatbuffers of a stream, not what they ask for: a row count is a bare number in the message, and
compressed buffers name their own size. Both are bounded here, so that a record of a few bytes cannot ask for gigabytes.
"""

import struct

import numpy as np
import pyarrow as pa

from headwater.codec.bounds import text_bytes
from headwater.contract.conversion import unviewed
from headwater.contract.nestedcolumns import has_odd_decimal
from headwater.errors import InvalidRecord

__all__ = ["MAX_ROWS", "check_columns", "check_messages", "check_schema"]

MAX_ROWS = 1 << 23
"""Six times the rows of a full 10 MiB record at the densest measured encoding."""

_MAX_MESSAGES = 4096
_MAX_TEXT = 512 << 20
_MOST_DEPTH = 12
"""Arrow types within each other: a map is a list of structs."""
_PLAIN = [pa.bool_(), pa.date32(), pa.date64(), pa.timestamp("ms"), pa.string(), pa.large_string(), pa.null()]
_NUMBERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
_FLOATS = [pa.float16(), pa.float32(), pa.float64()]
_DECIMALS = [pa.decimal32(1), pa.decimal64(1), pa.decimal128(1), pa.decimal256(1)]
_BYTES = [pa.binary(), pa.large_binary(), pa.binary_view(), pa.string_view(), pa.binary(16)]
_TIMES = [pa.time32("s"), pa.time64("us")]
_KINDS = frozenset(kind.id for kind in [*_PLAIN, *_NUMBERS, *_FLOATS, *_DECIMALS, *_BYTES, *_TIMES])
_DICTIONARY = pa.dictionary(pa.int8(), pa.string()).id
_U16, _U32, _I32, _I64 = (struct.Struct(kind).unpack_from for kind in ("<H", "<I", "<i", "<q"))


def check_messages(data: pa.Buffer) -> int:
    """Return the number of rows that the stream says it has; refuse one that asks for more than a record may."""
    source = pa.BufferReader(data)
    reader = pa.ipc.MessageReader.open_stream(source)
    rows = count = last = 0
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            _check_end(data, last, source.tell())
            return rows
        count, last = count + 1, source.tell()
        if count > _MAX_MESSAGES:
            raise InvalidRecord(f"more than {_MAX_MESSAGES} messages in one batch")
        if message.type in ("record batch", "dictionary"):
            length = _check_batch(memoryview(message.metadata), message.type == "dictionary")
            rows += length if message.type == "record batch" else 0
            if not 0 <= length <= MAX_ROWS or rows > MAX_ROWS:
                raise InvalidRecord(f"more than {MAX_ROWS} rows")


def _check_end(data: pa.Buffer, last: int, end: int) -> None:
    """Refuse a stream without its end mark, or with something behind it, given the end of its last message.

    Arrow's reader takes the end of the bytes for the end of the stream, and leaves unread what comes after the mark: a
    stream that is cut between two messages, and one that is appended to another, would lose rows without an error.
    """
    if end == last:  # the mark has 8 bytes, before Arrow 0.15 4; reading it moves the reader on
        raise InvalidRecord("an Arrow stream without its end mark: it was cut, or its writer was not closed")
    if any(memoryview(data)[end:]):  # zeros are padding
        raise InvalidRecord("an Arrow stream with something behind its end mark: send each stream by itself")


def check_schema(schema: pa.Schema) -> None:
    """Refuse column types that no contract has; run-end-encoded ones could claim any number of values, and decimals of
    a scale beyond their digits end the process.
    """
    for field in schema:
        kind = field.type
        if kind.id == _DICTIONARY:
            kind = kind.value_type
        if isinstance(kind, pa.UuidType):
            kind = kind.storage_type
        if not _is_taken(kind, _MOST_DEPTH) or has_odd_decimal(kind):
            raise InvalidRecord(f"column {field.name!r} has the type {field.type}, which no contract has")


def _is_taken(kind: pa.DataType, depth: int) -> bool:
    if kind.num_fields and depth:
        lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        if lists or pa.types.is_map(kind) or pa.types.is_struct(kind):
            inner = [kind.field(at).type for at in range(kind.num_fields)]
            return all(_is_taken(one, depth - 1) for one in inner)
        return False
    return kind.id in _KINDS or isinstance(kind, pa.UuidType)


def check_columns(table: pa.Table) -> pa.Table:
    """Refuse columns whose offsets, codes or text are broken; give every dictionary distinct values and no null."""
    table.validate(full=True)
    for at, field in enumerate(table.schema):
        column = table.column(at)
        if pa.types.is_nested(column.type):
            for chunk in column.chunks:
                _check_parts(chunk)
        column = _plain_texts(column)
        if column is not table.column(at):
            table = table.set_column(at, field.name, column)
            field = table.schema.field(at)
        if field.type.id != _DICTIONARY:
            continue
        _check_text(column)
        if not all(_is_plain(chunk.dictionary) for chunk in column.chunks):
            plain = column.cast(field.type.value_type).dictionary_encode()
            table = table.set_column(at, field.name, plain)
    return table


def _check_parts(column: pa.Array) -> None:
    """Refuse more values in lists, maps and structs than a record may have rows, and views of too much text."""
    if len(column) > MAX_ROWS:
        raise InvalidRecord(f"more than {MAX_ROWS} values in a list")
    if pa.types.is_struct(column.type):
        inner = [column.field(at) for at in range(column.type.num_fields)]
    elif pa.types.is_map(column.type):
        inner = [column.keys, column.items]
    elif pa.types.is_nested(column.type):
        inner = [column.values]
    else:
        _plain_texts(pa.chunked_array([column]))
        return
    for one in inner:
        _check_parts(one)


def _plain_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the column without views; refuse views that name more text together than a record may have."""
    plain, size = unviewed(column) if pa.types.is_nested(column.type) else column, 0
    if pa.types.is_string_view(column.type) or pa.types.is_binary_view(column.type):
        for chunk in column.chunks:
            # a view is 16 bytes, the first four of which are the length
            lengths = np.frombuffer(chunk.buffers()[1], np.int32)[::4][chunk.offset : chunk.offset + len(chunk)]
            size += int(lengths.sum(dtype=np.int64, where=chunk.is_valid().to_numpy(zero_copy_only=False)))
        if size > _MAX_TEXT:
            raise InvalidRecord(f"more than {_MAX_TEXT >> 20} MiB of text")
        plain = unviewed(column)
    elif pa.types.is_dictionary(column.type):
        dictionaries = pa.chunked_array([chunk.dictionary for chunk in column.chunks], column.type.value_type)
        plain = column if _plain_texts(dictionaries) is dictionaries else unviewed(column)
    return plain


def _check_text(column: pa.ChunkedArray) -> None:
    """Refuse rows whose texts come to too many bytes together, each counted as often as it is said."""
    size = 0
    for chunk in column.chunks:
        # the product is a bound that costs nothing; below it, 4096 chunks come to half of what is refused
        size += text_bytes(chunk) if chunk.dictionary.nbytes * len(chunk) > _MAX_TEXT >> 13 else 0
        if size > _MAX_TEXT:
            raise InvalidRecord(f"more than {_MAX_TEXT >> 20} MiB of text")


def _is_plain(dictionary: pa.Array) -> bool:
    return dictionary.null_count == 0 and len(dictionary.unique()) == len(dictionary)


def _check_batch(metadata: memoryview, dictionary: bool) -> int:
    """Return the row count in a message. Arrow has verified the flatbuffer, so every offset lies within it."""
    root = _U32(metadata)[0]
    batch = _table(metadata, root, 2)
    if dictionary and batch:
        batch = _table(metadata, batch, 1)
    if not batch:
        raise InvalidRecord("a batch without a header")
    if _field(metadata, batch, 3):
        raise InvalidRecord("a batch with compressed buffers: compress the whole stream with zstd or gzip in place")
    at = _field(metadata, batch, 0)
    return int(_I64(metadata, at)[0]) if at else 0


def _field(metadata: memoryview, table: int, number: int) -> int:
    """Return where field `number` of a flatbuffer table lies; 0 when it is not there."""
    vtable = table - _I32(metadata, table)[0]
    at = 4 + 2 * number
    if at >= _U16(metadata, vtable)[0]:
        return 0
    offset: int = _U16(metadata, vtable + at)[0]
    return table + offset if offset else 0


def _table(metadata: memoryview, table: int, number: int) -> int:
    at = _field(metadata, table, number)
    return at + int(_U32(metadata, at)[0]) if at else 0
