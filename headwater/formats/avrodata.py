"""Decode Avro: single messages with a known schema, with the frame of a schema registry, and object container files.

Each row has the record's fields; logical types are Python's (decimal, date, time, datetime, UUID).
"""

import io
import json
import math
import re
from collections.abc import Collection, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import fastavro
from fastavro import _read_py

from headwater.codec.records import Decoder
from headwater.codec.rows import MAX_EVENTS, Row
from headwater.errors import InvalidRecord, UsageError
from headwater.formats.avrofiles import MAGIC, open_container
from headwater.formats.avroschemas import MOST_OBJECTS, judge
from headwater.formats.avrovalues import marked, with_defaults
from headwater.formats.framing import unframed

__all__ = ["avro"]


def avro(schema: Any = None, *, schemas: Mapping[str, Any] | None = None, framing: str = "none") -> Decoder:
    """Return a decoder of Avro records.

    `schema` is the schema that the rows are read as: parsed JSON, its text, or the path of an .avsc file. With
    `framing` "glue" or "confluent" each message names the schema that it was written with, and `schemas` holds those by
    their UUID or number; a message of an unknown schema is a dead letter that names it. Object container files bring
    their schema themselves. Raise UsageError for a schema that is none, or when there is none.

    >>> made = avro({"type": "record", "name": "r", "fields": [{"name": "n", "type": "long"}]})
    >>> made(bytes([14]))
    [{'n': 7}]
    """
    if framing not in ("none", "glue", "confluent"):
        raise UsageError(f"avro: framing {framing!r} is none of none, glue, confluent")
    reader = None if schema is None else _parsed(schema)
    writers = {str(name).lower(): _parsed(one) for name, one in (schemas or {}).items()}
    if framing == "none" and reader is None and writers:
        raise UsageError("avro: schemas by name are for messages with the frame of a registry: say framing=...")
    if framing != "none":
        _check_names(writers, framing)

    def decode(data: bytes) -> list[Row]:
        try:
            return read(data)
        except _BROKEN as error:
            what = "no Avro that its schema can read: it was cut, or written with another schema"
            raise InvalidRecord(f"{what} ({type(error).__name__})") from error

    def read(data: bytes) -> list[Row]:
        if data.startswith(MAGIC):
            return _container(data, reader)
        if framing == "none":
            if reader is None:
                raise InvalidRecord("no Avro object container, and the decoder has no schema")
            # many messages may lie end to end, as some writers batch them
            return _messages(data, reader, None)
        name, message = unframed(data, framing)
        writer = writers.get(name)
        if writer is None:
            raise InvalidRecord(f"written with the schema {name}, which the decoder does not have: add it to schemas")
        found = _messages(message, writer, reader)
        if len(found) > 1:  # a frame is of one message: what lies behind it would be read as others
            raise InvalidRecord("a frame of a schema registry with something behind its message")
        return found

    return decode


def _check_names(names: Collection[str], framing: str) -> None:
    """Raise UsageError where no message could name one of the schemas."""
    what, shape = ("UUID", _UUID) if framing == "glue" else ("number", _NUMBER)
    if not names:
        raise UsageError(f"avro: framing {framing} needs schemas, by the {what} that messages have of them")
    wrong = next((name for name in names if not shape.fullmatch(name)), None)
    if wrong is not None:
        raise UsageError(f"avro: framing {framing} has its schemas by {what}, and {wrong!r} is none")


_UUID, _NUMBER = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), re.compile(r"[0-9]{1,10}")
_BROKEN = (EOFError, IndexError, UnicodeDecodeError, OverflowError)
"""Name what fastavro raises for bytes that are none of the schema's, mostly without a word."""


class _Schema(NamedTuple):
    """Hold a schema as fastavro has it, whether its records may lie within themselves, and how many bytes its messages
    may have."""

    parsed: Any
    recursive: bool
    most_bytes: float = math.inf


def _parsed(schema: Any) -> _Schema:
    try:
        if isinstance(schema, Path) or (isinstance(schema, str) and not schema.lstrip().startswith(("{", "[", '"'))):
            schema = Path(schema).read_text(encoding="utf-8")
        written = json.loads(schema) if isinstance(schema, str) else schema
        judged = judge(written)
        most = MOST_OBJECTS / judged.dense if judged.dense else math.inf
        fastavro.parse_schema(written)  # refuses what `marked` hides from it
        return _Schema(with_defaults(fastavro.parse_schema(marked(written))), judged.recursive, most)
    except OSError as error:
        raise UsageError(f"avro: {schema}: {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError, fastavro.schema.SchemaParseException) as error:
        raise UsageError(f"avro: no Avro schema: {error}") from None
    except InvalidRecord as error:
        raise UsageError(f"avro: {error}") from None
    except fastavro.schema.UnknownType as error:
        raise UsageError(f"avro: the schema names an unknown type {error.name}") from None


def _messages(data: bytes, writer: _Schema, reader: _Schema | None) -> list[Row]:
    source, size = io.BytesIO(data), len(data)
    if size > writer.most_bytes:
        raise InvalidRecord(f"{size:,} bytes of Avro may come to more than {MOST_OBJECTS:,} records and lists in lists")
    read = _reads(writer, reader).schemaless_reader
    written, wanted = writer.parsed, reader and reader.parsed
    found: list[Any] = []
    for _ in range(MAX_EVENTS):
        found.append(read(source, written, wanted))
        end = source.tell()
        if end >= size:
            return _rows(found)
        if not end:
            raise InvalidRecord("messages of no bytes with something behind them")
    raise InvalidRecord(f"more than {MAX_EVENTS} events")


def _container(data: bytes, reader: _Schema | None) -> list[Row]:
    opened = open_container(data)
    recursive = _Schema(None, opened.judged.recursive)
    found: list[Any] = []
    for block in _reads(recursive, reader).block_reader(io.BytesIO(opened.data), reader and reader.parsed):
        found += islice(block, MAX_EVENTS + 1 - len(found))
        if len(found) > MAX_EVENTS:
            raise InvalidRecord(f"more than {MAX_EVENTS} events")
        if block.bytes_.read(1):  # fastavro leaves out what is more than the block's count
            raise InvalidRecord("a block of an Avro container with something behind its records")
    return _rows(found)


def _reads(writer: _Schema, reader: _Schema | None) -> Any:
    """Return what reads: where records may lie within themselves, what Python bounds, for C goes on to the end of its
    stack."""
    return _read_py if writer.recursive or (reader and reader.recursive) else fastavro


def _rows(found: list[Any]) -> list[Row]:
    if {*map(type, found)} == {dict}:
        return found
    return [one if isinstance(one, dict) else {"value": one} for one in found]
