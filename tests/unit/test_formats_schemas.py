"""Avro and Protobuf, plain and with the frames of schema registries, through a pipeline's engine into rows."""

import json
import struct
from collections.abc import Callable
from typing import Any

import pytest

from headwater import formats
from headwater.codec import Decoder, encode_kpl
from headwater.errors import UsageError
from headwater.formats.framing import unframed
from headwater.processors.definition.pipeline import Pipeline
from tests.samples import (
    AVRO,
    MESSAGE,
    NOON,
    ORDERS,
    PROTO_CONTRACT,
    VERSION,
    avro_message,
    container,
    descriptors,
    glue,
    lake,
    processed,
)


@pytest.mark.parametrize(
    ("decoder", "data", "rows"),
    [
        (formats.avro(AVRO), avro_message(), 1),
        (formats.avro(json.dumps(AVRO)), avro_message() * 3, 3),
        (formats.avro(), container(), 2),
        (formats.avro(schemas={str(VERSION): AVRO}, framing="glue"), glue(avro_message()), 1),
        (formats.avro(AVRO, schemas={str(VERSION): AVRO}, framing="glue"), glue(avro_message(), True), 1),
        (formats.avro(schemas={"7": AVRO}, framing="confluent"), struct.pack(">bI", 0, 7) + avro_message(), 1),
    ],
    ids=["plain", "end to end", "container", "glue", "glue, zlib", "confluent"],
)
def test_avro(decoder: Decoder, data: bytes, rows: int) -> None:
    """Alone, in a container, and with the frame of a registry; as a record and as a user record."""
    for record in (data, encode_kpl([data], "k", None)):
        found = lake(decoder, ORDERS, record)
        assert [(row["k"], row["ts"], row["amount"], row["tags"]) for row in found] == [
            ("o-1", NOON, 12.5, '["x"]')
        ] * rows


def test_a_schema_that_is_not_there_is_named() -> None:
    """The letter says which, so that it can be added and the letter redriven."""
    others = {"00000000-0000-0000-0000-000000000009": AVRO}
    (letter,) = processed(formats.avro(schemas=others, framing="glue"), ORDERS, glue(avro_message())).letters
    assert str(VERSION) in letter.reason
    assert letter.payload == glue(avro_message())
    assert unframed(letter.payload, "glue").message == avro_message()


@pytest.mark.parametrize(
    ("framing", "schemas", "says"),
    [
        ("glue", {}, "needs schemas, by the UUID"),
        ("glue", None, "needs schemas, by the UUID"),
        ("confluent", {}, "needs schemas, by the number"),
        ("glue", {"7": AVRO}, "by UUID, and '7' is none"),
        ("confluent", {"orders": AVRO}, "by number, and 'orders' is none"),
    ],
)
def test_a_frame_whose_schemas_no_message_can_name_is_refused_at_once(framing: str, schemas: Any, says: str) -> None:
    """Else every record would be a dead letter."""
    with pytest.raises(UsageError, match=says):
        formats.avro(AVRO, schemas=schemas, framing=framing)


@pytest.mark.parametrize(
    ("framing", "data", "rows"),
    [
        ("none", MESSAGE, 1),
        ("delimited", (bytes([len(MESSAGE)]) + MESSAGE) * 2, 2),
        ("glue", glue(b"\0" + MESSAGE), 1),
        ("glue", glue(b"\0" + MESSAGE, True), 1),
        ("confluent", struct.pack(">bI", 0, 7) + b"\0" + MESSAGE, 1),
    ],
)
def test_protobuf(framing: str, data: bytes, rows: int) -> None:
    """By a descriptor set, with and without a frame."""
    found = lake(formats.protobuf(descriptors(), "shop.Order", framing=framing), PROTO_CONTRACT, data)
    assert [(row["k"], row["ts"], row["n"], row["tags"]) for row in found] == [("o-1", NOON, 7, '["x","y"]')] * rows


def test_decoders_that_cannot_be_made_are_refused_in_one_line() -> None:
    """Before any record is read."""
    wrong: list[Callable[[], object]] = [
        lambda: formats.avro("nowhere.avsc"),
        lambda: formats.avro({"type": "record"}),
        lambda: formats.avro({"type": "strange"}),
        lambda: formats.avro(AVRO, framing="xml"),
        lambda: formats.protobuf(b"\xff", "shop.Order"),
        lambda: formats.protobuf(descriptors(), "shop.Nothing"),
        lambda: formats.protobuf("nowhere.pb", "shop.Order"),
        lambda: formats.influx(precision="minute"),
        lambda: formats.otlp("telemetry"),
        lambda: formats.csv([]),
        lambda: Pipeline("p", ORDERS).decode("csv"),  # type: ignore[arg-type]  # which is what is refused
    ]
    for make in wrong:
        with pytest.raises(UsageError) as caught:
            make()
        assert "\n" not in str(caught.value)
