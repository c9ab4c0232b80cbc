"""What goes over the wire comes back; whatever else arrives is refused, not crashed on."""

import base64
import gzip
import json
import random
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from aws_kinesis_agg import MAGIC
from aws_kinesis_agg.deaggregator import deaggregate_records
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.codec import (
    Control,
    Decoded,
    decode_record,
    encode_batch,
    encode_control,
    encode_kpl,
    event_json,
    is_kpl,
    jsonrows,
)
from headwater.errors import InvalidRecord
from tests.codecs import CONTRACT, GOOD, decode, lines, one_by_one, plain, rows, stream, table

JSON_FORMS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "lines": lines,
    "blank lines": lambda events: b"\n\n" + lines(events).replace(b"\n", b"\r\n \n") + b"\n",
    "array": lambda events: json.dumps(events, indent=1).encode(),
    "gzip": lambda events: gzip.compress(lines(events)),
    "two gzip members": lambda events: gzip.compress(lines(events[:5]) + b"\n") + gzip.compress(lines(events[5:])),
    "zstd": lambda events: zstandard.compress(lines(events)),
    "byte order mark": lambda events: b"\xef\xbb\xbf" + lines(events),
    "kpl": lambda events: encode_kpl([json.dumps(event, indent=1).encode() for event in events], "k", None),
    "kpl with line ends": lambda events: encode_kpl([lines([event]) + b"\n" for event in events], "k", "5"),
}


@pytest.mark.parametrize("form", JSON_FORMS)
def test_json_forms(form: str) -> None:
    """Every way to write events in JSON gives the same events."""
    found = decode(JSON_FORMS[form](rows(20)))
    assert (found.total, found.invalid, found.origin) == (20, (), None)
    assert plain(found.table) == plain(table(20))


def test_single_objects() -> None:
    """One event, on one line or on many."""
    assert decode(json.dumps(GOOD).encode()).total == 1
    assert decode(json.dumps(GOOD, indent=2).encode()).total == 1
    assert decode(b"[]").total == 0
    assert decode(encode_kpl([], "k", None)).total == 0


BAD_LINES = [
    b"{",
    b"nonsense",
    b"[1]",
    b'"text"',
    b'{"device":"a","seq":1,"ts":1762160400000,"value":NaN}',
    b'{"device":"a","seq":1,"ts":1762160400000,"value":-Infinity}',
    b'{"device":"a","seq":1,"ts":1762160400000,"value":1e999}',
    b'{"device":"a","seq":1,"ts":1762160400000,"value":5000}',
    b'{"device":"a","seq":1,"ts":1762160400000}',
    b'{"device":"a","seq":1.5,"ts":1762160400000,"value":1}',
    b'{"device":"a","seq":99999999999999999999,"ts":1762160400000,"value":1}',
    b'{"device":null,"seq":1,"ts":1762160400000,"value":1}',
    b'{"device":7,"seq":1,"ts":1762160400000,"value":1}',
    b'{"device":"\\ud800","seq":1,"ts":1762160400000,"value":1}',
    b'{"device":"\xff","seq":1,"ts":1762160400000,"value":1}',
    b'{"device":"a","seq":1,"ts":"yesterday","value":1}',
    b'{"device":"a","seq":1,"ts":1762160400000,"value":1,"surplus":1}',
    b'{"device":"a","seq":1,"ts":1762160400000,"value":1,"\\ud800":1}',
    b'{"device":"a","seq":1,"ts":1762160400000,"value":1} ["device","a"]',
    b"[" * 5000,
]


@pytest.mark.parametrize("bad", BAD_LINES)
def test_one_bad_line_among_good_ones(bad: bytes) -> None:
    """One line goes to the dead letters, as it was, the others through."""
    good = [json.dumps(event).encode() for event in rows(4)]
    for data in (b"\n".join([*good[:2], bad, *good[2:]]), encode_kpl([*good[:2], bad, *good[2:]], "k", None)):
        found = decode(data)
        # an array is a line among lines, and in a record of its own the events in it
        as_it_was = b"1" if bad == b"[1]" and is_kpl(data) else bad
        assert [(row.index, row.event) for row in found.invalid] == [(2, as_it_was)]
        assert found.invalid[0].reason
        found.invalid[0].reason.encode()
        assert (found.rows.tolist(), found.total) == ([0, 1, 3, 4], 5)
        assert found.table.column("seq").to_pylist() == [0, 1, 2, 3]


def test_reason_names_what_is_wrong() -> None:
    found = decode(b'{"device":"a","seq":1,"ts":1762160400000,"value":NaN}\n{"device":"a","seq":1,"ts":1762160400000}')
    assert "NaN is not a JSON number" in found.invalid[0].reason
    assert "value" in found.invalid[1].reason


@pytest.mark.parametrize(
    "data", [b"", b"   ", b"text", b"[", b"[1,", b'"x"', b"7", b"ARROW1\0\0", MAGIC, MAGIC + b"x" * 40]
)
def test_refused_records(data: bytes) -> None:
    with pytest.raises(InvalidRecord) as error:
        decode_record(data, CONTRACT)
    assert "\n" not in str(error.value)


def test_kpl_is_what_the_library_reads() -> None:
    """aws_kinesis_agg finds every payload under the outer keys."""
    payloads = [json.dumps(event).encode() for event in rows(50)]
    data = encode_kpl(payloads, "partition", "170141183460469231731687303715884105728")
    envelope = {
        "kinesisSchemaVersion": "1.0",
        "sequenceNumber": "1",
        "partitionKey": "partition",
        "approximateArrivalTimestamp": 0,
        "data": base64.b64encode(data),
    }
    found = deaggregate_records([{"kinesis": envelope}])
    assert [base64.b64decode(user["kinesis"]["data"]) for user in found] == payloads
    assert {user["kinesis"]["explicitHashKey"] for user in found} == {"170141183460469231731687303715884105728"}
    assert {user["kinesis"]["partitionKey"] for user in found} == {"partition"}


def test_kpl_checksum() -> None:
    data = bytearray(encode_kpl([json.dumps(GOOD).encode()], "k", None))
    data[20] ^= 1
    with pytest.raises(InvalidRecord, match="checksum"):
        decode_record(bytes(data), CONTRACT)


def test_control_records() -> None:
    """Control records are told from events by their first key."""
    body: dict[str, object] = {"contract": "reading", "intervals": {"o": [[0, 5]]}}
    assert decode_record(encode_control("receipt", body), CONTRACT) == Control("receipt", body)
    spaced = json.dumps({"$headwater": {"kind": "x", "n": 1}}, indent=1).encode()
    assert decode_record(spaced, CONTRACT) == Control("x", {"n": 1})
    for broken in (b'{"$headwater":', b'{"$headwater":5}', b'{"$headwater":{}}', b'{"$headwater":{"kind":5}}'):
        with pytest.raises(InvalidRecord, match="control"):
            decode_record(broken, CONTRACT)
    with pytest.raises(ValueError, match="kind"):
        encode_control("x", {"kind": "y"})


def test_event_json_reads_back() -> None:
    """What event_json writes, decode_record reads."""
    written = event_json(table(20))
    assert json.loads(written[1])["ts"] == "2025-11-03T09:00:00.037Z"
    assert plain(decode(b"\n".join(written)).table) == plain(table(20))


LOOSE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(-5, 5),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(
        ["ok", "fault", "2025-11-03T09:00:00Z", "2025-11-03T09:00:00.1+00:00", "2025-11-03T09:00:00.123456Z",
         "2025-11-03T10:00:00+01:00", "2025-11-03", "2025-11-03 09:00:00", "2025-02-30", "0000-01-01", "1e3"]
    ),
    st.just([]),
    st.just({}),
)  # fmt: skip


RIGHT: dict[str, st.SearchStrategy[object]] = {
    "device": st.text(max_size=3),
    "seq": st.integers(-(2**63), 2**63 - 1),
    "ts": st.integers(0, 2**41) | st.just("2025-11-03T09:00:00.1Z"),
    "value": st.floats(-1000, 1000) | st.integers(-5, 5),
}


EVENTS = st.tuples(
    st.fixed_dictionaries(RIGHT, optional={field.name: LOOSE for field in CONTRACT.fields[4:]}),
    st.dictionaries(st.sampled_from([*CONTRACT.arrow_schema.names, "surplus"]), LOOSE, max_size=1),
).map(lambda pair: {**pair[0], **pair[1]})


TIDY = st.fixed_dictionaries(
    {**RIGHT, "ts": st.integers(0, 2**41)},
    optional={"status": st.sampled_from(["ok", "bad", None]), "ratio": st.floats(width=32) | st.floats()},
)


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENTS, min_size=1, max_size=4) | st.lists(EVENTS | TIDY, min_size=1, max_size=40))
def test_events_together_are_judged_as_each_by_itself(events: list[dict[str, object]]) -> None:
    """The same are valid with the same values, the others refused for the same reasons: in one pass or apart."""
    payloads = [json.dumps(event).encode() for event in events]
    valid, invalid = one_by_one(payloads, CONTRACT)
    for found in (
        jsonrows._at_once(payloads, CONTRACT),
        jsonrows._apart(payloads, CONTRACT, range(len(payloads))),
        decode(b"\n".join(payloads)),
    ):
        if found is not None:
            assert [(row.index, row.reason, row.event) for row in found.invalid] == invalid
            assert plain(found.table) == plain(valid)


ODD_VALUES = [
    *(
        {"ts": text}
        for text in ["0000-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "2025-11-03T09:00Z", "2025-11-03 09:00:00Z",
                     "2025-11-03", "2025-11-03T09:00:00", "2025-11-03T09:00:00-00:00", "2025-11-03T23:59:60Z",
                     "9999-12-31T23:59:59.999Z", "2025-11-03T09:00:00,5Z", "2025-11-03T09:00:00.123999Z"]
    ),
    *({"ts": number} for number in [-62_135_596_800_001, 253_402_300_800_000, 2**63 - 1, 0, -1, True]),
    *({"day": text} for text in ["0000-01-01", "0001-01-01", "20251103", "2025-11-03T00:00:00"]),
    *({"ratio": number} for number in [1.0000000178813943, 3.4028235677973366e38, 1e39, 1e-50, 16777217]),
    *({"value": number} for number in [-0.0, 5e-324, 1000, 1000.0000000000001, 10**400]),
    *({"device": text} for text in ["", "\0", "\U0001f600", "a\nb", "}\n{"]),
    {"seq": 5.0}, {"count": 2**31}, {"flag": 1}, {"status": ""},
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD_VALUES)
def test_odd_values_read_the_same_fast_and_slow(odd: dict[str, object]) -> None:
    """Values where a vectorised parser may differ from Python's."""
    payloads = [json.dumps({**GOOD, **odd}).encode()] * 2
    valid, invalid = one_by_one(payloads, CONTRACT)
    for several in (payloads, payloads * 8):
        found = decode(b"\n".join(several))
        assert plain(found.table) == plain(pa.concat_tables([valid] * (len(several) // 2)))
        assert [row.reason for row in found.invalid] == [reason for _, reason, _ in invalid] * (len(several) // 2)


def test_bad_lines_cost_only_their_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many events a few are read apart, and every event is where it was."""
    monkeypatch.setattr(jsonrows, "_PART", 256)
    payloads = [json.dumps(event).encode() for event in rows(3000)]
    for at in (0, 500, 501, 999):
        payloads[at] = b"{"
    read: list[int] = []
    real = jsonrows.read_object

    def counted(payload: bytes, **exact: Any) -> Any:
        read.append(1)
        return real(payload, **exact)

    monkeypatch.setattr(jsonrows, "read_object", counted)
    found = decode(b"\n".join(payloads))
    assert [row.index for row in found.invalid] == [0, 500, 501, 999]
    assert (
        found.table.column("seq").to_pylist()
        == found.rows.tolist()
        == [*range(1, 500), *range(502, 999), *range(1000, 3000)]
    )
    assert len(read) <= 5 * 256  # a part with one that is bad, and the part behind it


@pytest.mark.parametrize("ts", [1_762_160_400_000, "2025-11-03T09:00:00.125Z", "2025-11-03T09:00:00+00:00"])
def test_usual_events_take_the_fast_path(ts: object) -> None:
    """The fast path is not given up by accident, with a few bad events neither."""
    events = [{**event, "ts": ts} for event in rows(10)] + [{**rows(1)[0], "ts": ts, "value": 5000}]
    assert jsonrows._at_once([json.dumps(event).encode() for event in events], CONTRACT) is not None


def test_earlier_names_are_read_fast() -> None:
    """Events that still use a field's earlier name, and a mix of both."""
    fields = tuple(replace(field, was=("state",)) if field.name == "status" else field for field in CONTRACT.fields)
    contract = replace(CONTRACT, fields=fields)
    old = [{**GOOD, "seq": at, "state": "ok"} for at in range(40)]
    assert jsonrows._at_once([json.dumps(event).encode() for event in old], contract) is not None
    found = decode(lines([*old, {**GOOD, "status": "fault"}]), contract)
    assert found.table.column("status").to_pylist() == ["ok"] * 40 + ["fault"]


def valid_records() -> list[bytes]:
    batch, payloads = table(12), [json.dumps(event).encode() for event in rows(12)]
    raw = stream(batch.cast(CONTRACT.arrow_schema))
    wire = zstandard.decompress(encode_batch(batch, CONTRACT, origin="o", first_seq=1))
    return [
        *(form(rows(6)) for form in JSON_FORMS.values()),
        encode_batch(batch, CONTRACT, origin="o", first_seq=1),
        raw,
        wire,
        encode_kpl(payloads, "k", "5"),
        encode_control("receipt", {"contract": "reading", "intervals": {}}),
    ]


def survives(data: bytes) -> None:
    """Decoding answers or raises InvalidRecord, and the answer can be looked at whole."""
    try:
        found = decode_record(data, CONTRACT)
    except InvalidRecord:
        return
    if isinstance(found, Decoded):
        found.table.validate(full=True)
        assert len(found.rows) == found.table.num_rows == found.total - len(found.invalid)
        assert sorted([*found.rows.tolist(), *(row.index for row in found.invalid)]) == list(range(found.total))
        event_json(found.table)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200), st.sampled_from([b"", MAGIC, b"\x28\xb5\x2f\xfd", b"\x1f\x8b", b"\xff" * 4, b"{", b"["])
)
def test_arbitrary_bytes(data: bytes, head: bytes) -> None:
    survives(head + data)


@settings(max_examples=300, deadline=None)
@given(st.data(), st.integers(0, 2**32))
def test_mutated_records(data: st.DataObject, seed: int) -> None:
    """Bytes of valid records changed, cut out and put in, also inside the compression."""
    records = valid_records()
    record = bytearray(records[data.draw(st.integers(0, len(records) - 1))])
    rng = random.Random(seed)
    for _ in range(data.draw(st.integers(1, 6))):
        at = rng.randrange(len(record))
        kind = rng.randrange(4)
        if kind == 0:
            record[at] = rng.randrange(256)
        elif kind == 1:
            record[at : at + 8] = rng.choice([b"\xff" * 8, b"\0" * 8, struct.pack("<q", 1 << 61)])
        elif kind == 2:
            del record[at : at + rng.randrange(1, 20)]
            record = record or bytearray(b"{")
        else:
            record[at:at] = rng.randbytes(rng.randrange(1, 9))
    survives(bytes(record))
    survives(zstandard.compress(bytes(record)))
