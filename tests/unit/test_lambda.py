"""The Lambda runner in memory: whatever the mapping does with batches, and wherever a container dies, it is exact."""

from collections.abc import Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.errors import Fenced, HeadwaterError, UsageError
from headwater.processors.runners.serverless.events import check_mapping
from headwater.sinks.deadletter import DeadLetters
from tests.kpl import aggregate
from tests.lambda_world import CHILD, PARENT, Died, Step, World, _message, killer, steps


@settings(max_examples=80)
@given(steps=steps, records=st.integers(1, 14))
def test_exact_whatever_the_mapping_does(steps: list[Step], records: int) -> None:
    """Batches repeated, halved, given up; containers that take turns and die before or after any call to AWS."""
    world = World()
    numbers = [world.stream.put() for _ in range(records)]
    next_ = 0
    for kind, span, at, back, dies_in in steps:
        first = max(0, next_ - back) if kind == "again" else next_
        given_ = numbers[first : first + span]
        if not given_:
            break
        if kind == "skip":
            next_ += len(given_)
            continue
        if kind == "half":
            given_ = given_[: max(1, len(given_) // 2)]
        left = world.invoke(world.stream.event(*given_), at, dies_in)
        if left is not None:
            next_ = max(next_, numbers.index(left[0]) if left else first + len(given_))
    assert world.invoke(world.stream.event(numbers[-1])) in ([], None)
    assert world.invoke(world.stream.event(numbers[-1]), 1) == []
    world.check(*range(1, records + 1))


@settings(max_examples=60)
@given(
    parent=st.integers(0, 6),
    child=st.integers(1, 6),
    delivered=st.integers(0, 6),
    deaths=st.lists(st.tuples(st.integers(0, 1), st.one_of(st.none(), st.integers(0, 90))), max_size=6),
    endless=st.booleans(),
)
def test_exact_across_a_split(
    parent: int, child: int, delivered: int, deaths: list[tuple[int, int | None]], endless: bool
) -> None:
    """Part of the parent was given up; containers die while they finish it for its child."""
    world = World()
    world.stream.endless = endless
    numbers = [world.stream.put() for _ in range(parent)]
    if numbers[:delivered]:
        world.invoke(world.stream.event(*numbers[:delivered]))
    world.stream.split()
    event = world.stream.event(*[world.stream.put(CHILD) for _ in range(child)], shard=CHILD)
    for at, dies_in in deaths:
        world.invoke(event, at, dies_in)
    assert world.invoke(event) == []
    world.check(*range(1, parent + child + 1))
    closed = world.ledger.shard(PARENT)
    assert closed is not None
    assert closed.closed


@settings(max_examples=60)
@given(records=st.integers(1, 8), first=st.integers(1, 8), second=st.integers(1, 8), call=st.integers(0, 60))
def test_exact_when_another_invocation_comes_in_between(records: int, first: int, second: int, call: int) -> None:
    """At any call to AWS: the container goes on afterwards as if nothing had been, and must write nothing wrong."""
    world = World()
    numbers = [world.stream.put() for _ in range(records)]
    world.meanwhile = lambda: world.invoke(world.stream.event(*numbers[:second]), 1)
    world.meanwhile_in = call
    world.invoke(world.stream.event(*numbers[:first]))
    world.meanwhile = None
    assert world.invoke(world.stream.event(*numbers)) == []
    assert world.invoke(world.stream.event(*numbers), 1) == []
    world.check(*range(1, records + 1))


def test_a_warm_container_goes_on_without_a_claim_and_a_stale_one_takes_over() -> None:
    world = World()
    numbers = [world.stream.put() for _ in range(4)]
    epochs = []
    for number, at in zip(numbers, (0, 0, 1, 0), strict=True):
        world.stream.limit = 1
        assert world.invoke(world.stream.event(number), at) == []
        entry = world.ledger.shard(PARENT)
        assert entry is not None
        epochs.append(entry.epoch)
    assert epochs == [1, 1, 2, 3]
    world.check(1, 2, 3, 4)


def test_a_repetition_claims_nothing() -> None:
    world = World()
    event = world.stream.event(world.stream.put())
    assert [world.invoke(event, at) for at in (0, 1, 0)] == [[], [], []]
    entry = world.ledger.shard(PARENT)
    assert entry is not None
    assert entry.epoch == 1


def test_what_the_mapping_gave_up_comes_with_the_next_batch() -> None:
    world = World()
    numbers = [world.stream.put() for _ in range(9)]
    assert world.invoke(world.stream.event(numbers[0])) == []
    assert world.invoke(world.stream.event(numbers[8])) == []
    world.check(*range(1, 10))


def test_what_was_given_up_at_the_end_comes_with_the_message_of_the_destination() -> None:
    """No batch may follow: the on-failure destination's queue invokes the function too."""
    world = World()
    numbers = [world.stream.put() for _ in range(5)]
    world.invoke(world.stream.event(numbers[0]))
    good = _message("m1", PARENT, numbers[1], numbers[4])
    assert world.invoke({"Records": [good]}) == []
    world.check(1, 2, 3, 4, 5)
    assert world.invoke({"Records": [good]}) == []
    other = _message("m2", PARENT, numbers[0], "9999999")
    assert world.invoke({"Records": [good, other, {"messageId": "m3", "eventSource": "aws:sqs", "body": "{}"}]}) == [
        "m2",
        "m3",
    ]
    world.check(1, 2, 3, 4, 5)


def test_a_batch_with_holes_is_refused_before_anything_is_written() -> None:
    """A parallelization factor of 2 splits a shard's records by key."""
    world = World()
    numbers = [world.stream.put() for _ in range(6)]
    with pytest.raises(HeadwaterError, match="ParallelizationFactor 1"):
        world.invoke(world.stream.event(*numbers[0::2]))
    assert not world.committed()
    with pytest.raises(HeadwaterError, match="lacks 1 records in its middle, the first is 2000"):
        world.invoke(world.stream.event(numbers[0], numbers[2]))
    assert world.invoke(world.stream.event(*numbers)) == []
    world.check(1, 2, 3, 4, 5, 6)


def test_two_at_once_fence_each_other_and_say_what_to_set() -> None:
    world = World()
    event = world.stream.event(world.stream.put())
    put = world.objects.put

    def overtaken(key: str, body: bytes) -> str:
        world.objects.put = put  # type: ignore[method-assign]  # the real one again
        assert world.invoke(event, 1) == []
        return put(key, body)

    world.objects.put = overtaken  # type: ignore[method-assign]  # a double
    with pytest.raises(Fenced, match="set ParallelizationFactor to 1"):
        world.containers[0].invoke(event, lambda: 60_000)
    assert world.invoke(event, 0) == []
    world.check(1)


def test_parents_are_read_to_their_end_before_a_child() -> None:
    """Nothing tells a function that a shard has ended; the parent's last batch was given up besides."""
    world = World()
    first = world.stream.put()
    world.stream.put()
    world.stream.split()
    child = world.stream.put(CHILD)
    assert world.invoke(world.stream.event(first)) == []
    assert world.invoke(world.stream.event(child, shard=CHILD), 1) == []
    parent = world.ledger.shard(PARENT)
    assert parent is not None
    assert parent.closed
    world.check(1, 2, 3)


def reads_take(world: World, ms: int) -> None:
    get = world.stream.get_records

    def slow(**request: Any) -> dict[str, Any]:
        world.clock.advance(ms)
        return get(**request)

    world.stream.get_records = slow  # type: ignore[method-assign]  # a double


def test_a_child_waits_when_its_parents_take_too_long() -> None:
    world = World()
    for _ in range(7):
        world.stream.put()
    world.stream.split()
    child = world.stream.put(CHILD)
    event = world.stream.event(child, shard=CHILD)
    reads_take(world, 9_000)
    assert world.invoke(event, seconds=20) is None
    assert world.ledger.shard(CHILD) is None
    answers = [world.invoke(event, seconds=20) for _ in range(4)]
    assert answers[-1] == []
    world.check(*range(1, 9))


def test_time_runs_out_between_reads_and_the_response_says_from_where() -> None:
    world = World()
    numbers = [world.stream.put() for _ in range(8)]
    reads_take(world, 15_000)
    assert world.invoke(world.stream.event(*numbers), seconds=30) == [numbers[6]]
    world.check(*range(1, 7))
    assert world.invoke(world.stream.event(*numbers[6:]), seconds=60) == []
    world.check(*range(1, 9))


def test_a_batch_behind_a_long_gap_fails_until_the_gap_is_read() -> None:
    world = World()
    numbers = [world.stream.put() for _ in range(8)]
    reads_take(world, 15_000)
    assert world.invoke(world.stream.event(numbers[7]), seconds=30) is None
    world.check(*range(1, 7))
    assert world.invoke(world.stream.event(numbers[7]), seconds=30) == []
    world.check(*range(1, 9))


def test_what_expired_from_the_stream_is_taken_from_the_batch() -> None:
    world = World()
    numbers = [world.stream.put() for _ in range(4)]
    whole = world.stream.event(*numbers)
    world.stream.limit = 1
    assert world.invoke(world.stream.event(numbers[0])) == []
    del world.stream.records[PARENT][:2]
    assert world.invoke(whole) == []
    world.check(1, 2, 3, 4)
    last = world.stream.event(world.stream.put())
    world.stream.records[PARENT].clear()
    assert world.invoke(last) == []
    world.check(1, 2, 3, 4, 5)


def test_a_record_that_kills_is_buried_and_its_neighbours_are_not() -> None:
    """Each death is a new container; in the end the record is in the dead letters, everything else in the lake."""
    world = World()
    world.stream.limit = 10_000
    numbers = [world.stream.put() for _ in range(30)]
    killer.value = 17.0
    event, deaths = world.stream.event(*numbers), 0
    while world.invoke(event) is None:
        deaths += 1
        assert deaths < 40
    world.check(*[number for number in range(1, 31) if number != 17])
    (letter,) = DeadLetters(world.objects).list("unit")
    assert letter.sequence_number == numbers[16]
    assert letter.reason == "the function died 3 times on this record"
    assert world.invoke(world.stream.event(world.stream.put())) == []


def test_a_record_that_kills_leaves_the_batches_before_it_alone() -> None:
    """What is read beyond a batch costs it one death, not its retries."""
    world = World()
    world.stream.limit = 10_000
    numbers = [world.stream.put() for _ in range(10)]
    killer.value = 8.0
    event = world.stream.event(*numbers[:3])
    assert [world.invoke(event), world.invoke(event)] == [None, []]
    world.check(1, 2, 3)


def test_past_the_trouble_parts_are_whole_again() -> None:
    """Two deaths at the same place: thirty records, ten of them one by one and the rest together."""
    world = World()
    world.stream.limit = 10_000
    event = world.stream.event(*[world.stream.put() for _ in range(30)])
    assert [world.invoke(event, dies_in=36), world.invoke(event, dies_in=36)] == [None, None]
    assert world.invoke(event) == []
    world.check(*range(1, 31))
    entry = world.ledger.shard(PARENT)
    assert entry is not None
    assert len(entry.pending) == 11


def test_a_batch_that_is_too_large_to_hold_goes_in_parts() -> None:
    """Out of memory over 50 events: nothing is buried."""
    world = World()
    world.stream.limit = 10_000
    numbers = [world.stream.put() for _ in range(30)]
    killer.largest = 150
    event, deaths = world.stream.event(*numbers), 0
    while world.invoke(event) is None:
        deaths += 1
        assert deaths < 40
    world.check(*range(1, 31))
    assert not list(DeadLetters(world.objects).list("unit"))


def test_deaths_outside_of_the_function_bury_nothing() -> None:
    """S3 hangs until the function is killed, again and again: the record is taken once S3 is back."""
    world = World()
    event = world.stream.event(world.stream.put())
    put = world.objects.put

    def hangs(key: str, body: bytes) -> str:
        raise Died

    world.objects.put = hangs  # type: ignore[method-assign]  # a double
    assert {world.invoke(event) for _ in range(12)} == {None}
    world.objects.put = put  # type: ignore[method-assign]  # the real one again
    assert world.invoke(event) == []
    world.check(1)
    epochs = []
    for _ in range(16):  # the doubts fade, and the container keeps the shard again
        assert world.invoke(world.stream.event(world.stream.put())) == []
        entry = world.ledger.shard(PARENT)
        assert entry is not None
        epochs.append(entry.epoch)
    assert epochs[-3] == epochs[-1]
    world.check(*range(1, 18))


def test_a_passing_failure_of_the_commit_is_tried_again() -> None:
    world = World()
    event = world.stream.event(world.stream.put())
    put, failures = world.objects.put, iter([1, 2])

    def throttled(key: str, body: bytes) -> str:
        if next(failures, None):
            raise ClientError({"Error": {"Code": "SlowDown", "Message": ""}}, "PutObject")
        return put(key, body)

    world.objects.put = throttled  # type: ignore[method-assign]  # a double
    assert world.invoke(event) == []
    world.check(1)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({}, "no source"),
        ({"Records": [{"eventSource": "aws:dynamodb"}]}, "aws:dynamodb"),
        ({"source": "aws.events"}, "no source"),
    ],
)
def test_events_of_others_are_refused(event: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        World().invoke(event)


def test_another_stream_is_refused() -> None:
    world = World()
    event = world.stream.event(world.stream.put())
    event["Records"][0]["eventSourceARN"] = "arn:aws:kinesis:us-east-1:1:stream/other/consumer/c:1"
    with pytest.raises(UsageError, match="HEADWATER_STREAM is s"):
        world.invoke(event)


def test_mappings() -> None:
    good = {"StartingPosition": "TRIM_HORIZON", "FunctionResponseTypes": ["ReportBatchItemFailures"]}
    assert check_mapping(good) == []
    tells = {"DestinationConfig": {"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:1:q"}}}
    assert check_mapping(good | {"MaximumRetryAttempts": 20} | tells) == []
    wrong: list[tuple[dict[str, Any], str]] = [
        (good | {"ParallelizationFactor": 2}, "ParallelizationFactor is 2"),
        (good | {"MaximumRetryAttempts": 20}, "MaximumRetryAttempts"),
        (good | {"MaximumRecordAgeInSeconds": 60}, "MaximumRecordAgeInSeconds"),
        (good | {"TumblingWindowInSeconds": 60}, "TumblingWindowInSeconds"),
        (good | {"StartingPosition": "LATEST"}, "StartingPosition"),
        (good | {"FunctionResponseTypes": []}, "ReportBatchItemFailures"),
        (good | {"FilterCriteria": {"Filters": [{"Pattern": "{}"}]}}, "FilterCriteria"),
    ]
    for mapping, name in wrong:
        (line,) = check_mapping(mapping)
        assert name in line


def test_a_stream_made_again_is_refused_by_a_new_container() -> None:
    """Nothing of it is committed under the old one's positions."""
    world = World()
    first = world.stream.put()
    world.invoke(world.stream.event(first))
    second = world.stream.put()
    world.stream.created += 3600
    world.containers = [world.container()]
    with pytest.raises(UsageError, match="was deleted and made again"):
        world.invoke(world.stream.event(second))
    world.check(1)


def test_of_a_misplaced_aggregate_only_what_the_shard_owns_counts() -> None:
    """A KPL that knew the shard sends the others again, to theirs; this one owns the hash keys 0 to 9."""
    world = World()
    number = world.stream.put()
    rows = [b'{"device": "d", "metric": "m", "ts": 1762160400000, "value": %d}' % value for value in range(2)]
    world.stream.records[PARENT][0]["Data"] = aggregate(("a", rows[0], 5), ("b", rows[1], 10))
    assert world.invoke(world.stream.event(number)) == []
    entry = world.ledger.shard(PARENT)
    assert entry is not None
    assert (entry.counts["lake"], entry.counts["misplaced"]) == (1, 1)
