"""A producer with an outbox: what is in it after delivery, failure and another run."""

from pathlib import Path

import pandas as pd
import pytest

from headwater.errors import HeadwaterError, UsageError
from producers.producer import Producer, ProducerSettings
from tests.producer_stream import FakeStream, client_error
from tests.producing import QUICK, TELEMETRY, event, fleet
from tests.unit.test_sealing import OWN


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


def test_the_outbox_is_empty_after_delivery_and_goes_on_counting(outbox: Path) -> None:
    stream = FakeStream()
    for _ in range(2):
        with Producer("s", TELEMETRY, client=stream, settings=QUICK, outbox=outbox) as producer:
            producer.put_batch(fleet(150))
            producer.put(event())
    assert sorted(stream.identities(TELEMETRY)) == [(producer.origin, seq) for seq in range(302)]
    intervals = [control.body["intervals"] for control in stream.controls(TELEMETRY)]
    assert intervals == [{producer.origin: [[0, 151]]}, {producer.origin: [[151, 302]]}]


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
    assert sorted(stream.identities(TELEMETRY)) == [(producer.origin, seq) for seq in range(151)]
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
    assert killed._outbox is not None
    killed._outbox.close()  # as a death leaves it: not one event sealed
    revived = FakeStream()
    with Producer("s", TELEMETRY, client=revived, settings=settings, outbox=tmp_path / "outbox.db"):
        pass
    for found in (stream, revived):
        assert len(found.identities(TELEMETRY)) >= 200
        assert {seq for _, seq in found.identities(TELEMETRY)} == set(range(200))
