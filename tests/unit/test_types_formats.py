"""What Avro, Protobuf, Debezium and DynamoDB have of decimals, UUIDs, bytes, fine times and nested values."""

import base64
import io
import json
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import fastavro
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from headwater import formats
from headwater.codec import Decoded, decode_contents
from headwater.codec.records import Decoder
from headwater.contract import Contract, parse_contract
from headwater.contract.values import jsonable
from headwater.errors import InvalidRecord

NOON = datetime(2026, 3, 1, 12, 0, 0, 5, UTC)
ID = UUID(int=7)


def of(fields: str) -> Contract:
    head = "{name: k, type: string}, {name: ts, type: timestamp_us}"
    return parse_contract(
        f"{{name: c, version: 1, key: k, time: ts, unknown: ignore, fields: [{head}, {fields}]}}", "c"
    )


def row(data: bytes, contract: Contract, decoder: Decoder) -> dict[str, Any]:
    (found,) = decode_contents(data, contract, decoder).contents
    assert isinstance(found, Decoded)
    assert not found.invalid, found.invalid[0].reason
    (made,) = found.table.to_pylist()
    return dict(made)


def test_avro_has_its_logical_types() -> None:
    """Of 38 digits, too; and lists, maps and records."""
    logical = {
        "d": ("bytes", "decimal"),
        "u": ("string", "uuid"),
        "t": ("long", "time-micros"),
        "m": ("int", "time-millis"),
    }
    fields: list[dict[str, Any]] = [
        {
            "name": name,
            "type": {"type": kind, "logicalType": of_} | ({"precision": 38, "scale": 10} if name == "d" else {}),
        }
        for name, (kind, of_) in logical.items()
    ]
    fields += [
        {"name": "k", "type": "string"},
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    ]
    fields += [{"name": "b", "type": "bytes"}, {"name": "l", "type": {"type": "array", "items": ["null", "long"]}}]
    inner = {
        "type": "record",
        "name": "inner",
        "fields": [{"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}],
    }
    fields.append({"name": "s", "type": {"type": "map", "values": inner}})
    schema = {"type": "record", "name": "r", "fields": fields}
    value: dict[str, Any] = {
        "k": "a",
        "ts": NOON,
        "d": Decimal("1234567890123456789012345678.0123456789"),
        "u": ID,
        "t": time(1, 2, 3, 4),
    }
    value |= {"m": time(1), "b": b"\0\xff", "l": [1, None], "s": {"x": {"at": NOON.replace(microsecond=0)}}}
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(schema), value)
    kinds = "{name: d, type: 'decimal(38, 10)'}, {name: u, type: uuid}, {name: t, type: time}, {name: m, type: time}"
    nested = (
        "{name: b, type: binary}, {name: l, type: 'list<long?>'}, {name: s, type: 'map<string, struct<at: timestamp>>'}"
    )
    found = row(body.getvalue(), of(f"{kinds}, {nested}"), formats.avro(schema))
    assert found == value | {"u": ID.bytes, "s": list(value["s"].items())}


def test_protobuf_has_nested_messages_bytes_and_maps() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    line = file.message_type.add(name="Line")
    line.field.add(name="sku", number=1, type=9, label=1)
    line.field.add(name="price", number=2, type=9, label=1)
    order = file.message_type.add(name="Order")
    for number, (name, kind) in enumerate({"k": 9, "ts": 9, "raw": 12}.items(), 1):
        order.field.add(name=name, number=number, type=kind, label=1)
    order.field.add(name="lines", number=4, type=11, label=3, type_name=".t.Line")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Order"))(
        k="a", ts=NOON.isoformat(), raw=b"\xff"
    )
    made.lines.add(sku="x", price="1.50")
    decoder = formats.protobuf(descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString(), "t.Order")
    lines = "{name: lines, type: 'list<struct<sku: string, price: decimal(9, 2)>>'}"
    found = row(made.SerializeToString(), of(f"{{name: raw, type: binary}}, {lines}"), decoder)
    assert (found["raw"], found["lines"]) == (b"\xff", [{"sku": "x", "price": Decimal("1.50")}])


def test_debezium_has_decimals_and_times_of_day() -> None:
    """Each in the unit that its schema says; a time beyond the day is a dead letter."""
    unscaled = 12345678901234567890123456789012345678
    scale = {"name": "org.apache.kafka.connect.data.Decimal", "field": "d", "parameters": {"scale": "10"}}
    units = {"ms": "io.debezium.time.Time", "us": "io.debezium.time.MicroTime", "ns": "io.debezium.time.NanoTime"}
    parts = [scale, *({"name": kind, "field": name} for name, kind in units.items())]
    data = base64.b64encode(unscaled.to_bytes(16, "big", signed=True)).decode()
    after = {"k": "a", "d": data, "ms": 3_600_000, "us": 3_600_000_001, "ns": 3_600_000_001_999}
    body = {"op": "c", "before": None, "after": after, "ts_ms": 1_772_366_400_000}
    record = {"schema": {"fields": [{"field": "after", "fields": parts}]}, "payload": body}
    kinds = ", ".join(f"{{name: {name}, type: time, from: row.{name}}}" for name in units)
    text = f"{{name: k, type: string, from: row.k}}, {{name: ts, type: timestamp, from: ts_ms}}, {kinds}"
    fields = f"{text}, {{name: d, type: 'decimal(38, 10)', from: row.d}}"
    contract = parse_contract(f"{{name: c, version: 1, key: k, time: ts, unknown: ignore, fields: [{fields}]}}", "c")
    found = row(json.dumps(record).encode(), contract, formats.debezium())
    assert [found[name] for name in ("ms", "us", "ns")] == [time(1), time(1, 0, 0, 1), time(1, 0, 0, 1)]
    assert found["d"] == Decimal(f"{unscaled}E-10")


def test_dynamodb_numbers_are_decimals() -> None:
    change = {
        "eventName": "INSERT", "tableName": "t",
        "dynamodb": {
            "ApproximateCreationDateTime": 1_772_366_400_000, "Keys": {"k": {"S": "a"}},
            "NewImage": {
                "k": {"S": "a"}, "n": {"N": "1234567890123456789.01"}, "b": {"B": "AP8="}, "l": {"L": [{"N": "1"}]},
            },
        },
    }  # fmt: skip
    fields = "{name: k, type: string, from: item.k}, {name: ts, type: timestamp, from: at}"
    fields += ", {name: n, type: 'decimal(38, 2)', from: item.n}, {name: b, type: binary, from: item.b}"
    fields += ", {name: l, type: list<decimal(5, 2)>, from: item.l}".replace(
        "list<decimal(5, 2)>", "'list<decimal(5, 2)>'"
    )
    contract = parse_contract(f"{{name: c, version: 1, key: k, time: ts, unknown: ignore, fields: [{fields}]}}", "c")
    found = row(json.dumps(change).encode(), contract, formats.dynamodb_changes())
    assert (found["n"], found["b"], found["l"]) == (Decimal("1234567890123456789.01"), b"\0\xff", [Decimal("1.00")])


@pytest.mark.parametrize("number", ["1E20000000", "-1E-20000000", "1E401", "1" * 900, "0E20000000", "NaN"])
def test_no_number_of_a_change_is_written_out_at_any_length(number: str) -> None:
    """A few bytes with a huge exponent are refused, with the record as it is for its dead letter."""
    image = {"k": {"S": "a"}, "n": {"L": [{"N": number}]}}
    stream = {"ApproximateCreationDateTime": 1_772_366_400_000, "NewImage": image}
    with pytest.raises(InvalidRecord, match="of the type N that cannot be read"):
        formats.dynamodb_changes()(json.dumps({"eventName": "INSERT", "dynamodb": stream}).encode())
    if number in ("NaN", "1E401"):
        return
    value = Decimal(number)
    unscaled = base64.b64encode(int(number.partition("E")[0]).to_bytes(400, "big", signed=True)).decode()
    scale = {"scale": str(-int(value.as_tuple().exponent))}
    parts = [{"name": "org.apache.kafka.connect.data.Decimal", "field": "d", "parameters": scale}]
    payload = {"op": "c", "before": None, "after": {"d": unscaled}, "ts_ms": 1}
    record = {"schema": {"fields": [{"field": "after", "fields": parts}]}, "payload": payload}
    with pytest.raises(InvalidRecord, match="that cannot be read"):
        formats.debezium()(json.dumps(record).encode())


@pytest.mark.parametrize("number", ["1E20000000", "-1E-20000000", "0E20000000", "1E400", "-1.5E-400"])
def test_a_decimal_of_any_exponent_is_a_short_text(number: str) -> None:
    """In the dead letter of a decoder's row, too."""
    assert len(json.dumps(Decimal(number), default=jsonable)) < 30
