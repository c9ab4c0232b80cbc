"""Take the frames of schema registries off a message: AWS Glue's, and Confluent's. Pure.

Glue's serializers write a version byte (3), a compression byte (0 for none, 5 for zlib), the schema version's UUID in
16 bytes, and the message (https://docs.aws.amazon.com/glue/latest/dg/schema-registry.html). Confluent's write a zero
byte, the schema's number in 4 bytes, and the message.
"""

import uuid
import zlib
from typing import NamedTuple

from headwater.codec.inflate import MAX_BYTES
from headwater.errors import InvalidRecord

__all__ = ["Framed", "take_uvarint", "unflated", "unframed", "uvarint"]

_GLUE, _CONFLUENT = 3, 0
_PLAIN, _ZLIB = 0, 5
_MOST_FLATE = 100
"""Times as many bytes as it has, that a stream of deflate may come to: an aggregate may have many of them."""


class Framed(NamedTuple):
    """Hold a message and the name of the schema that it was written with: a UUID, or a number as text."""

    schema: str
    message: bytes


def unframed(data: bytes, framing: str) -> Framed:
    """Return the message in a frame of `glue` or `confluent`. Raise InvalidRecord for what has no such frame."""
    if framing == "confluent":
        if len(data) < 5 or data[0] != _CONFLUENT:
            raise InvalidRecord("no frame of Confluent's schema registry: it begins with a zero byte and a number")
        return Framed(str(int.from_bytes(data[1:5], "big")), data[5:])
    if len(data) < 18 or data[0] != _GLUE or data[1] not in (_PLAIN, _ZLIB):
        raise InvalidRecord("no frame of the AWS Glue Schema Registry: it begins with the bytes 3 and 0 or 5")
    message = data[18:]
    return Framed(str(uuid.UUID(bytes=data[2:18])), _inflated(message) if data[1] == _ZLIB else message)


def take_uvarint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Return a number as protobuf writes it, and where it ends. Raise InvalidRecord when it is cut or too long."""
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            raise InvalidRecord("a length that is cut")
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    raise InvalidRecord("a length of more than 64 bits")


def uvarint(value: int) -> bytes:
    """Return a number as protobuf writes it: what `take_uvarint` reads.

    >>> uvarint(300)
    b'\\xac\\x02'
    """
    out = []
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def unflated(data: bytes) -> bytes:
    """Return what a raw deflate stream holds; nothing for what is none, or comes to too much."""
    try:
        return _inflated(data, "deflate", -zlib.MAX_WBITS, min(MAX_BYTES, _MOST_FLATE * len(data)))
    except InvalidRecord:
        return b""


def _inflated(data: bytes, name: str = "zlib", wbits: int = zlib.MAX_WBITS, limit: int = MAX_BYTES) -> bytes:
    inflater = zlib.decompressobj(wbits)
    try:
        content = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise InvalidRecord(f"a message whose {name} stream cannot be read: {error}") from None
    if len(content) > limit or not inflater.eof or inflater.unused_data:
        raise InvalidRecord(f"a message whose {name} stream is cut, comes to too much, or has something behind it")
    return content
