"""A writer that changes its format makes every record a dead letter: the shard keeps up, and nothing is lost."""

import logging
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.clock import ManualClock
from headwater.contract import load_contract
from headwater.errors import Throttled
from headwater.processors.engine.bounds import MAX_LETTER_BYTES, MAX_LETTERS
from headwater.producers.redriving import Redrive
from headwater.sinks.deadletter import MOST_TOGETHER, DeadLetter, DeadLetters
from headwater.stream.record import StreamRecord
from headwater.testing.objects import MemoryObjects
from tests.streams import memory_stream
from tests.total_shard import CONTRACTS, SHARD, START, Shard, encoded, event, pipeline

PUT_SECONDS = 0.03


def slow_shard() -> Shard:
    """A shard whose objects take 30 ms each, of a pipeline without ids."""
    shard = Shard(pipeline(CONTRACTS["none"]))
    put = shard.objects.put

    def slowly(key: str, body: bytes) -> str:
        shard.clock.sleep(PUT_SECONDS)
        return put(key, body)

    shard.objects.put = slowly  # type: ignore[method-assign]  # a double
    return shard


def records(first: int, count: int, data: Callable[[int], bytes]) -> list[StreamRecord]:
    return [StreamRecord(SHARD, f"4966{at + 1:052d}", START + at, "pk", data(at)) for at in range(first, first + count)]


def test_events_with_a_new_field_cost_a_put_for_a_thousand() -> None:
    """A minute of 1,000 a second is 60 objects, two seconds at 30 ms each, where it was half an hour."""
    shard = slow_shard()
    begun = shard.clock.now_ms()
    for at in range(0, 12_000, 500):
        shard.worker.process(records(at, 500, lambda n: encoded(event(n, added=1))))
    shard.commit()
    letters = [key for key in shard.objects.bodies if key.startswith("dlq/")]
    assert len(letters) == 12_000 // MOST_TOGETHER
    assert shard.clock.now_ms() - begun <= 2_000
    assert [letter.name for letter in shard.letters()] == [
        f"{SHARD}:{one.sequence_number}:0" for one in records(0, 12_000, lambda _: b"")
    ]


def test_letters_in_memory_are_bounded_by_their_bytes() -> None:
    """Few that are large make a commit as well as many that are small."""
    shard = slow_shard()
    for at in range(0, 90, 10):
        shard.worker.process(records(at, 10, lambda _: bytes(1 << 20)))
        held = sum(map(len, shard.objects.bodies.values())) / 4 * 3
        assert at * (1 << 20) - held <= MAX_LETTER_BYTES + (10 << 20)
    shard.commit()
    assert len(shard.letters()) == 90
    assert MAX_LETTERS > 90


def test_letters_are_told_of_before_the_commit(caplog: pytest.LogCaptureFixture) -> None:
    """At once, then every ten seconds, and each once: the alarm counts them."""
    shard = slow_shard()
    told = []
    with caplog.at_level(logging.WARNING, "headwater.processor"):
        for second in range(25):
            shard.worker.process(records(second * 10, 10, lambda _: b"?"))
            told.append(sum(one.letters for one in caplog.records if one.message == "dead letters"))  # type: ignore[attr-defined]  # a field of the line's own
            shard.clock.sleep(1)
        shard.commit()
    assert told == [10] * 10 + [110] * 10 + [210] * 5
    lines: list[Any] = [one for one in caplog.records if one.message == "dead letters"]
    assert sum(one.letters for one in lines) == 250
    assert lines[0].shard == SHARD
    assert "neither a batch nor JSON" in lines[0].reason


def test_a_letter_has_the_identity_of_its_event() -> None:
    """So it is known who must send what again."""
    shard = Shard(pipeline(CONTRACTS["pair"]))
    shard.put(encoded(event(1, value=5000)), encoded(event(2, value=13.0)), b"?")
    shard.commit()
    assert [(one.origin, one.seq) for one in shard.letters()] == [("d1-1", 1), ("d2-2", 2), (None, None)]


def letter(number: int, size: int = 1_000) -> DeadLetter:
    return DeadLetter(SHARD, str(10**40 + number), None, "why", None, None, b"%d " % number + b"x" * size, "c", 0)


def peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_many_letters_are_listed_sent_and_removed_in_little_memory() -> None:
    """Never more than a few objects of them."""
    objects = MemoryObjects()
    letters = DeadLetters(objects)
    many = 20_000
    for first in range(0, many, 5_000):
        letters.write("p", [letter(number) for number in range(first, first + 5_000)])
    limit, sent = 15 << 20, 0

    def put(some: Sequence[DeadLetter]) -> Iterator[DeadLetter]:
        nonlocal sent
        sent += len(some)
        yield from some

    def removed() -> None:
        assert letters.remove("p", lambda one: one.sequence_number.endswith("7")) == many // 10

    assert peak(lambda: [None for _ in letters.list("p")]) < limit
    # what is moved is written, and so is in the memory of this bucket, once more for those that stay
    assert peak(removed) < limit + 30 * many // 10 * 1_100
    assert peak(lambda: letters.redrive("p", put)) < limit + many * 1_300
    assert sent == many - many // 10
    assert list(letters.list("p")) == []


class Refusing:
    """Kinesis that refuses some entries of a request, as a shard does that is written to too much."""

    def __init__(self, refused: Iterator[bool]) -> None:
        self.clock = ManualClock(START)
        self.kinesis = memory_stream(2, self.clock)
        self.refused, self.requests, self.taken = refused, 0, list[bytes]()

    def put_records(self, **request: Any) -> dict[str, Any]:
        self.requests += 1
        assert len(request["Records"]) <= 500
        assert sum(len(one["Data"]) for one in request["Records"]) <= 5 << 20
        answers = []
        for record in request["Records"]:
            if next(self.refused):
                answers.append({"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow"})
            else:
                self.taken.append(record["Data"])
                answers.append({"SequenceNumber": "1", "ShardId": SHARD})
        return {"FailedRecordCount": 0, "Records": answers}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kinesis, name)


def redriving(stream: Refusing) -> Redrive:
    return Redrive(stream, "s", load_contract("telemetry"), stream.clock, lambda: 0.5)


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.sampled_from([1, 1_000, 3 << 20]), max_size=30), data=st.data())
def test_each_letter_is_put_once_whatever_a_shard_refuses(sizes: list[int], data: st.DataObject) -> None:
    stream = Refusing(iter(lambda: data.draw(st.sampled_from([False, False, True])), None))
    letters = [letter(number, size) for number, size in enumerate(sizes)]
    yielded = [*redriving(stream).put(letters)]
    assert sorted(one.payload for one in yielded) == sorted(stream.taken) == sorted(one.payload for one in letters)


def test_many_letters_are_put_many_together() -> None:
    stream = Refusing(iter(lambda: False, None))
    assert sum(1 for _ in redriving(stream).put([letter(number) for number in range(2_000)])) == 2_000
    assert stream.requests == 4


def test_a_shard_that_takes_nothing_ends_it() -> None:
    """After two minutes or so, and names the letter."""
    stream = Refusing(iter(lambda: True, None))
    with pytest.raises(Throttled, match=f"{SHARD}:{10**40}: ProvisionedThroughputExceeded"):
        next(redriving(stream).put([letter(0)]))
    assert 60_000 < stream.clock.now_ms() - START < 200_000
