"""The audit of events whose id is one field, such as a UUID: every difference found, told by shard and minute."""

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.ledger import ShardEntry
from headwater.processors.audit.audit import AuditOptions, audit
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.state import ShardState

MINUTE = 60_000
START = 1_790_000_000_000 // MINUTE * MINUTE
PIPELINE = Pipeline("p", "telemetry").lake("t")
SINGLE = AuditOptions(single_events=True)
SHARDS = ("shardId-000000000000", "shardId-000000000001")


def lake(ids: Iterable[str]) -> list[pa.RecordBatch]:
    """Rows with these ids."""
    listed = list(ids)
    return [
        pa.record_batch({"_origin": pa.array(listed, pa.string()), "_seq": pa.array([0] * len(listed), pa.int64())})
    ]


def shard(
    seen: Iterable[str], excluded: Iterable[str] = (), accepted: Iterable[str] = (), minute: int = 0
) -> ShardState:
    """A shard that has read these ids in one minute."""
    state = ShardState(PIPELINE)
    state.max_arrived = START + minute * MINUTE
    for sets, names in ((state.seen, seen), (state.excluded, excluded), (state.accepted, accepted)):
        for name in names:
            sets.add_intervals(name, [(0, 1)], START + minute * MINUTE)
    return state


ids = st.lists(st.sampled_from([f"id-{number}" for number in range(12)]), max_size=12)


@settings(max_examples=200)
@given(ids, ids, ids, ids, ids)
def test_every_difference_is_found(
    one: list[str], other: list[str], excluded: list[str], accepted: list[str], rows: list[str]
) -> None:
    """Against plain sets, over two shards."""
    entries = [ShardEntry("p", shard_id, 1, "o") for shard_id in SHARDS]
    states = [shard(one, set(excluded) & set(one), accepted), shard(other, minute=3)]
    report = audit("p", entries, states, lake(rows), options=SINGLE)
    seen, found = {*one, *other}, Counter(rows)
    expected = seen - (set(excluded) & set(one))
    assert report.single is not None
    assert report.origins == ()
    assert report.processed == len(seen)
    assert report.in_lake == len(found)
    assert sum(minute.not_in_lake for minute in report.single.minutes) == len(expected - set(found))
    assert sum(minute.not_processed for minute in report.single.minutes) == len(set(accepted) - seen)
    assert report.unexpected == len(set(found) - expected)
    assert report.duplicates == len(rows) - len(found)
    assert report.exact == (set(accepted) <= seen and found == Counter(expected))


def test_what_is_missing_is_told_by_shard_and_minute() -> None:
    """Of 3,000 ids on two shards, 40 of one minute are missing: that is one line, not 40."""
    first = [f"a{number}" for number in range(2_000)]
    second = [f"b{number}" for number in range(1_000)]
    entries = [ShardEntry("p", shard_id, 1, "o") for shard_id in SHARDS]
    states = [shard(first), shard(second, minute=5)]
    report = audit("p", entries, states, lake([*first, *second[40:]]), options=SINGLE)
    assert report.single is not None
    (minute,) = report.single.minutes
    assert (minute.shard_id, minute.minute_ms, minute.not_in_lake) == (SHARDS[1], START + 5 * MINUTE, 40)
    assert set(minute.examples) < set(second[:40])
    assert report.missing == 40
