"""The producer with its thread: what is accepted arrives once, confirmed; memory is bounded; failures are told."""

import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pandas as pd
import pyarrow as pa
import pytest
from botocore.exceptions import CredentialRetrievalError, NoCredentialsError
from moto import mock_aws

from headwater.announcing import put_control
from headwater.clock import ManualClock
from headwater.codec import Decoded, decode_record
from headwater.codec.control import decode_control, is_signed
from headwater.errors import HeadwaterError, InvalidEvent, UsageError
from headwater.producers.producer import Producer
from headwater.producers.receipts import PendingReceipts
from headwater.producers.settings import ProducerSettings, Receipt, Runtime
from tests.producer_stream import FakeStream, client_error
from tests.producing import QUICK, TELEMETRY, event, fleet
from tests.unit.test_sealing import OWN


def test_every_event_arrives_once_and_its_future_says_where() -> None:
    stream = FakeStream()
    with Producer("s", TELEMETRY, client=stream, settings=QUICK, runtime=Runtime(random=random.Random(1))) as producer:
        origin = producer.origin
        futures = producer.put_batch(fleet(1_050))
        one = producer.put(event())
        assert one.result(10).sequence_number
    receipts = [future.result(0) for future in futures]
    assert sum(receipt.count for receipt in receipts) == 1_050
    assert [receipt.first_seq for receipt in receipts] == list(range(0, 1_050, 100))
    assert one.result(0).first_seq == 1_050
    assert sorted(stream.identities(TELEMETRY)) == [(origin, seq) for seq in range(1_051)]
    stats = producer.stats
    assert (stats.accepted, stats.delivered, stats.failed, stats.buffered_bytes) == (1_051, 1_051, 0, 0)


def test_retries_send_the_same_bytes_to_the_same_place_and_only_what_failed() -> None:
    stream = FakeStream(["lost", {0, 2}, client_error("InternalFailure", 500)])
    with Producer("s", TELEMETRY, client=stream, settings=QUICK) as producer:
        producer.put_batch(fleet(1_000))
    wanted = {
        record["Data"]: record["ExplicitHashKey"] for record in stream.records if b"$headwater" not in record["Data"]
    }
    assert len(wanted) == 10
    for request in stream.requests:
        assert all(wanted[record["Data"]] == record["ExplicitHashKey"] for record in request)
    assert {seq for _, seq in stream.identities(TELEMETRY)} == set(range(1_000))
    assert producer.stats.retried >= 3
    assert producer.stats.delivered == 1_000


def test_a_dataframe_is_a_table() -> None:
    stream = FakeStream()
    frame = pd.DataFrame([event(value=float(n), unit=None) for n in range(7)])
    frame["ts"] = pd.to_datetime(frame["ts"], unit="ms", utc=True)
    with Producer("s", TELEMETRY, client=stream, settings=QUICK) as producer:
        producer.put_batch(frame)
        with pytest.raises(InvalidEvent, match="takes an Arrow table, or a DataFrame of pandas or Polars"):
            producer.put_batch("no table")
    assert [row["value"] for one in stream.decoded(TELEMETRY) for row in one.table.to_pylist()] == list(range(7))


def test_an_invalid_row_is_named_and_nothing_of_its_table_accepted() -> None:
    stream = FakeStream()
    with Producer("s", TELEMETRY, client=stream, settings=QUICK) as producer:
        bad = fleet(10).cast(TELEMETRY.arrow_schema)
        bad = bad.set_column(3, "value", pa.array([1.0] * 4 + [float("nan")] * 2 + [1.0] * 4))
        with pytest.raises(InvalidEvent, match=r"row 4: field value.*and 1 more"):
            producer.put_batch(bad)
        with pytest.raises(InvalidEvent, match="field value"):
            producer.put(event(value="x"))
        assert producer.put_batch(fleet(10).slice(0, 0)) == []
    assert producer.stats.accepted == 0
    assert not stream.decoded(TELEMETRY)


def test_an_event_larger_than_a_record_is_refused_at_once() -> None:
    noise = random.Random(1).randbytes(1 << 20).hex()
    fields = [replace(one, max_bytes=8 << 20) if one.name == "unit" else one for one in TELEMETRY.fields]
    wide = replace(TELEMETRY, fields=tuple(fields))
    with Producer("s", wide, client=FakeStream(), settings=QUICK) as producer:
        with pytest.raises(InvalidEvent, match="bytes in a record, which holds 1048576"):
            producer.put(event(unit=noise * 2))
        assert producer.put(event(unit="x" * (1 << 21))).result(10)


def test_small_records_of_large_texts_are_such_as_readers_take() -> None:
    """A text that all share, and texts of which one is much like the next, take next to nothing compressed."""
    shared = pa.array(["x" * 120_000] * 5_000).dictionary_encode()
    alike = pa.array([f"{at}" + "x" * 15_000 for at in range(5_000)])
    settings, stream = replace(QUICK, max_buffer_bytes=256 << 20, max_events=5_000), FakeStream()
    fields = {"device": ["d"] * 5_000, "ts": pa.array([0] * 5_000, pa.timestamp("ms", "UTC")), "metric": ["m"] * 5_000}
    with Producer("s", TELEMETRY, client=stream, settings=settings) as producer:
        for unit in (shared, alike):
            producer.put_batch(pa.table(fields | {"value": [1.0] * 5_000, "unit": unit}))
    contents = [decode_record(one["Data"], TELEMETRY) for one in stream.records]
    assert sum(one.total for one in contents if isinstance(one, Decoded)) == 10_000


@pytest.mark.parametrize("code", ["ResourceNotFoundException", "AccessDeniedException", "ValidationException"])
def test_what_cannot_pass_fails_the_futures_and_the_next_flush(code: str) -> None:
    stream = FakeStream()
    stream.always = client_error(code)
    calls: list[Any] = []
    producer = Producer("orders", TELEMETRY, client=stream, settings=QUICK, on_delivery=lambda *a: calls.append(a))
    future = producer.put(event())
    with pytest.raises(HeadwaterError, match=rf"stream orders: {code}.*\(1 events failed\)"):
        producer.flush(10)
    with pytest.raises(HeadwaterError, match=code):
        future.result(0)
    assert calls[0][0] is None
    assert producer.stats.failed == 1
    stream.always = None
    assert producer.put(event()).result(10).count == 1
    producer.close()


def test_close_raises_what_failed_but_hides_no_other_error() -> None:
    stream = FakeStream()
    stream.always = client_error("ResourceNotFoundException")
    with pytest.raises(HeadwaterError, match="ResourceNotFoundException"), Producer("s", TELEMETRY, client=stream) as p:
        p.put(event())
    with pytest.raises(KeyError), Producer("s", TELEMETRY, client=stream) as producer:
        producer.put(event(value=dict[str, float]()["mine"]))


def test_a_stream_that_takes_nothing_is_given_up_after_its_time() -> None:
    stream = FakeStream()
    stream.always = ConnectionResetError("gone")
    settings = ProducerSettings(linger_ms=10, delivery_seconds=0.1)
    producer = Producer("s", TELEMETRY, client=stream, settings=settings)
    producer.put(event())
    with pytest.raises(HeadwaterError, match=r"given up after 0.1 s\) \(1 events failed\)"):
        producer.close()


def test_many_threads_share_a_producer() -> None:
    stream = FakeStream([{0}, "lost", {0}])
    with Producer("s", TELEMETRY, client=stream, settings=QUICK) as producer:

        def work(number: int) -> None:
            for n in range(200):
                producer.put(event(device=f"t{number}", value=float(n)))
                if n % 50 == 0:
                    producer.put_batch(fleet(10))
                    producer.flush(30)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    events = 6 * (200 + 4 * 10)
    assert producer.stats.delivered == events
    assert {seq for _, seq in stream.identities(TELEMETRY)} == set(range(events))


def test_receipts_tell_what_was_accepted() -> None:
    stream = FakeStream()
    with Producer("s", TELEMETRY, client=stream, settings=QUICK) as producer:
        producer.put_batch(fleet(250))
        producer.flush()
        producer.put_batch(fleet(50))
    bodies = [control.body for control in stream.controls(TELEMETRY)]
    assert {control.kind for control in stream.controls(TELEMETRY)} == {"receipt"}
    assert [body["intervals"] for body in bodies] == [{producer.origin: [[0, 250]]}, {producer.origin: [[250, 300]]}]


@pytest.mark.parametrize("outbox", [False, True])
def test_a_batch_that_failed_is_in_no_receipt(outbox: bool, tmp_path: Path) -> None:
    """Whatever fails for good and whatever passes: the receipts name the delivered events, and no other."""
    stream = FakeStream([client_error("KMSDisabledException"), set(), client_error("ExpiredTokenException"), "lost"])
    box = tmp_path / "outbox.db" if outbox else None
    producer = Producer("s", TELEMETRY, client=stream, settings=QUICK, outbox=box)
    assert producer.put(event()).exception(60)
    for _ in range(3):
        assert producer.put(event()).result(60)
    with pytest.raises(HeadwaterError, match="KMSDisabledException"):
        producer.close()
    told = {
        (origin, seq)
        for control in stream.controls(TELEMETRY)
        for origin, spans in control.body["intervals"].items()  # type: ignore[attr-defined]  # a receipt's body
        for start, stop in spans
        for seq in range(start, stop)
    }
    assert told == set(stream.identities(TELEMETRY)) == {(producer.origin, seq) for seq in (1, 2, 3)}


PASSING = [
    client_error("ExpiredTokenException"),
    client_error("UnrecognizedClientException"),
    client_error("InvalidSignatureException"),
    client_error("RequestExpired", 403),
    NoCredentialsError(),
    CredentialRetrievalError(provider="metadata", error_msg="timed out"),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_credentials_that_come_back_cost_no_event(error: Exception) -> None:
    stream = FakeStream([error] * 3)
    with Producer("s", TELEMETRY, client=stream, settings=QUICK) as producer:
        assert producer.put(event()).result(60)


def test_credentials_that_were_not_there_at_the_start_are_looked_for_again() -> None:
    """boto3 looks for credentials when a client is made: one made without never has any."""
    bare, whole = FakeStream(), FakeStream()
    bare.always = NoCredentialsError()
    made = iter([bare, bare, whole])
    with Producer("s", TELEMETRY, client=lambda: next(made), settings=QUICK) as producer:
        assert producer.put(event()).result(60)
    assert whole.identities(TELEMETRY) == [(producer.origin, 0)]


def test_receipts_of_own_ids_name_the_devices() -> None:
    stream = FakeStream()
    table = pa.table(
        {"device": ["a", "b", "a"], "seq": [5, 7, 6], "ts": pa.array([1, 2, 3], pa.timestamp("ms", "UTC"))}
    )
    with Producer("s", OWN, client=stream, settings=QUICK) as producer:
        producer.put_batch(table)
    (control,) = stream.controls(OWN)
    assert control.body["intervals"] == {"a": [[5, 7]], "b": [[7, 8]]}


@pytest.mark.parametrize("form", ["kpl", "json"])
def test_formats_without_identity_have_no_receipts(form: str) -> None:
    stream = FakeStream()
    settings = ProducerSettings(format=form, linger_ms=20)  # type: ignore[arg-type]  # a format by its name
    with Producer("s", TELEMETRY, client=stream, settings=settings) as producer:
        assert producer.put_batch(fleet(10))[0].result(10).origin == ""
    assert not stream.controls(TELEMETRY)
    assert [one.origin for one in stream.decoded(TELEMETRY)] == [None]


def test_large_receipts_are_cut() -> None:
    accepted = PendingReceipts(OWN)
    devices = pa.array([f"device-{n:06d}" for n in range(20_000)])
    accepted.add_own_ids(pa.table({"device": devices, "seq": range(20_000), "ts": range(20_000)}))
    bodies = list(accepted.bodies())
    assert len(bodies) > 1
    assert all(len(str(body)) < 500_000 for body in bodies)
    intervals: list[Any] = [body["intervals"] for body in bodies]
    assert sum(map(len, intervals)) == 20_000


def test_a_closed_producer_takes_nothing_and_closes_twice() -> None:
    producer = Producer("s", TELEMETRY, client=FakeStream())
    producer.close()
    producer.close()
    with pytest.raises(UsageError, match="closed"):
        producer.put(event())


def test_a_callback_may_put_but_not_wait_for_itself() -> None:
    stream, seen = FakeStream(), list[BaseException]()

    def on_delivery(receipt: Receipt | None, _: HeadwaterError | None) -> None:
        if receipt and receipt.first_seq == 0:
            producer.put(event())
        try:
            producer.flush()
        except UsageError as error:
            seen.append(error)
            raise

    producer = Producer("s", TELEMETRY, client=stream, settings=QUICK, on_delivery=on_delivery)
    producer.put(event())
    producer.close()
    assert len(seen) == 2


def test_a_sender_that_breaks_fails_every_future() -> None:
    stream = FakeStream()
    stream.always = RuntimeError("a bug")
    stream.gate.clear()
    producer = Producer("s", TELEMETRY, client=stream, settings=QUICK)
    futures = [producer.put(event()) for _ in range(150)]
    stream.gate.set()
    with pytest.raises(HeadwaterError, match="the producer stopped: RuntimeError: a bug"):
        producer.flush(10)
    assert all(future.exception(10) for future in futures)
    with pytest.raises(HeadwaterError, match="a bug"):
        producer.put(event())


def test_settings_that_cannot_be_are_refused() -> None:
    for wrong in ({"format": "xml"}, {"when_full": "wait"}, {"max_events": 0}, {"max_buffer_bytes": 5}):
        with pytest.raises(UsageError):
            ProducerSettings(**wrong)


class Resharding(FakeStream):
    """Between the first listing and the put the one shard is split."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = 0

    def list_shards(self, **_: Any) -> dict[str, Any]:
        self.listed += 1
        half = 1 << 127
        spans = [("parent", 0, 2 * half - 1)] if self.listed == 1 else [("l", 0, half - 1), ("r", half, 2 * half - 1)]
        keys = {"StartingHashKey": "0", "EndingHashKey": "0"}
        closed = {"ShardId": "old", "HashKeyRange": keys, "SequenceNumberRange": {"EndingSequenceNumber": "9"}}
        return {
            "Shards": [closed]
            + [
                {
                    "ShardId": name,
                    "HashKeyRange": {"StartingHashKey": str(a), "EndingHashKey": str(b)},
                    "SequenceNumberRange": {"StartingSequenceNumber": "0"},
                }
                for name, a, b in spans
            ]
        }

    def put_record(self, **record: Any) -> dict[str, Any]:
        super().put_record(**record)
        return {"ShardId": "l" if int(record["ExplicitHashKey"]) < 1 << 127 else "r"}


def test_a_control_record_reaches_every_shard_through_a_reshard() -> None:
    stream = Resharding()
    assert put_control(stream, "s", "reference", {"name": "n"}, ManualClock()) == 2
    assert len(stream.records) == 2


def test_a_control_record_on_a_stream_that_is_not_there() -> None:
    stream = FakeStream()
    stream.always = client_error("ResourceNotFoundException")
    with pytest.raises(HeadwaterError, match="stream orders: ResourceNotFoundException"):
        put_control(stream, "orders", "reference", {}, ManualClock())


@pytest.fixture
def moto() -> Iterator[None]:
    with mock_aws():
        yield


@pytest.mark.usefixtures("moto")
def test_boto3_is_called_as_it_wants() -> None:
    """The thin edge against moto: PutRecords, PutRecord, ListShards by their real parameters."""
    client = boto3.client(
        "kinesis", region_name="us-east-1", aws_access_key_id="testing", aws_secret_access_key="testing"
    )
    client.create_stream(StreamName="s", ShardCount=3)
    key = b"k" * 32
    with Producer("s", TELEMETRY, client=client, settings=QUICK, control_key=key) as producer:
        producer.put_batch(fleet(500))
    records = []
    for shard in client.list_shards(StreamName="s")["Shards"]:
        start = client.get_shard_iterator(StreamName="s", ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")[
            "ShardIterator"
        ]
        records.append([record["Data"] for record in client.get_records(ShardIterator=start)["Records"]])
    receipts = [decode_control(data) for shard in records for data in shard if b"receipt" in data]
    assert len(receipts) == 3
    assert all(is_signed(receipt, key) for receipt in receipts)
    assert sum(b"$headwater" not in data for shard in records for data in shard) == 5
    with pytest.raises(HeadwaterError, match="stream gone: ResourceNotFoundException"):
        Producer("gone", TELEMETRY, client=client).__enter__().put_batch(fleet(5))[0].result(10)
