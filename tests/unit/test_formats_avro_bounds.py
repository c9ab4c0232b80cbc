"""What a few bytes of Avro become is bounded: blocks that inflate, values of no bytes, records within themselves."""

import bz2
import contextlib
import io
import json
import lzma
import zlib
from typing import Any

import fastavro
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from headwater import formats
from headwater.codec.inflate import MAX_BYTES
from headwater.errors import InvalidRecord, UsageError
from headwater.formats.avroschemas import judge
from tests.samples import ORDERS, processed

PACKED = {
    "deflate": lambda data: zlib.compress(data)[2:-4],
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstandard": zstandard.compress,
}
TEXT = {"type": "record", "name": "r", "fields": [{"name": "text", "type": "string"}]}


def long(value: int) -> bytes:
    sink = io.BytesIO()
    fastavro.schemaless_writer(sink, "long", value)
    return sink.getvalue()


def container(schema: Any, blocks: list[tuple[int, bytes]], codec: str = "null") -> bytes:
    """A container made by hand, whose blocks need not hold what the schema says."""
    sink = io.BytesIO()
    meta = {"avro.schema": json.dumps(schema).encode(), "avro.codec": codec.encode()}
    sink.write(b"Obj\x01" + long(len(meta)))
    for name, value in meta.items():
        sink.write(long(len(name)) + name.encode() + long(len(value)) + value)
    sink.write(b"\0" + bytes(16))
    for count, block in blocks:
        sink.write(long(count) + long(len(block)) + block + bytes(16))
    return sink.getvalue()


@pytest.mark.parametrize("codec", PACKED)
def test_each_codec_is_read(codec: str) -> None:
    """With several blocks, as one of no codec is."""
    block = b"".join(long(3) + text for text in (b"one", b"two"))
    data = container(TEXT, [(2, PACKED[codec](block)), (1, PACKED[codec](block[:4]))], codec)
    assert formats.avro()(data) == [{"text": text} for text in ("one", "two", "one")]


@pytest.mark.parametrize("codec", PACKED)
def test_a_block_that_inflates_without_end_is_a_dead_letter(codec: str) -> None:
    """Alone, and in many blocks of which each is small enough."""
    bomb = PACKED[codec](bytes(MAX_BYTES + 1))
    part = PACKED[codec](bytes(MAX_BYTES // 4))
    for blocks in ([(1, bomb)], [(1, part)] * 5):
        data = container(TEXT, blocks, codec)
        assert len(data) < 1 << 20
        (letter,) = processed(formats.avro(), ORDERS, data).letters
        assert "when decompressed" in letter.reason
        assert letter.payload == data


@pytest.mark.parametrize("codec", PACKED)
@given(data=st.binary(max_size=60), cut=st.integers(0, 200))
def test_a_broken_block_is_refused(codec: str, data: bytes, cut: int) -> None:
    """Whatever it holds: rows, or a reason; the codec's own errors go no further."""
    block = PACKED[codec](long(len(data)) + data)[:cut]
    with contextlib.suppress(InvalidRecord, ValueError, EOFError, IndexError, TypeError):
        formats.avro()(container(TEXT, [(1, block)], codec))


NOTHING: list[Any] = [
    {"type": "array", "items": "null"},
    {"type": "array", "items": {"type": "record", "name": "empty", "fields": []}},
    {"type": "array", "items": {"type": "fixed", "name": "none", "size": 0}},
    ["null", {"type": "array", "items": {"type": "record", "name": "e", "fields": [{"name": "n", "type": "null"}]}}],
]


@pytest.mark.parametrize("kind", NOTHING, ids=str)
def test_an_array_of_values_without_bytes_is_refused(kind: Any) -> None:
    """It would be as long as its count says: as the decoder's schema, and as that of a container."""
    schema = {"type": "record", "name": "r", "fields": [{"name": "many", "type": kind}]}
    with pytest.raises(UsageError, match="take no bytes"):
        formats.avro(schema)
    (letter,) = processed(formats.avro(), ORDERS, container(schema, [(1, long(1 << 40) + b"\0")])).letters
    assert "take no bytes" in letter.reason


def test_values_without_bytes_are_counted_as_bytes() -> None:
    """A schema may double its nulls with each record that has the one before twice."""
    kind: Any = "null"
    for at in range(24):
        twice = [{"name": "a", "type": kind}, {"name": "b", "type": f"r{at - 1}" if at else kind}]
        kind = {"type": "record", "name": f"r{at}", "fields": twice}
    assert judge(kind).values == 2**25 - 1
    (letter,) = processed(formats.avro(), ORDERS, container(kind, [(1, b"")])).letters
    assert "values that take no bytes" in letter.reason
    some = {"type": "record", "name": "r", "fields": [{"name": f"f{at}", "type": "null"} for at in range(999)]}
    for count in (1 << 20, 1 << 40):
        (letter,) = processed(formats.avro(), ORDERS, container(some, [(count, b"")])).letters
        assert "more than 67108 bytes when decompressed" in letter.reason


LIST = {"type": "record", "name": "list", "fields": [{"name": "next", "type": ["null", "list"]}]}


def test_a_record_deep_within_itself_is_a_dead_letter() -> None:
    """And does not end the process: plainly, with a registry's frame, and in a container."""
    deep = b"\x02" * 1_000_000 + b"\0"
    for decoder, data in (
        (formats.avro(LIST), deep),
        (formats.avro(schemas={"7": LIST}, framing="confluent"), b"\0\0\0\0\x07" + deep),
        (formats.avro(), container(LIST, [(1, deep)])),
    ):
        (letter,) = processed(decoder, ORDERS, data).letters
        assert "RecursionError" in letter.reason
    assert formats.avro(LIST)(b"\x02\x02\0") == [{"next": {"next": {"next": None}}}]


def test_a_schema_of_many_types_within_each_other_is_refused() -> None:
    """By definitions within each other, and by their names."""
    nested: Any = "int"
    for _ in range(100):
        nested = {"type": "array", "items": nested}
    chain: list[Any] = [{"type": "record", "name": "r0", "fields": []}]
    for at in range(100):
        chain.append({"type": "record", "name": f"r{at + 1}", "fields": [{"name": "f", "type": f"r{at}"}]})
    for schema in (nested, chain):
        with pytest.raises(UsageError, match="more than 64 types within each other"):
            formats.avro(schema)


def lists_of(item: Any) -> dict[str, Any]:
    """A record with a list of these."""
    return {"type": "record", "name": "r", "fields": [{"name": "list", "type": {"type": "array", "items": item}}]}


def record(*kinds: Any) -> dict[str, Any]:
    fields = [{"name": f"f{at}", "type": kind} for at, kind in enumerate(kinds)]
    return {"type": "record", "name": "item", "fields": fields}


DENSE = {
    "records of a byte": (record("boolean"), 1),
    "records of nulls and a byte": (record(*["null"] * 500, "boolean"), 1),
    "records or nulls": (["null", record("boolean")], 2),
    "lists": ({"type": "array", "items": "int"}, 1),
    "lists of records": ({"type": "array", "items": record("boolean")}, 1),
    "maps": ({"type": "map", "values": "int"}, 1),
}


@pytest.mark.parametrize("kind", DENSE)
def test_a_list_of_tiny_records_is_bounded(kind: str) -> None:
    """Each is an object of 200 bytes and more, of a byte: 20 MB took 3 GB."""
    item, size = DENSE[kind]
    count = 5 << 20
    item_bytes = b"\x02" + b"\0" if size == 2 else b"\0"
    message = long(count) + item_bytes * count + b"\0"
    for read in (formats.avro(lists_of(item)), lambda data: formats.avro()(container(lists_of(item), [(1, data)]))):
        with pytest.raises(InvalidRecord, match="bytes"):
            read(message)


def test_lists_of_records_of_some_bytes_are_read() -> None:
    """As many as the largest record has of the lines of an order."""
    line = record("string", "int", "double")
    count = 20_000
    message = long(count) + (long(3) + b"abc" + b"\x04" + bytes(8)) * count + b"\0"
    for read, data in ((formats.avro(lists_of(line)), message),
                       (formats.avro(), container(lists_of(line), [(1, message)]))):  # fmt: skip
        (row,) = read(data)
        assert isinstance(row, dict)
        assert len(row["list"]) == count
