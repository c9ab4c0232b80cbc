"""What a decoder reads from many records at once is what it reads from each by itself, whatever stands beside it."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, timestamp_pb2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headwater import formats
from headwater.codec import Decoder
from headwater.codec.rows import MAX_EVENTS
from headwater.contract import Contract, parse_contract
from headwater.errors import InvalidRecord
from headwater.processors.operators.decode import Part, Poison, decode
from headwater.stream.record import StreamRecord
from tests.samples import descriptors

NOON_MS = 1_772_366_400_000


def contract(fields: str, unknown: str = "ignore") -> Contract:
    return parse_contract(f"{{name: c, version: 1, key: k, time: ts, unknown: {unknown}, fields: [{fields}]}}", "c")


def found_in(datas: list[bytes], of: Contract, decoder: Decoder) -> list[object]:
    """The events and refusals of each record, in order."""
    records = [StreamRecord("shard-0", str(at + 1), NOON_MS, "k", data) for at, data in enumerate(datas)]
    out: list[object] = []
    for found in decode(records, of, decoder):
        if isinstance(found, Poison):
            out.append(found.reason)
            continue
        assert isinstance(found, Part)
        for part in found.by_record():
            bad = {row.index: (row.reason, row.event) for row in part.decoded.invalid}
            good = dict(zip(part.row.tolist(), part.decoded.table.to_pylist(), strict=True))
            rows = bad | good
            out += [repr(rows[at]) for at in sorted(rows)]
    return out


def alike(datas: list[bytes], of: Contract, decoder: Decoder) -> None:
    apart = [one for data in datas for one in found_in([data], of, decoder)]
    assert found_in(datas, of, decoder) == apart


CSV_COLUMNS = ["k", "ts", "n", "x", "note", "more"]
CSV_FIELDS = (
    "{name: k, type: string}, {name: ts, type: timestamp}, {name: n, type: long, required: false}, "
    "{name: x, type: double, required: false}, {name: note, type: string, required: false, was: [remark]}"
)
CELLS = st.one_of(
    st.sampled_from(["", "NA", "nan", "inf", "1_000", " 1", "+5", "-0", "1e3", "5.", ".5", "-", "1-2", "12345", "007",
                     "²", "١", "9" * 18, "9" * 19, "9" * 29, "9007199254740993.0", "0x1F", "true", "1e999", "-1e999",
                     "1e-400", "0.1e", "a b", "\t", "\0", "\x0b", "\x1f1", "é", "\ufeff", "00001", "1772366400000",
                     "2026-03-01T12:00:00Z", "\\", "'", ";", "#"]),
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(str),
)  # fmt: skip
GOOD_LINE = st.builds("{},1772366400000,{},{},x,".format, st.sampled_from("ab"), st.integers(-9, 9),
                      st.floats(allow_nan=False, allow_infinity=False))  # fmt: skip
ODD_LINES = ["", " ", ",", '"a,b",1772366400000,1,1,x,', 'a,1772366400000,1,1,5" pipe,', "\r"]
LINES = st.one_of(GOOD_LINE, GOOD_LINE, st.lists(CELLS, min_size=5, max_size=7).map(",".join),
                  st.sampled_from(ODD_LINES))  # fmt: skip
CSV_DATA = st.tuples(
    st.sampled_from(["", "\ufeff", "\ufeff\ufeff"]), st.lists(LINES, min_size=1, max_size=4),
    st.sampled_from(["\n", "\r\n", "\n\n", "\r\r\n"]), st.sampled_from(["", "\n", "\r\n", "\r", "\n\n"]),
).map(lambda parts: (parts[0] + parts[2].join(parts[1]) + parts[3]).encode())  # fmt: skip


@settings(max_examples=250, deadline=None)
@given(st.lists(st.one_of(CSV_DATA, st.sampled_from([b"a,\xff,1,1,x,", b"\n", b" "])), max_size=5),
       st.sampled_from(["ignore", "refuse"]), st.booleans())  # fmt: skip
@example([b"a,00001,1,1,x,", b"a,1772366400000,1,1,x,"], "ignore", False)
@example([b"a,1772366400000,1,1,x,\r\r\n", b"a,1772366400000,1,1,x,\r"], "ignore", False)
@example([b"a,1772366400000,0x1F,1,x,", b"a,1772366400000,1,1,x,"], "ignore", False)
def test_csv(datas: list[bytes], unknown: str, renamed: bool) -> None:
    """Lines that are all alike are Arrow's to read; one that is not changes no other."""
    columns = ["remark" if renamed and name == "note" else name for name in CSV_COLUMNS]
    columns = columns if unknown == "ignore" else columns[:-1]
    datas = datas if unknown == "ignore" else [data.replace(b",\n", b"\n").removesuffix(b",") for data in datas]
    of = contract(CSV_FIELDS, unknown)
    alike(datas, of, formats.csv(columns).for_contract(of))


def test_csv_that_is_all_alike_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row by row is for the others."""
    of = contract(CSV_FIELDS)
    decoder = formats.csv(CSV_COLUMNS).for_contract(of)
    monkeypatch.setattr(type(decoder), "__call__", lambda *_: pytest.fail("one by one"))
    assert len(found_in([b"a,1772366400000,1,1.5,x,\n" * 40] * 300, of, decoder)) == 12_000


def test_more_lines_than_a_record_may_have_events_are_refused_before_they_are_read() -> None:
    """With quotes among them, or none."""
    of = contract(CSV_FIELDS)
    for line in (b"\n", b",,,,,\n", b'"\n'):
        with pytest.raises(InvalidRecord, match="more than 1048576 lines"):
            formats.csv(CSV_COLUMNS).for_contract(of)(line * (MAX_EVENTS + 1))


IMAGES = st.dictionaries(
    st.sampled_from(["id", "n", "m"]),
    st.sampled_from([
        {"S": "x"}, {"N": "7"}, {"N": "-1.50"}, {"N": "1e3"}, {"N": "x"}, {"BOOL": True}, {"NULL": True}, {"S": 1}, {},
        {"M": {"a": {"S": "y"}}}, {"L": [{"N": "1"}]}, {"SS": ["b", "a"]}, {"B": "aGk="}, {"S": "x", "N": "1"}, [], "x",
        {"?": 1}, {"N": "9" * 50}, {"N": "٣"},
    ]), max_size=3)  # fmt: skip
IMAGE: Any = st.one_of(IMAGES, st.just({"id": {"S": "o"}, "n": {"N": "1"}}), st.sampled_from([None, {}, [], "x"]))
CHANGE = st.fixed_dictionaries(
    {"eventName": st.sampled_from(["INSERT", "REMOVE"]), "dynamodb": st.fixed_dictionaries(
        {"ApproximateCreationDateTime": st.sampled_from([NOON_MS, NOON_MS, 0, 10**15, 10**30, -(10**14), 1.5, None])},
        optional={"Keys": IMAGE, "NewImage": IMAGE, "OldImage": IMAGE, "SizeBytes": st.just(3),
                  "ApproximateCreationDateTimePrecision": st.sampled_from(["MICROSECOND", "MILLISECOND", "x", []])})},
    optional={"awsRegion": st.just("eu")})  # fmt: skip
GOOD_CHANGE: Any = {"eventName": "INSERT", "dynamodb": {
    "ApproximateCreationDateTime": NOON_MS, "NewImage": {"id": {"S": "o"}, "n": {"N": "1"}}}}  # fmt: skip
JSON_DATA = st.one_of(
    st.one_of(CHANGE, st.just(GOOD_CHANGE)).map(lambda one: json.dumps(one).encode()),
    st.lists(st.just(GOOD_CHANGE), max_size=2).map(lambda ones: b"\n".join(json.dumps(one).encode() for one in ones)),
    st.sampled_from([b"{}", b"[]", b"x", b'{"dynamodb": {}}', b"\xff", b"[1]", b'{"a": ', b"[" * 50]),
)


@settings(max_examples=250, deadline=None)
@given(st.lists(JSON_DATA, max_size=5), st.sampled_from(["item.id", "new.id", "keys.id", "eventName"]), st.booleans())
@example([json.dumps({"eventName": "x", "dynamodb": {"ApproximateCreationDateTime": 10**14}}).encode()] * 2,
         "eventName", False)  # fmt: skip
def test_dynamodb_changes(datas: list[bytes], key: str, timed: bool) -> None:
    """Times that are none refuse their record, also where the contract does not ask for them."""
    when = "at" if timed else "item.n"
    of = contract(f"{{name: k, type: string, from: {key}}}, {{name: ts, type: timestamp, from: {when}}}, "
                  "{name: n, type: 'decimal(9, 2)', from: new.n, required: false}, "
                  "{name: m, type: json, from: item.m, required: false}")  # fmt: skip
    alike(datas, of, formats.dynamodb_changes())


def orders() -> Callable[[dict[str, Any]], bytes]:
    """Make messages of shop.Order, with times that protobuf's own classes refuse as well."""

    def made(fields: dict[str, Any]) -> bytes:
        out = bytearray()
        if "id" in fields:
            out += b"\x0a" + bytes([len(fields["id"])]) + fields["id"]
        if "at" in fields:
            stamp = timestamp_pb2.Timestamp(seconds=fields["at"][0], nanos=fields["at"][1]).SerializeToString()
            out += bytes([0x12, len(stamp)]) + bytes(stamp)
        if "n" in fields:
            out += b"\x18" + bytes([fields["n"]])
        return bytes(out) + b"\x22\x01x" * int(fields.get("tags", 0))

    return made


NOON = NOON_MS // 1000
STAMPS = st.sampled_from([(NOON, 5_999), (NOON, 0), (0, 0), (-(10**11), 0), (10**12, 0), (2**62, 0), (NOON, -1),
                          (NOON, 2**31 - 1), (253_402_300_799, 999_999_999)])  # fmt: skip
ORDER = st.fixed_dictionaries({}, optional={
    "id": st.sampled_from([b"o-1", b"", b"\xff", b"o"]), "at": STAMPS, "n": st.integers(0, 127),
    "tags": st.integers(0, 2)})  # fmt: skip


@settings(max_examples=250, deadline=None)
@given(st.lists(st.one_of(ORDER.map(orders()), st.just(orders()({"id": b"o", "at": (NOON, 0), "n": 3})),
                          st.binary(max_size=6)), max_size=5),
       st.sampled_from(["at", "n"]), st.sampled_from(["string", "json"]))  # fmt: skip
@example([orders()({"id": b"o", "at": (10**12, 0), "n": 9})] * 2, "n", "json")
def test_protobuf(datas: list[bytes], when: str, kind: str) -> None:
    """Absent fields, times that no clock has, texts that are none, and a time where text is asked for."""
    of = contract(
        f"{{name: k, type: string, from: id}}, {{name: ts, type: timestamp, from: {when}, earliest: 1970-01-01}}, "
        f"{{name: again, type: {kind}, from: at, required: false}}, {{name: tags, type: json, required: false}}, "
        "{name: seconds, type: long, from: at.seconds, required: false}"
    )
    alike(datas, of, formats.protobuf(descriptors(), "shop.Order"))


def test_protobuf_with_one_field_and_with_none() -> None:
    """A row without columns is a row as well."""
    file = descriptor_pb2.FileDescriptorProto(name="one.proto", package="one", syntax="proto3")
    file.message_type.add(name="None")
    file.message_type.add(name="One").field.add(name="k", number=1, type=9, label=1)
    both = descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()
    one: Any = formats.protobuf(both, "one.One")
    assert [*one(b"\x0a\x01a"), *one(b"")] == [*one.together([b"\x0a\x01a", b""])] == [{"k": "a"}, {"k": ""}]
    none: Any = formats.protobuf(both, "one.None")
    assert (none(b""), none.together([b"", b""])) == ([{}], None)
