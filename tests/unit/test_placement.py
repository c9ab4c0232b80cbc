"""Placement of new batches: away from throttled shards, and through a reshard without moving a sealed batch."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.placement import adaptive, by_key_hash
from headwater.errors import HeadwaterError
from headwater.producers.placement import Placement
from headwater.stream.hashkeys import HASH_SPACE
from headwater.stream.shards import Shard


def ranges(*starts: int) -> list[Shard]:
    ends = [*starts[1:], HASH_SPACE]
    return [Shard(f"s{i}", start, end - 1) for i, (start, end) in enumerate(zip(starts, ends, strict=True))]


def even(count: int) -> list[Shard]:
    return ranges(*[i * HASH_SPACE // count for i in range(count)])


@given(st.integers(1, 20), st.integers(0, 1 << 32))
def test_every_key_lies_on_a_shard_and_no_two_batches_share_one(count: int, seed: int) -> None:
    placement = Placement(even(count), random.Random(seed).random)
    keys = [placement.choose(1_000) for _ in range(50)]
    assert len(set(keys)) == 50
    assert all(0 <= key < HASH_SPACE for key in keys)


def test_a_throttled_shard_gets_few_new_batches_and_its_share_back_later() -> None:
    placement = Placement(even(4), random.Random(1).random)
    quarter = HASH_SPACE // 4
    for _ in range(12):
        placement.throttled(5)
    assert placement.weight("s0") < 0.03
    keys = [placement.choose(1_000) for _ in range(1_000)]
    assert sum(key < quarter for key in keys) < 60
    for key in keys:
        placement.delivered(key, f"s{key // quarter}")
    for _ in range(60):
        placement.delivered(5, "s0")
    assert placement.weight("s0") == 1.0
    assert not placement.stale


def test_width_does_not_count() -> None:
    """A narrow shard takes as much as a wide one: each has the same limit."""
    placement = Placement(ranges(0, 1 << 100, 1 << 127), random.Random(1).random)
    keys = [placement.choose(1_000) for _ in range(900)]
    assert 250 < sum(key < 1 << 100 for key in keys) < 350


def test_a_reshard_keeps_what_is_outstanding_and_hands_shares_on() -> None:
    placement = Placement(even(2), random.Random(1).random)
    keys = [placement.choose(1_000) for _ in range(40)]
    for _ in range(5):
        placement.throttled(1)
    before = placement.weight("s0")
    placement.delivered(keys[0], "a-child")
    assert placement.stale
    placement.refresh(even(4))
    assert not placement.stale
    assert placement.weight("s0") == placement.weight("s1") == pytest.approx(before, abs=0.03)
    for key in keys[1:]:
        placement.delivered(key, f"s{key * 4 // HASH_SPACE}")
    assert not placement.stale
    assert placement._bytes == [0] * 4
    assert placement._outstanding == {}


def test_a_shard_map_with_a_gap_is_refused() -> None:
    with pytest.raises(HeadwaterError, match="gap or overlap"):
        Placement([Shard("a", 0, 5), Shard("b", 7, HASH_SPACE - 1)], random.Random(1).random)


def test_one_key_with_two_fifths_of_the_load_heats_no_shard() -> None:
    """The benchmark's marks, on shards that enforce their limits."""
    assert adaptive(crooked=True) >= 0.9
    assert by_key_hash(crooked=False) < 0.5
