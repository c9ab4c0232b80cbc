"""Decode Avro: single messages with a known schema, with the frame of a schema registry, and object container files.

Each row has the record's fields; logical types are Python's (decimal, date, time, datetime, UUID).
"""

import io
import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import fastavro

from headwater.codec.records import Decoder
from headwater.codec.rows import MAX_EVENTS, Row
from headwater.errors import InvalidRecord, UsageError
from headwater.formats.framing import unframed

__all__ = ["avro"]

_CONTAINER = b"Obj\x01"
_SINGLE = b"\xc3\x01"
Schema = Any


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

    def decode(data: bytes) -> list[Row]:
        if data.startswith(_CONTAINER):
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
        return _messages(message, writer, reader)

    return decode


def _parsed(schema: Any) -> Schema:
    try:
        if isinstance(schema, Path) or (isinstance(schema, str) and not schema.lstrip().startswith(("{", "[", '"'))):
            schema = Path(schema).read_text(encoding="utf-8")
        return fastavro.parse_schema(json.loads(schema) if isinstance(schema, str) else schema)
    except OSError as error:
        raise UsageError(f"avro: {schema}: {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError, fastavro.schema.SchemaParseException) as error:
        raise UsageError(f"avro: no Avro schema: {error}") from None
    except fastavro.schema.UnknownType as error:
        raise UsageError(f"avro: the schema names an unknown type {error.name}") from None


def _messages(data: bytes, writer: Schema, reader: Schema | None) -> list[Row]:
    source, size = io.BytesIO(data), len(data)
    found: list[Any] = []
    for _ in range(MAX_EVENTS):
        found.append(fastavro.schemaless_reader(source, writer, reader))
        end = source.tell()
        if end >= size:
            return _rows(found)
        if not end:
            raise InvalidRecord("messages of no bytes with something behind them")
    raise InvalidRecord(f"more than {MAX_EVENTS} events")


def _container(data: bytes, reader: Schema | None) -> list[Row]:
    found = list(islice(fastavro.reader(io.BytesIO(data), reader), MAX_EVENTS + 1))
    if len(found) > MAX_EVENTS:
        raise InvalidRecord(f"more than {MAX_EVENTS} events")
    return _rows(found)


def _rows(found: list[Any]) -> list[Row]:
    if {*map(type, found)} == {dict}:
        return found
    return [one if isinstance(one, dict) else {"value": one} for one in found]
