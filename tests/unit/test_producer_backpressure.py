"""A producer whose stream takes nothing: memory is bounded, and `when_full` says what becomes of the next event."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace

import pytest

from headwater.errors import BufferFull
from headwater.producers.producer import Producer
from headwater.producers.settings import Receipt
from tests.producer_stream import FakeStream
from tests.producing import SMALL, TELEMETRY, event, fleet


@pytest.fixture
def stuck() -> Iterator[FakeStream]:
    """A stream that answers only once `gate` is set."""
    stream = FakeStream()
    stream.gate.clear()
    yield stream
    stream.gate.set()


def pour(producer: Producer, events: int) -> "list[Future[Receipt]]":
    """Events that do not compress, one by one."""
    return [producer.put(event(unit=random.randbytes(500).hex())) for _ in range(events)]


def test_memory_is_bounded_and_raise_raises(stuck: FakeStream) -> None:
    settings = replace(SMALL, when_full="raise")
    with Producer("s", TELEMETRY, client=stuck, settings=settings) as producer:
        with pytest.raises(BufferFull, match="for a buffer of 40000 bytes; cut it"):
            producer.put_batch(fleet(5_000))
        assert producer.stats.accepted == 0
        with pytest.raises(BufferFull, match="buffer of 40000 bytes is full"):
            pour(producer, 2_000)
        assert producer.stats.buffered_bytes <= 40_000
        accepted = producer.stats.accepted
        stuck.gate.set()
    assert len(stuck.identities(TELEMETRY)) == accepted


def test_drop_drops_with_a_count(stuck: FakeStream) -> None:
    settings = replace(SMALL, when_full="drop")
    with Producer("s", TELEMETRY, client=stuck, settings=settings) as producer:
        futures = pour(producer, 500)
        stuck.gate.set()
    stats = producer.stats
    assert stats.dropped > 0
    assert stats.accepted + stats.dropped == 500
    assert sum(isinstance(future.exception(0), BufferFull) for future in futures) == stats.dropped
    assert len(stuck.identities(TELEMETRY)) == stats.accepted == stats.delivered


def test_block_gives_up_in_time(stuck: FakeStream) -> None:
    settings = replace(SMALL, block_seconds=0.1)
    with Producer("s", TELEMETRY, client=stuck, settings=settings) as producer:
        with pytest.raises(BufferFull, match=r"full, for 0\.1 s"):
            pour(producer, 2_000)
        assert producer.stats.buffered_bytes <= 40_000
        accepted = producer.stats.accepted
        stuck.gate.set()
    assert len(stuck.identities(TELEMETRY)) == accepted


def test_block_waits_for_room(stuck: FakeStream) -> None:
    with Producer("s", TELEMETRY, client=stuck, settings=SMALL) as producer:
        opens = threading.Timer(0.3, stuck.gate.set)
        opens.start()
        pour(producer, 2_000)
        opens.join()
    assert len(stuck.identities(TELEMETRY)) == 2_000


def test_a_table_larger_than_the_buffer_flows_through_it() -> None:
    stream = FakeStream()
    with Producer("s", TELEMETRY, client=stream, settings=SMALL) as producer:
        producer.put_batch(fleet(20_000))
    assert sorted(seq for _, seq in stream.identities(TELEMETRY)) == list(range(20_000))
