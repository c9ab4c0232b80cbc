"""A producer with an outbox: what is in it after delivery, failure and another run."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from headwater.clock import SystemClock
from headwater.contract import validate_row
from headwater.errors import HeadwaterError, UsageError
from headwater.producers.direct import DirectProducer
from headwater.producers.outbox import Outbox
from headwater.producers.producer import Producer
from headwater.producers.settings import ProducerSettings, Runtime
from tests.producer_stream import FakeStream, client_error
from tests.producing import QUICK, SMALL, TELEMETRY, event, fleet
from tests.unit.test_sealing import OWN

UNTOLD = replace(QUICK, receipt_seconds=3600)


class Hurrying(SystemClock):
    """A clock on which the pause of five seconds is over soon."""

    def now_ms(self) -> int:
        return super().now_ms() * 20

    def monotonic_ms(self) -> int:
        return self.now_ms()


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


def test_the_outbox_is_empty_after_delivery_and_each_opening_is_a_session(outbox: Path) -> None:
    """Numbers are never taken up again, whatever has become of the file in between."""
    stream, origins = FakeStream(), list[str]()
    for _ in range(2):
        with Producer("s", TELEMETRY, client=stream, settings=QUICK, outbox=outbox) as producer:
            producer.put_batch(fleet(150))
            producer.put(event())
            origins.append(producer.origin)
    assert len(set(origins)) == 2
    assert sorted(stream.identities(TELEMETRY)) == sorted((one, seq) for one in origins for seq in range(151))
    intervals = [control.body["intervals"] for control in stream.controls(TELEMETRY)]
    assert intervals == [{origin: [[0, 151]]} for origin in origins]
    left = Outbox(outbox, "s", TELEMETRY, "another")
    assert (left.left(), left.accepted(), left.unannounced()) == (0, 302, [])
    left.close()


def test_what_failed_stays_in_the_outbox_and_is_sent_by_the_next_run(outbox: Path) -> None:
    stream = FakeStream()
    stream.always = client_error("AccessDeniedException")
    producer = Producer("s", TELEMETRY, client=stream, settings=QUICK, outbox=outbox)
    producer.put_batch(fleet(150))
    with pytest.raises(HeadwaterError, match="150 events stay in the outbox"):
        producer.close()
    refused = {record["Data"]: record["ExplicitHashKey"] for request in stream.requests for record in request}
    stream.always = None
    with Producer("s", TELEMETRY, client=stream, settings=QUICK, outbox=outbox) as again:
        again.put(event())
    taken = {record["Data"]: record["ExplicitHashKey"] for record in stream.records}
    assert refused.items() <= taken.items()
    wanted = [(producer.origin, seq) for seq in range(150)] + [(again.origin, 0)]
    assert sorted(stream.identities(TELEMETRY)) == sorted(wanted)
    assert again.stats.delivered == 151


def test_an_outbox_belongs_to_one_process_stream_and_contract(outbox: Path, tmp_path: Path) -> None:
    with (
        Producer("s", TELEMETRY, client=FakeStream(), outbox=outbox),
        pytest.raises(UsageError, match=r"outbox .*outbox.db: another process has it open"),
    ):
        Producer("s", TELEMETRY, client=FakeStream(), outbox=outbox)
    with pytest.raises(UsageError, match="its stream is s, not t"):
        Producer("t", TELEMETRY, client=FakeStream(), outbox=outbox)
    with pytest.raises(UsageError, match="its contract is telemetry, not numbered"):
        Producer("s", OWN, client=FakeStream(), outbox=outbox)
    other = tmp_path / "notes.txt"
    other.write_text("no database, but long enough to be looked at as one by SQLite" * 20)
    with pytest.raises(UsageError, match=r"outbox .*notes.txt: file is not a database"):
        Producer("s", TELEMETRY, client=FakeStream(), outbox=other)
    with pytest.raises(UsageError, match="unable to open"):
        Producer("s", TELEMETRY, client=FakeStream(), outbox=tmp_path / "no" / "where.db")


def test_tables_with_narrow_dictionaries_share_a_batch(tmp_path: Path) -> None:
    """Codes of eight bits, as pandas' categories and our own batches have, do not number what two tables hold."""
    first, second = ([f"{name}-{number}" for number in range(100)] for name in ("a", "b"))
    settings = ProducerSettings(linger_ms=60_000, max_events=1_000)
    stream, frames = FakeStream(["lost"] * 2), []
    for devices in (first, second):
        frames.append(pd.DataFrame([event(device=device) for device in devices]).astype({"device": "category"}))
        assert frames[-1]["device"].cat.codes.dtype == "int8"
    with Producer("s", TELEMETRY, client=stream, settings=settings) as producer:
        producer.put_batch(frames[0])
        producer.put_batch(frames[1])
    killed = Producer("s", TELEMETRY, client=FakeStream(), settings=settings, outbox=tmp_path / "outbox.db")
    for frame in frames:
        killed.put_batch(frame)
    assert killed._sender.outbox is not None
    killed._sender.outbox.close()  # as a death leaves it: not one event sealed
    revived = FakeStream()
    with Producer("s", TELEMETRY, client=revived, settings=settings, outbox=tmp_path / "outbox.db"):
        pass
    for found in (stream, revived):
        assert len(found.identities(TELEMETRY)) >= 200
        assert {seq for _, seq in found.identities(TELEMETRY)} == set(range(200))


def test_an_outbox_is_tried_for_as_long_as_it_is_open(outbox: Path) -> None:
    """Longer than `delivery_seconds`: flush says so, memory is freed, and the stream gets all when it is back."""
    stream = FakeStream()
    stream.always = client_error("ExpiredTokenException")
    settings = replace(SMALL, delivery_seconds=0.2, when_full="raise")
    clock = Hurrying()
    producer = Producer("s", TELEMETRY, client=stream, settings=settings, outbox=outbox, runtime=Runtime(clock))
    futures = []
    for _ in range(3):
        futures += [producer.put(event(unit="u" * 500)) for _ in range(20)]
        with pytest.raises(HeadwaterError, match=r"ExpiredTokenException.*events stay in the outbox"):
            producer.flush(60)
        assert producer.stats.buffered_bytes < 20_000
    assert not any(future.done() for future in futures)
    stream.always = None
    producer.flush(60)
    assert {future.result(0).origin for future in futures} == {producer.origin}
    producer.close()
    assert sorted(stream.identities(TELEMETRY)) == [(producer.origin, seq) for seq in range(60)]
    assert (producer.stats.delivered, producer.stats.failed) == (60, 0)


def test_what_is_not_delivered_at_close_fails_its_future_and_stays(outbox: Path) -> None:
    stream = FakeStream()
    stream.always = client_error("ExpiredTokenException")
    settings = replace(QUICK, delivery_seconds=0.1)
    producer = Producer("s", TELEMETRY, client=stream, settings=settings, outbox=outbox)
    future = producer.put(event())
    with pytest.raises(HeadwaterError, match=r"ExpiredTokenException.*1 events stay in the outbox"):
        producer.close()
    assert "it stays in the outbox" in str(future.exception(0))
    stream.always = None
    with Producer("s", TELEMETRY, client=stream, settings=settings, outbox=outbox):
        pass
    assert stream.identities(TELEMETRY) == [(producer.origin, 0)]


def _put_numbered(stream: FakeStream, outbox: Path) -> Producer:
    producer = Producer("s", TELEMETRY, client=stream, settings=UNTOLD, outbox=outbox)
    producer.put_batch(fleet(50))[-1].result(20)
    return producer


def _put_named(stream: FakeStream, outbox: Path) -> DirectProducer:
    producer = DirectProducer("s", TELEMETRY, client=stream, settings=UNTOLD, outbox=outbox)
    for first in (0, 50, 200):  # two that are one interval, and one apart
        producer.put(fleet(50), "caller", first).result(20)
    return producer


def _put_own(stream: FakeStream, outbox: Path) -> Producer:
    producer = Producer("s", OWN, client=stream, settings=UNTOLD, outbox=outbox)
    rows = [{"device": f"m{at % 3}", "seq": at // 3, "ts": "2026-03-01T12:00:00Z"} for at in range(90)]
    events = pa.Table.from_pylist([validate_row(OWN, row) for row in rows], schema=OWN.arrow_schema)
    for future in producer.put_batch(events):
        future.result(20)
    return producer


@pytest.mark.parametrize("put", [_put_numbered, _put_named, _put_own])
def test_a_death_between_delivery_and_receipt_leaves_no_event_out(
    put: Callable[[FakeStream, Path], Producer | DirectProducer], tmp_path: Path
) -> None:
    """Whoever names the events: the session, the caller of a gateway, or their own fields; and each is told of once."""
    stream, outbox, left = FakeStream(), tmp_path / "outbox.db", tmp_path / "left.db"
    producer = put(stream, outbox)
    for end in ("", "-wal"):
        shutil.copy(f"{outbox}{end}", f"{left}{end}")
    contract = OWN if put is _put_own else TELEMETRY
    assert stream.controls(contract) == []
    for _ in range(2):
        again = DirectProducer if put is _put_named else Producer
        again("s", contract, client=stream, settings=QUICK, outbox=left).close()
        (receipt,) = stream.controls(contract)
    producer.close()
    assert [one.body["intervals"] for one in stream.controls(contract)] == [receipt.body["intervals"]] * 2
