"""A value of a format is read as its writer meant it, or the event is a dead letter: nothing is rounded, wrapped or
dropped in silence."""

import io
import json
import zlib
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headwater import formats
from headwater.codec import Decoder, encode_kpl
from headwater.errors import InvalidRecord
from headwater.formats.framing import uvarint
from tests.samples import DEBEZIUM_CONTRACT, LOGS_CONTRACT, processed


def rows(decoder: Decoder, data: bytes) -> list[dict[str, Any]]:
    found: Any = decoder(data)
    return [*found]


def record(**fields: Any) -> dict[str, Any]:
    listed = [{"name": name, **(kind if "default" in kind else {"type": kind})} for name, kind in fields.items()]
    return {"type": "record", "name": "R", "fields": [{"name": "k", "type": "string"}, *listed]}


def message(schema: Any, **row: Any) -> bytes:
    sink = io.BytesIO()
    fastavro.schemaless_writer(sink, fastavro.parse_schema(schema), {"k": "a", **row})
    return sink.getvalue()


def container(body: bytes, schema: Any, codec: str) -> bytes:
    """One message, in a file that says it is of the schema."""
    meta = {"avro.schema": json.dumps(schema).encode(), "avro.codec": codec.encode()}
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.read.HEADER_SCHEMA, {"magic": b"Obj\x01", "meta": meta, "sync": bytes(16)})
    packer = zlib.compressobj(wbits=-15)
    body = packer.compress(body) + packer.flush() if codec == "deflate" else body
    return out.getvalue() + uvarint(2) + uvarint(2 * len(body)) + body + bytes(16)


def avro_ways(schema: Any, body: bytes) -> list[tuple[Decoder, bytes]]:
    """Alone, in containers, with a frame, and by the reader for records within themselves."""
    itself = {**schema, "fields": [*schema["fields"], {"name": "next", "type": ["null", "R"]}]}
    return [
        (formats.avro(schema), body),
        (formats.avro(), container(body, schema, "null")),
        (formats.avro(schema), container(body, schema, "deflate")),
        (formats.avro(schema, schemas={"7": schema}, framing="confluent"), bytes([0, 0, 0, 0, 7]) + body),
        (formats.avro(itself), body + b"\0"),
    ]


@given(st.integers(-(10**60), 10**60), st.integers(1, 38), st.integers(0, 38), st.booleans())
@example(123456789, 4, 2, False)
def test_a_decimal_of_avro_has_the_digits_that_were_written(count: int, digits: int, scale: int, fixed: bool) -> None:
    """Also where they are more than its schema's precision, to which fastavro rounds."""
    data = count.to_bytes(26, "big", signed=True)
    plain: Any = {"type": "fixed", "name": "F", "size": 26} if fixed else {"type": "bytes"}
    schema = record(v={**plain, "logicalType": "decimal", "precision": digits, "scale": min(scale, digits)})
    for decoder, body in avro_ways(schema, message(record(v=plain), v=data)):
        (row,) = rows(decoder, body)
        assert row["v"] == Decimal(f"{count}E-{min(scale, digits)}")


@pytest.mark.parametrize(("kind", "logical"), [("int", "time-millis"), ("long", "time-micros")])
@pytest.mark.parametrize("count", [-1, 86_400_000, 86_400_000_000])
def test_a_time_of_day_of_avro_outside_the_day_is_refused(kind: str, logical: str, count: int) -> None:
    """fastavro makes another time of one below zero."""
    schema = record(v={"type": kind, "logicalType": logical})
    if (logical, count) == ("time-micros", 86_400_000):
        assert formats.avro(schema)(message(record(v=kind), v=count)) == [{"k": "a", "v": time(0, 1, 26, 400_000)}]
    elif count < 2**31:
        for decoder, body in avro_ways(schema, message(record(v=kind), v=count)):
            with pytest.raises(ValueError, match="outside the day"):
                decoder(body)


def test_a_field_that_the_writer_did_not_have_has_its_default() -> None:
    """Read it as a value of its type: bytes stand as characters in a schema, and times as numbers."""
    cents = {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}
    reader = record(
        raw={"type": "bytes", "default": "AA\u00ff"},
        price={"type": cents, "default": "1"},
        at={"type": {"type": "long", "logicalType": "timestamp-micros"}, "default": 1_772_366_400_000_000},
        day={"type": {"type": "int", "logicalType": "date"}, "default": 20_513},
        maybe={"type": ["null", cents], "default": None},
        prices={"type": {"type": "array", "items": cents}, "default": ["1", "2"]},
        by={"type": {"type": "map", "values": cents}, "default": {"a": "1"}},
        within={"type": {"type": "record", "name": "W", "fields": [
            {"name": "a", "type": cents}, {"name": "b", "type": "bytes", "default": "x"}]}, "default": {"a": "1"}},
        again={"type": "W", "default": {"a": "2", "b": "y"}},
    )  # fmt: skip
    body = bytes([0, 0, 0, 0, 7]) + message(record())
    (row,) = formats.avro(reader, schemas={"7": record()}, framing="confluent")(body)
    one, two = Decimal("0.49"), Decimal("0.50")
    assert row == {
        "k": "a",
        "raw": b"AA\xff",
        "price": one,
        "at": datetime(2026, 3, 1, 12, tzinfo=UTC),
        "day": date(2026, 3, 1),
        "maybe": None,
        "prices": [one, two],
        "by": {"a": one},
        "within": {"a": one, "b": b"x"},
        "again": {"a": two, "b": b"y"},
    }


NO_NUMBERS: list[Any] = ["1_000", " 1 ", "\u0661", "", "NaN", "-Infinity", "0x1", "1e99999", "1" * 900, 1, 1.5, True,
                         None, [0, [1], 0], {}]  # fmt: skip


@pytest.mark.parametrize("image", [*({"N": one} for one in NO_NUMBERS), *({"NS": [one]} for one in NO_NUMBERS),
                                   {"NS": "12"}, {"SS": "ab"}, {"SS": {"a": 1}}, {"L": {}}, {"L": ""}, {"M": []},
                                   {"B": "A A="}, {"BS": "AAAA"}], ids=str)  # fmt: skip
def test_what_is_no_attribute_of_dynamodb_is_refused(image: Any) -> None:
    """Python reads some of these texts as numbers, and a text as a list of its characters."""
    change = {"eventName": "INSERT", "dynamodb": {"ApproximateCreationDateTime": 10**12, "NewImage": {"v": image}}}
    with pytest.raises(InvalidRecord, match="cannot be read"):
        formats.dynamodb_changes()(json.dumps(change).encode())


DECIMAL = {"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "2"}}
VARIABLE = {"type": "struct", "name": "io.debezium.data.VariableScaleDecimal"}
MICROS = {"type": "int64", "name": "io.debezium.time.MicroTimestamp"}
DAYS = {"type": "int32", "name": "io.debezium.time.Date"}


def change(value: Any, schema: Any) -> bytes:
    after = {"type": "struct", "field": "after", "fields": [{**schema, "field": "v"}]}
    return json.dumps({"schema": {"fields": [after]}, "payload": {"op": "c", "after": {"v": value}}}).encode()


@pytest.mark.parametrize(
    ("value", "schema", "read"),
    [
        ({"scale": 3, "value": "BNI="}, VARIABLE, Decimal("1.234")),
        ({"scale": -3, "value": "BNI="}, VARIABLE, Decimal("1234000")),
        (["BNI=", None], {"type": "array", "items": DECIMAL}, [Decimal("12.34"), None]),
        ({"a": "1234"}, {"type": "map", "values": DECIMAL}, {"a": Decimal("-26588.24")}),
        ({"a": "1234", "b": 1}, {"type": "struct", "fields": [{**DECIMAL, "field": "a"}]},
         {"a": Decimal("-26588.24"), "b": 1}),
        ([[1]], {"type": "array", "items": {"type": "array", "items": DAYS}}, [[date(1970, 1, 2)]]),
    ],
)  # fmt: skip
def test_values_of_debezium_within_others_have_their_types(value: Any, schema: Any, read: Any) -> None:
    """The bytes of a decimal are base64, which may look like another number."""
    (row,) = rows(formats.debezium(), change(value, schema))
    assert row["row"] == {"v": read}


@pytest.mark.parametrize("value", [1.5, True, "5", [1], {}])
@pytest.mark.parametrize("schema", [MICROS, DAYS, {"name": "io.debezium.time.Time"}])
def test_a_time_of_debezium_that_is_no_whole_number_is_refused(value: Any, schema: Any) -> None:
    """Part of a microsecond or of a day would be cut off."""
    with pytest.raises(InvalidRecord, match="cannot be read"):
        formats.debezium()(change(value, schema))


@pytest.mark.parametrize("tombstone", [b"", b'{"schema": null, "payload": null}'])
def test_a_tombstone_of_debezium_is_no_event_and_no_letter(tombstone: bytes) -> None:
    """Debezium Server puts it on a stream as a record without any byte; what is empty otherwise is a letter."""
    for record in (tombstone, encode_kpl([tombstone, tombstone], "k", None)):
        found = processed(formats.debezium(), DEBEZIUM_CONTRACT, record)
        assert [*found.lake, *found.letters] == []
    for nothing in (b"{}", b'{"schema": {}, "payload": {}}'):
        assert len(processed(formats.debezium(), DEBEZIUM_CONTRACT, nothing).letters) == 1
    assert len(processed(formats.telegraf(), LOGS_CONTRACT, b"").letters) == 1
