"""A stream as values: what ListShards answers, page by page, and where records lie."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.clock import ManualClock
from headwater.stream import HASH_SPACE, Shard, hash_key_of, list_shards, open_shards, sequence, shards_of
from headwater.testing.kinesis import MemoryKinesis


def item(shard_id: str, start: int, end: int, closed: bool = False, **parents: str) -> dict[str, object]:
    numbers = {"StartingSequenceNumber": "1"} | ({"EndingSequenceNumber": "9"} if closed else {})
    keys = {"StartingHashKey": str(start), "EndingHashKey": str(end)}
    return {"ShardId": shard_id, "HashKeyRange": keys, "SequenceNumberRange": numbers, **parents}


def test_parents_are_told_apart_from_parents_that_have_expired() -> None:
    """A child waits for the parents that are listed; the others are past the retention period."""
    pages = [
        {"Shards": [item("b", 0, HASH_SPACE - 1, closed=True)]},
        {"Shards": [item("c", 0, HASH_SPACE - 1, ParentShardId="a", AdjacentParentShardId="b")]},
    ]
    assert shards_of(pages) == [
        Shard("b", 0, HASH_SPACE - 1, closed=True),
        Shard("c", 0, HASH_SPACE - 1, parents=("b",), expired_parents=("a",)),
    ]
    assert shards_of(pages)[1].all_parents == ("b", "a")
    assert shards_of(pages)[1].width == HASH_SPACE


def test_every_page_is_listed() -> None:
    """1,200 shards are more than ListShards answers at once, and the second request has the token alone."""
    kinesis = MemoryKinesis(ManualClock())
    kinesis.create_stream(StreamName="s", ShardCount=1_200)
    listed = list_shards(kinesis, "s")
    assert len({shard.shard_id for shard in listed}) == 1_200
    assert [shard.start for shard in open_shards(kinesis, "s")] == sorted(shard.start for shard in listed)


def test_closed_shards_are_listed_and_take_no_records() -> None:
    """After a split the parent is listed and closed, and the children name it."""
    kinesis = MemoryKinesis(ManualClock())
    kinesis.create_stream(StreamName="s", ShardCount=1)
    (first,) = list_shards(kinesis, "s")
    kinesis.split_shard(StreamName="s", ShardToSplit=first.shard_id, NewStartingHashKey=str(HASH_SPACE // 2))
    by_id = {shard.shard_id: shard for shard in list_shards(kinesis, "s")}
    assert by_id.pop(first.shard_id).closed
    assert {shard.parents for shard in by_id.values()} == {(first.shard_id,)}
    assert [shard.shard_id for shard in open_shards(kinesis, "s")] == sorted(by_id)


@given(st.text(max_size=40))
def test_a_partition_key_hashes_into_the_space(key: str) -> None:
    """The service's rule is the MD5 as a big-endian number of 128 bits."""
    assert 0 <= hash_key_of(key) < HASH_SPACE


@given(st.integers(0, 10**56 - 1), st.integers(0, 10**56 - 1))
def test_padded_numbers_sort_as_numbers(one: int, other: int) -> None:
    """Text of equal width compares as the numbers do, and comes back as the service wrote it."""
    assert (sequence.pad(str(one)) < sequence.pad(str(other))) == (one < other)
    assert sequence.unpad(sequence.pad(str(one))) == str(one)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "9" * 57, "x"])
def test_what_is_no_sequence_number_is_refused(text: str) -> None:
    """It is named in the error."""
    with pytest.raises(ValueError, match="not a Kinesis sequence number"):
        sequence.pad(text)
