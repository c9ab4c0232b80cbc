"""A sample of each writer through a pipeline's engine into the lake's rows; any bytes end in rows or dead letters."""

import gzip
import json
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headwater import formats
from headwater.codec import encode_batch, encode_control, encode_kpl
from headwater.errors import InvalidRecord
from headwater.formats import lineprotocol
from tests.samples import (
    ARRIVED_MS,
    CHANGE,
    DEBEZIUM,
    DEBEZIUM_CONTRACT,
    DECODERS,
    LOGS,
    LOGS_CONTRACT,
    NOON,
    NOON_MS,
    USER_CONTRACT,
    contract,
    encoded,
    lake,
    packed,
    processed,
    user_function,
)


def test_cloudwatch_logs() -> None:
    """Each log event is a row; the message by which CloudWatch checks the stream is none, and no dead letter."""
    control = {**LOGS, "messageType": "CONTROL_MESSAGE", "logEvents": [{"id": "", "timestamp": 1, "message": "CWL"}]}
    rows = lake(formats.cloudwatch_logs(), LOGS_CONTRACT, gzip.compress(encoded(control)), gzip.compress(encoded(LOGS)))
    assert [(row["message"], row["extracted"]) for row in rows] == [("{}", None), ("b", '{"a":"1"}')]
    assert {(row["k"], row["ts"]) for row in rows} == {("CloudTrail/logs", NOON)}


def test_dynamodb_changes() -> None:
    """Numbers are exact, sets are sorted, and what the contract does not name is kept as JSON."""
    of = contract(
        "{name: k, type: string, from: item.id}, {name: ts, type: timestamp, from: at},"
        "{name: price, type: double, from: new.price}, {name: n, type: long, from: new.n},"
        "{name: op, type: string, from: eventName}, {name: rest, type: json, required: false}",
        more="unknown: rest,",
    )
    (row,) = lake(formats.dynamodb_changes(), of, encoded(CHANGE))
    assert (row["k"], row["op"], row["price"], row["n"], row["ts"]) == ("o-1", "MODIFY", 12.5, 2**53 + 1, NOON)
    rest = json.loads(row["rest"])
    assert rest["new"] == {"id": "o-1", "tags": ["a", "b"], "deep": {"l": [None, False]}}
    assert rest["tableName"] == "orders"


def test_debezium() -> None:
    """With its schema the values have types; a deletion is the row before it; tombstones are no events."""
    deletion = {"before": {"id": 7}, "after": None, "op": "d", "ts_ms": NOON_MS, "source": {}}
    heartbeat, tombstone = {"ts_ms": NOON_MS}, {"schema": None, "payload": None}
    rows = lake(formats.debezium(), DEBEZIUM_CONTRACT, *map(encoded, (DEBEZIUM, deletion, heartbeat, tombstone)))
    assert [(row["k"], row["op"], row["deleted"]) for row in rows] == [(1, "c", False), (7, "d", True)]
    assert (rows[0]["amount"], rows[0]["made"], str(rows[0]["day"])) == (256001.0, NOON, "2026-03-01")
    (row,) = formats.debezium()(encoded(DEBEZIUM))
    assert isinstance(row, dict)
    assert row["row"]["amount"] == Decimal("256001.00")


def test_dms() -> None:
    """https://docs.aws.amazon.com/dms/latest/userguide/CHAP_Target.Kinesis.html"""
    of = contract(
        "{name: k, type: long, from: data.id}, {name: ts, type: timestamp, from: metadata.timestamp},"
        "{name: op, type: string, from: metadata.operation}, {name: name, type: string, from: data.name}",
        more="unknown: ignore,",
    )
    data = {
        "data": {"id": 1, "name": "x"},
        "metadata": {"timestamp": "2026-03-01T12:00:00.123456Z", "record-type": "data", "operation": "insert",
                     "partition-key-type": "schema-table", "schema-name": "public", "table-name": "t"},
    }  # fmt: skip
    control = {"metadata": {"record-type": "control", "operation": "create-table", "timestamp": "2026-03-01T12:00:00Z"}}
    rows = lake(formats.dms(), of, encoded(control), json.dumps(data, indent=1).encode())
    assert [(row["k"], row["op"], row["name"]) for row in rows] == [(1, "insert", "x")]


def test_eventbridge_and_cloudevents_are_json_with_paths() -> None:
    """Samples of docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html and cloudevents.io."""
    of = contract(
        "{name: k, type: string, from: source}, {name: id, type: string}, {name: ts, type: timestamp, from: time},"
        "{name: kind, type: string, from: detail-type}, {name: instance, type: string, from: detail.instance-id},"
        "{name: resources, type: json}, {name: rest, type: json, required: false}",
        more="id: id, unknown: rest,",
    )
    event = {
        "version": "0", "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718", "source": "aws.ec2", "account": "111122223333",
        "detail-type": "EC2 Instance State-change Notification", "time": "2026-03-01T12:00:00Z", "region": "us-west-1",
        "resources": ["arn:aws:ec2:us-west-1:111122223333:instance/i-1"],
        "detail": {"instance-id": "i-1", "state": "terminated"},
    }  # fmt: skip
    (row,) = lake(None, of, encoded(event), encoded(event))
    assert (row["kind"], row["instance"], row["ts"]) == ("EC2 Instance State-change Notification", "i-1", NOON)
    assert json.loads(row["resources"]) == event["resources"]
    assert json.loads(row["rest"])["detail"] == {"state": "terminated"}
    cloud = {
        "specversion": "1.0",
        "type": "t",
        "source": "/mine",
        "id": "A",
        "time": "2026-03-01T12:00:00Z",
        "data": {"x": 1},
    }
    of = contract(
        "{name: k, type: string, from: source}, {name: ts, type: timestamp, from: time},"
        "{name: x, type: int, from: data.x}",
        more="unknown: ignore,",
    )
    assert lake(None, of, encoded(cloud))[0]["x"] == 1


_LINES = st.lists(
    st.sampled_from(["cpu", "a", "1", "2i", "t", ".5", "1e3", ",", ",", "=", "=", " ", " ", '"', "\\", "\t", "é", "-"]),
    max_size=24,
).map("".join)


@given(_LINES)
@example("cpu,a=1 t=2i 1")
@example(",a=1 t=2i 1")
@example("cpu t=2i \t1")
def test_a_plain_line_is_read_as_any_other_would_be(line: str) -> None:
    """The short way of most lines has the answer of the long one, or leaves the line to it."""

    def answer(read: Any) -> object:
        try:
            return read(line, known)
        except InvalidRecord:
            return "refused"

    known = lineprotocol._Known("ns", datetime(1970, 1, 1, tzinfo=UTC))
    short = answer(lineprotocol._plain_row)
    assert short is None or short == answer(lineprotocol._parsed)
    assert answer(lineprotocol._plain_row) == short


def test_influx_and_telegraf_and_fluent_bit() -> None:
    """Samples of docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/, and Fluent Bit's date as a float."""
    of = contract(
        "{name: k, type: string, from: tags.host}, {name: ts, type: timestamp, from: time},"
        "{name: measurement, type: string}, {name: usage, type: double, required: false, from: fields.usage},"
        "{name: rest, type: json, required: false}",
        more="unknown: rest,",
    )
    text = (
        b'# comment\ncpu\\ load,host=a\\,b usage=91.5,n=7i,ok=T,s="x, \\"y\\" \nz" 1772366400000000000\n'
        b"cpu,host=c usage=1\nbroken line without equals\n"
    )
    found = processed(formats.influx(), of, text)
    first, second = [row for table in found.lake for row in table.to_pylist()]
    assert (first["k"], first["measurement"], first["usage"], first["ts"]) == ("a,b", "cpu load", 91.5, NOON)
    assert json.loads(first["rest"])["fields"] == {"n": 7, "ok": True, "s": 'x, "y" \nz'}
    assert second["ts"].timestamp() * 1000 == ARRIVED_MS, "without a timestamp: when it arrived"
    assert [letter.payload for letter in found.letters] == [b"broken line without equals"]
    seconds = contract(
        "{name: k, type: string, from: tags.host}, {name: ts, type: timestamp, from: timestamp, epoch: s}",
        more="unknown: ignore,",
    )
    one = {"fields": {"idle": 91.5}, "name": "cpu", "tags": {"host": "a"}, "timestamp": NOON_MS // 1000}
    rows = lake(formats.telegraf(), seconds, encoded(one), encoded({"metrics": [one, one]}))
    assert [row["ts"] for row in rows] == [NOON] * 3
    fluent = contract("{name: k, type: string, from: log}, {name: ts, type: timestamp, from: date, epoch: s}")
    (row,) = lake(None, fluent, encoded({"date": NOON_MS / 1000 + 0.125, "log": "x"}))
    assert row["ts"].timestamp() * 1000 == NOON_MS + 125


def test_csv_lines() -> None:
    """Text values have the contract's types; a line with another number of values is a dead letter by itself."""
    of = contract("{name: k, type: string}, {name: ts, type: timestamp}, {name: n, type: long, required: false}")
    found = processed(formats.csv(["k", "ts", "n"]), of, b'a,2026-03-01T12:00:00Z,7\r\n"b,c",1772366400000,\nd,1\n')
    rows = [row for table in found.lake for row in table.to_pylist()]
    assert [(row["k"], row["ts"], row["n"]) for row in rows] == [("a", NOON, 7), ("b,c", NOON, None)]
    assert [(letter.reason, letter.payload) for letter in found.letters] == [("2 values for 3 columns", b"d,1")]


def test_a_users_own_decoder() -> None:
    """What it raises is the reason of a dead letter; what breaks the contract is one by itself, to redrive."""
    found = processed(user_function, USER_CONTRACT, packed(b"a   ", 1.0) + packed(b"b   ", 200.0), b"bug", b"short")
    assert [row["k"] for table in found.lake for row in table.to_pylist()] == ["a"]
    letters = sorted(found.letters, key=lambda letter: letter.sequence_number)
    reasons = [letter.reason for letter in letters]
    assert [letter.index for letter in letters] == [1, None, None]
    assert "above the maximum" in reasons[0]
    assert "ZeroDivisionError: oops" in reasons[1]
    assert "requires a buffer of 16 bytes" in reasons[2]
    wider = contract("{name: k, type: string}, {name: ts, type: timestamp}, {name: value, type: double}")
    assert [row["k"] for row in lake(user_function, wider, letters[0].payload)] == ["b"]


def test_a_decoder_may_yield_its_events() -> None:
    """Those before an error are the record's, which is refused whole; what compares as it likes is a value as any."""

    def yielded(data: bytes) -> Iterator[dict[str, Any]]:
        yield {"k": "a", "ts": formats.ARRIVAL, "value": 1.0}
        yield {"k": "b", "ts": NOON_MS, "value": np.array([1.0, 2.0])}
        if data == b"bad":
            raise OSError("oops")

    found = processed(yielded, USER_CONTRACT, b"good", b"good", b"bad")
    rows = [(row["k"], row["ts"]) for table in found.lake for row in table.to_pylist()]
    assert rows == [("a", datetime.fromtimestamp(ARRIVED_MS / 1000, UTC))] * 2
    reasons = [letter.reason for letter in sorted(found.letters, key=lambda letter: letter.sequence_number)]
    assert ["is no number" in reason for reason in reasons] == [True, True, False]
    assert reasons[2] == "the decoder fails on it: OSError: oops"


def test_batches_and_control_records_are_read_beside_a_decoder() -> None:
    """Replays and redrives put headwater's own batches on a stream that others write to."""
    table = pa.table({"k": ["x"], "ts": pa.array([NOON_MS]), "value": [1.0]})
    batch = encode_batch(table, USER_CONTRACT, origin="o", first_seq=3)
    found = processed(user_function, USER_CONTRACT, batch, encode_control("x", {}), packed(b"a   ", 1.0))
    rows = [row for table in found.lake for row in table.to_pylist()]
    assert [(row["k"], row["_origin"]) for row in rows] == [("x", "o"), ("a", "shard-0:3")]


@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_bytes_end_in_rows_or_a_dead_letter(name: str, data: st.DataObject) -> None:
    """Bytes of a sample changed, cut out and put in, and any bytes: the engine's step is total for every decoder."""
    decoder, of, sample = DECODERS[name]
    record = bytearray(sample)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(record)))
        cut = data.draw(st.integers(0, 8))
        record[at : at + cut] = data.draw(st.binary(max_size=8) | st.sampled_from([b"\xff" * 9, b"[[", b'"', b"1e999"]))
    for body in (bytes(record), zlib.compress(bytes(record)), encode_kpl([bytes(record), sample], "k", None)):
        found = processed(decoder, of, body, sample)
        for letter in found.letters:
            assert letter.reason
            assert "\n" not in letter.reason
            assert len(letter.reason) < 1000
        for table in found.lake:
            table.validate(full=True)
