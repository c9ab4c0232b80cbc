"""No number, name or field is lost in silence on the way from a writer: it is kept as it was written, or refused."""

import io
import json
import uuid
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from google.protobuf import descriptor_pb2
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from headwater import formats
from headwater.codec import Decoder, encode_kpl
from headwater.contract import Contract, load_contract
from headwater.errors import InvalidRecord, UsageError
from headwater.formats.framing import uvarint
from tests.samples import MESSAGE, NOON, NOON_MS, contract, descriptors, encoded, lake, processed

HEAD = "{name: k, type: string}, {name: ts, type: timestamp}"
NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)


def kept(decoder: Decoder | None, of: Contract, record: bytes) -> str:
    """The text of the JSON column of the only row."""
    (row,) = lake(decoder, of, record)
    found: str = row["rest"]
    return found


@given(NUMBERS)
@example("9007199254740993.0")
@example("0.1234567890123456789")
@example("1e400")
@example("1e-400")
def test_json_that_is_kept_has_the_numbers_that_were_written(number: str) -> None:
    """In a field of the type json, and in the one for what no field takes; also when a dead letter is sent again."""
    rest = "{name: rest, type: json, required: false}"
    line = f'{{"k": "a", "ts": {NOON_MS}, "rest": [{number}, {{"b": {number}}}]}}'
    body = f'{{"op": "c", "ts_ms": {NOON_MS}, "after": {{"k": "a", "x": {number}}}}}'
    of_change = "{name: k, type: string, from: row.k}, {name: ts, type: timestamp, from: ts_ms}"
    of = contract(f"{of_change}, {rest}", more="unknown: rest,")
    found = [
        json.loads(kept(None, contract(f"{HEAD}, {rest}"), line.encode()), parse_float=Decimal)[0],
        json.loads(kept(None, contract(f"{HEAD}, {rest}", more="unknown: rest,"), line.encode().replace(b"rest", b"r")),
                   parse_float=Decimal)["r"][1]["b"],
        json.loads(kept(formats.debezium(), of, body.encode()), parse_float=Decimal)["row"]["x"],
    ]  # fmt: skip
    shut = contract(f"{of_change}, {{name: absent, type: int}}, {rest}", more="unknown: rest,")
    (letter,) = processed(formats.debezium(), shut, body.encode()).letters
    found.append(json.loads(kept(formats.debezium(), of, letter.payload), parse_float=Decimal)["row"]["x"])
    assert found == [Decimal(number)] * 4


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_lacks_is_refused_where_json_is_kept(number: float) -> None:
    """It would be kept as a text with something that is no JSON in it."""
    of = contract(f"{HEAD}, {{name: rest, type: json, required: false}}", more="unknown: rest,")
    (letter,) = processed(lambda _: [{"k": "a", "ts": NOON_MS, "x": number}], of, b"x").letters
    assert "cannot be written as JSON" in letter.reason


DECIMALS = contract(
    "{name: k, type: string, from: row.k}, {name: ts, type: timestamp, from: ts_ms},"
    "{name: price, type: 'decimal(38, 10)', from: row.price}",
    more="unknown: ignore,",
)


@pytest.mark.parametrize(
    "number", ["12345678901234567890.1234567891", "0.3000000001", "1234567890.123456", "1e-10", "7"]
)
def test_a_decimal_of_a_change_has_all_its_digits(number: str) -> None:
    """Databases write them as numbers of JSON, and no float is on the way."""
    body = f'{{"op": "c", "ts_ms": {NOON_MS}, "after": {{"k": "a", "price": {number}}}}}'
    for record in (body.encode(), encode_kpl([body.encode()] * 2, "k", None)):
        assert {row["price"] for row in lake(formats.debezium(), DECIMALS, record)} == {Decimal(number)}


LINES = contract(
    "{name: k, type: string, from: measurement}, {name: ts, type: timestamp, from: time},"
    "{name: rest, type: json, required: false}",
    more="unknown: rest,",
)


@pytest.mark.parametrize(
    "line",
    ["m a=1,a=2", 'm a=1,b="x",a=2', "m,t=x,t=y a=1", "m,t=x,t=y a=1 1772366400000000000", "m a=-1u",
     "m a=18446744073709551616u", "m a=9223372036854775808i", "m a=-9223372036854775809i", "m a=tRuE", "m a=1e400",
     "m a=1 1772366400", "m a=1 1772366400000", "m a=1 -1"],
)  # fmt: skip
def test_a_line_with_no_one_meaning_is_a_dead_letter(line: str) -> None:
    """Names twice, numbers beyond their type, and times that are counted in another unit: today would be in 1970."""
    for record in (line, f"m a=1 {NOON_MS}000000\n{line}"):
        found = processed(formats.influx(), LINES, record.encode())
        assert [letter.payload for letter in found.letters] == [line.encode()]


def test_a_line_that_is_no_text_costs_no_other() -> None:
    """Its bytes are in the letter as they came."""
    found = processed(formats.influx(), LINES, b"m a=1\nm,t=\xff a=2\nm a=3\n")
    assert [(letter.reason, letter.payload) for letter in found.letters] == [("not UTF-8 text", b"m,t=\xff a=2")]
    assert sum(table.num_rows for table in found.lake) == 2


def test_lines_that_look_alike() -> None:
    """Leave out what stands before a text of UTF-8, and take an early time where it is meant."""
    ends = "m a=-9223372036854775808i,b=18446744073709551615u,A=T"
    row, second = lake(formats.influx(), LINES, f"\ufeff{ends} {NOON_MS}000000\nm,a=b a=1".encode())
    assert (row["k"], row["ts"], second["k"]) == ("m", NOON, "m")
    assert json.loads(row["rest"])["fields"] == {"a": -(2**63), "b": 2**64 - 1, "A": True}
    (row,) = lake(formats.influx(precision="s", earliest="1960-01-01"), LINES, b"m a=1 -86400")
    assert row["ts"].isoformat() == "1969-12-31T00:00:00+00:00"
    with pytest.raises(UsageError, match="no day"):
        formats.influx(earliest="yesterday")


def test_labels_of_a_metric_stream_in_the_earlier_format_are_attributes() -> None:
    """OpenTelemetry 0.7 has them in a field that 1.0 has not: a metric without its dimensions is another."""
    made = ExportMetricsServiceRequest()
    metric = made.resource_metrics.add().scope_metrics.add().metrics.add(name="CPUUtilization")
    point = metric.summary.data_points.add(time_unix_nano=NOON_MS * 10**6, count=5, sum=50.0)
    label = b"\x0a\x0aInstanceId\x12\x03i-1"
    point.MergeFromString(b"\x0a" + uvarint(len(label)) + label)
    later = metric.summary.data_points.add(time_unix_nano=NOON_MS * 10**6)
    later.attributes.add(key="InstanceId").value.string_value = "i-2"
    body = made.SerializeToString()
    rows = lake(formats.metric_stream(), load_contract("otel_metrics"), uvarint(len(body)) + body)
    assert [json.loads(row["attributes"]) for row in rows] == [{"InstanceId": "i-1"}, {"InstanceId": "i-2"}]
    point.MergeFromString(b"\x0a\x03\x0a\x01\xff")
    body = made.SerializeToString()
    (letter,) = processed(formats.metric_stream(), load_contract("otel_metrics"), uvarint(len(body)) + body).letters
    assert "no UTF-8" in letter.reason


UNKNOWN = [
    (b"\xf0\x07\x05", {"126": 5}),
    (b"\xf2\x07\x01x\xf2\x07\x01y", {"126": ["eA==", "eQ=="]}),
    (b"\xf3\x07\x08\x07\xf4\x07", {"126": {"1": 7}}),
    (b"\x1d\x07\0\0\0", {"3": 7}),  # a number of another type than the descriptor has
]


@pytest.mark.parametrize(("more", "kept_as"), UNKNOWN)
def test_a_field_that_a_descriptor_lacks_is_for_the_contract_to_judge(more: bytes, kept_as: Any) -> None:
    """Refused, ignored or kept, as a field of JSON that the contract does not know."""
    decoder = formats.protobuf(descriptors(), "shop.Order")
    fields = "{name: k, type: string, from: id}, {name: ts, type: timestamp, from: at}"
    ignoring = contract(fields, more="unknown: ignore,")
    keeping = contract(f"{fields}, {{name: rest, type: json, required: false}}", more="unknown: rest,")
    for records in ([MESSAGE + more], [MESSAGE + more] * 3, [MESSAGE, MESSAGE + more]):
        assert [row["k"] for row in lake(decoder, ignoring, *records)] == ["o-1"] * len(records)
        last = lake(decoder, keeping, *records)[-1]
        assert json.loads(last["rest"]).items() >= kept_as.items()
    refusing = contract(f"{fields}, {{name: n, type: long}}, {{name: tags, type: json}}")
    found = processed(decoder, refusing, MESSAGE, MESSAGE + more)
    (letter,) = found.letters
    assert letter.reason.startswith(f'field "{next(iter(kept_as))}')
    assert "is not in contract" in letter.reason
    assert sum(table.num_rows for table in found.lake) == 1


def test_keys_of_a_map_are_as_json_has_them() -> None:
    """A truth value is no word of Python."""
    file = descriptor_pb2.FileDescriptorProto(name="m.proto", package="m", syntax="proto3")
    message = file.message_type.add(name="M")
    entry = message.nested_type.add(name="OnEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=8, label=1)
    entry.field.add(name="value", number=2, type=3, label=1)
    message.field.add(name="on", number=1, type=11, label=3, type_name=".m.M.OnEntry")
    decoder = formats.protobuf(descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString(), "m.M")
    found: Any = decoder(b"\x0a\x04\x08\x01\x10\x05")
    assert found == [{"on": {"true": 5}}]
    assert encoded(found[0]["on"]) == b'{"true": 5}'


AVRO = {
    "type": "record",
    "name": "r",
    "fields": [
        {"name": "k", "type": "string"},
        {"name": "ts", "type": "long"},
        {"name": "x", "type": ["null", "string"]},
    ],
}
GLUE = formats.avro(schemas={str(uuid.UUID(int=7)): AVRO}, framing="glue")
FRAME = b"\3\0" + uuid.UUID(int=7).bytes


def avro_message(name: str, more: str | None = None) -> bytes:
    sink = io.BytesIO()
    fastavro.schemaless_writer(sink, AVRO, {"k": name, "ts": NOON_MS, "x": more})
    return sink.getvalue()


def read_or_reason(decoder: Decoder, record: bytes) -> list[Any] | str:
    try:
        return list(decoder(record))
    except InvalidRecord as error:
        return str(error)


@pytest.mark.parametrize("behind", [b"\0", avro_message(""), avro_message("b"), FRAME + avro_message("b")])
def test_nothing_behind_a_framed_message_is_read_as_another(behind: bytes) -> None:
    assert isinstance(read_or_reason(GLUE, FRAME + avro_message("a")), list)
    assert isinstance(read_or_reason(GLUE, FRAME + avro_message("a") + behind), str)


@pytest.mark.parametrize("decoder", [GLUE, formats.avro(AVRO)])
def test_each_cut_of_a_message_is_told_in_words(decoder: Decoder) -> None:
    message = avro_message("a", "\u00e9")
    frame = FRAME if decoder is GLUE else b""
    odd = [message[:end] for end in range(1, len(message))] + [b"\2\xff" + message[2:], message[:-4] + b"\x08"]
    for one in odd:
        reason = read_or_reason(decoder, frame + one)
        assert str(reason).startswith("no Avro that its schema can read"), one


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz"])
def test_a_container_has_all_its_bytes_read_or_none(codec: str) -> None:
    """A wrong count, a wrong mark, and bytes behind the records or behind what is compressed."""
    header, block = io.BytesIO(), io.BytesIO()
    mark = bytes(range(16))
    fastavro.writer(header, AVRO, [], codec=codec, sync_marker=mark)
    fastavro.writer(block, AVRO, [{"k": k, "ts": NOON_MS, "x": None} for k in "ab"], codec=codec, sync_marker=mark)
    head, whole = header.getvalue(), block.getvalue()
    assert whole.startswith(head + b"\4")  # two records
    decoder = formats.avro(AVRO)
    assert len(read_or_reason(decoder, whole)) == 2
    size = uvarint((len(whole) - len(head) - 2 - 16 + 8) * 2)
    longer = head + b"\4" + size + whole[len(head) + 2 : -16] + bytes(8) + mark
    fewer = head + b"\2" + whole[len(head) + 1 :]
    for odd in (fewer, longer, whole[:-1] + b"\0", head + b"\3" + whole[len(head) + 1 :], whole + whole):
        assert isinstance(read_or_reason(decoder, odd), str), odd[len(head) :]


@pytest.mark.parametrize(
    ("stamp", "precision"),
    [(NOON_MS // 1000, None), (NOON_MS * 1000, None), (NOON_MS, "MICROSECOND"), (0, None), (10**30, "MICROSECOND")],
)
def test_a_change_whose_time_is_in_another_unit_is_no_event_of_1970(stamp: int, precision: str | None) -> None:
    change = {"ApproximateCreationDateTime": stamp, "Keys": {"id": {"S": "a"}}}
    change |= {"ApproximateCreationDateTimePrecision": precision} if precision else {}
    record = json.dumps({"eventName": "INSERT", "dynamodb": change}).encode()
    assert "counted in another unit" in read_or_reason(formats.dynamodb_changes(), record)
