"""Open Avro object container files within a bound (https://avro.apache.org/docs/1.12.0/specification/#object-container-files).

A block of a few bytes may inflate to any size, and fastavro inflates it whole. Here all blocks of a file are inflated
together within what a record may come to, and what fastavro reads has no compressed blocks.
"""

import bz2
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import fastavro

from headwater.codec.inflate import MAX_BYTES, unzstd
from headwater.errors import InvalidRecord
from headwater.formats.avroschemas import MOST_OBJECTS, Judged, judge
from headwater.formats.avrovalues import marked
from headwater.formats.framing import take_uvarint

__all__ = ["MAGIC", "Container", "open_container"]

MAGIC = b"Obj\x01"
_SYNC = 16
_CHECKSUM = 4
"""Bytes of zlib's checksum, of which fastavro leaves some behind a deflated block."""
_MOST_KNOWN = 64 << 10
"""Bytes of a schema that is remembered."""
_MOST_VALUES = 10_000
"""Values of one record that take no bytes, such as nulls."""
_HEADER: Any = fastavro.parse_schema(
    {
        "type": "record",
        "name": "header",
        "fields": [
            {"name": "magic", "type": {"type": "fixed", "name": "magic", "size": 4}},
            {"name": "meta", "type": {"type": "map", "values": "bytes"}},
            {"name": "sync", "type": {"type": "fixed", "name": "sync", "size": _SYNC}},
        ],
    }
)


class Container(NamedTuple):
    """Hold a container whose blocks are not compressed, and what its schema may come to."""

    data: bytes
    judged: Judged


def open_container(data: bytes) -> Container:
    """Return the container with its blocks inflated. Raise InvalidRecord for one that is broken or comes to too much.

    What a value takes in memory without any bytes of the file, such as a null, is counted as a byte.
    """
    source = io.BytesIO(data)
    header: Any = fastavro.schemaless_reader(source, _HEADER, None)
    meta = header["meta"]
    schema, judged = _read_schema(meta.get("avro.schema", b"null"))
    codec = meta.get("avro.codec", b"null").decode()
    if codec not in _INFLATE:
        raise InvalidRecord(f"an Avro container whose codec is {codec[:40]!r}: known are {', '.join(_INFLATE)}")
    if judged.values > _MOST_VALUES:
        raise InvalidRecord(f"an Avro schema with {judged.values} values that take no bytes")
    limit = min(MAX_BYTES // max(1, judged.values), int(MOST_OBJECTS / judged.dense) if judged.dense else MAX_BYTES)
    made, left = [], limit
    for count, block in _blocks(data, source.tell(), header["sync"]):
        content = _INFLATE[codec](block, left) if codec != "null" else block
        left -= max(len(content), count)
        if left < 0:
            raise InvalidRecord(f"an Avro container of more than {limit} bytes when decompressed")
        made.append((count, content))
    if codec == "null" and schema == meta.get("avro.schema"):
        return Container(data, judged)
    sink = io.BytesIO()
    fastavro.schemaless_writer(sink, _HEADER, header | {"meta": meta | {"avro.codec": b"null", "avro.schema": schema}})
    for count, content in made:
        sink.write(_long(count) + _long(len(content)) + content + header["sync"])
    return Container(sink.getvalue(), judged)


def _read_schema(schema: bytes) -> tuple[bytes, Judged]:
    """Return the schema as our readers take it, judged; that of a writer comes with each of its containers."""
    return _known(schema) if len(schema) <= _MOST_KNOWN else _new(schema)


def _new(schema: bytes) -> tuple[bytes, Judged]:
    written = json.loads(schema)
    judged = judge(written)  # before it is walked: a schema may be deep
    ours = marked(written)
    return schema if ours == written else json.dumps(ours).encode(), judged


_known = lru_cache(maxsize=64)(_new)


def _blocks(data: bytes, at: int, sync: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the number of records and the bytes of each block, which ends with the file's mark."""
    while at < len(data):
        count, at = _taken(data, at)
        size, at = _taken(data, at)
        if not 0 <= size <= len(data) - at - _SYNC:
            raise InvalidRecord("an Avro container that is cut")
        if count < 0 or data[at + size : at + size + _SYNC] != sync:
            raise InvalidRecord("a block of an Avro container that does not end with the file's mark")
        yield count, data[at : at + size]
        at += size + _SYNC


def _taken(data: bytes, at: int) -> tuple[int, int]:
    value, at = take_uvarint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _long(value: int) -> bytes:
    sink = io.BytesIO()
    fastavro.schemaless_writer(sink, "long", value)
    return sink.getvalue()


def _stdlib(make: Callable[[], Any]) -> Callable[[bytes, int], bytes]:
    """Return the reader of a codec whose decompressor takes a maximum."""

    def inflate(data: bytes, limit: int) -> bytes:
        inflater = make()
        try:
            content: bytes = inflater.decompress(data, limit + 1)
        except (zlib.error, lzma.LZMAError, OSError) as error:
            raise InvalidRecord(f"a block of an Avro container that cannot be read: {error}") from None
        if len(content) > limit:
            raise InvalidRecord(f"an Avro container of more than {limit} bytes more when decompressed")
        if not inflater.eof:
            raise InvalidRecord("a block of an Avro container that ends too early")
        if len(inflater.unused_data) > _CHECKSUM:
            raise InvalidRecord("a block of an Avro container with something behind its compressed bytes")
        return content

    return inflate


_INFLATE: dict[str, Callable[[bytes, int], bytes]] = {
    "null": lambda data, _: data,
    "deflate": _stdlib(lambda: zlib.decompressobj(wbits=-zlib.MAX_WBITS)),
    "bzip2": _stdlib(bz2.BZ2Decompressor),
    "xz": _stdlib(lambda: lzma.LZMADecompressor(memlimit=2 * MAX_BYTES)),
    "zstandard": unzstd,
}
"""Readers of the codecs: the bytes of a block, and how many it may come to. Snappy and LZ4 need libraries of their own,
which bound nothing."""
