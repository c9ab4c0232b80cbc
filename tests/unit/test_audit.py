"""The audit against plain sets: whatever is missing, too much or double is named by number."""

from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.lineage.intervals import IntervalSet
from headwater.processors.audit.audit import audit
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.state import ShardState

PIPELINE = Pipeline("p", "telemetry").lake("t")
events = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12)), max_size=20)
foreign = st.lists(st.tuples(st.sampled_from(["shardId-000000000000:7", "shardId-000000000001:9"]), st.integers(0, 3)))


def state(accepted: set[tuple[str, int]], seen: set[tuple[str, int]], excluded: set[tuple[str, int]]) -> ShardState:
    made = ShardState(PIPELINE)
    for sets, rows in ((made.accepted, accepted), (made.seen, seen), (made.excluded, excluded)):
        for origin, seq in rows:
            sets.add_intervals(origin, [(seq, seq + 1)], 0)
    return made


def batches(rows: list[tuple[str, int]]) -> list[pa.RecordBatch]:
    columns = {"_origin": [origin for origin, _ in rows], "_seq": np.array([seq for _, seq in rows], np.int64)}
    table = pa.table(columns, schema=pa.schema({"_origin": pa.string(), "_seq": pa.int64()}))
    return list(table.to_batches(max_chunksize=3))


@settings(max_examples=300)
@given(events, st.lists(st.tuples(events, events), min_size=1, max_size=3), events, foreign)
def test_every_difference_is_named(
    accepted: list[tuple[str, int]],
    shards: list[tuple[list[tuple[str, int]], list[tuple[str, int]]]],
    lake: list[tuple[str, int]],
    others: list[tuple[str, int]],
) -> None:
    """Over several shards, rows in any order; foreign events are compared by number alone."""
    told, seen = set(accepted), {one for rows, _ in shards for one in rows}
    excluded = {one for rows, dropped in shards for one in dropped if one in rows}
    states = [state(told if not n else set(), set(rows), set(rows) & set(out)) for n, (rows, out) in enumerate(shards)]
    states[0].counts["foreign"] = len(set(others))
    report = audit("p", [], states, batches([*lake, *others]))
    found, expected = Counter(lake), seen - excluded
    for one in report.origins:

        def of(rows: set[tuple[str, int]], name: str = one.origin) -> tuple[tuple[int, int], ...]:
            return tuple(IntervalSet((seq, seq + 1) for origin, seq in rows if origin == name))

        assert one.not_processed == of(told - seen)
        assert one.not_in_lake == of(expected - set(lake))
        assert one.unexpected == of(set(lake) - expected)
        assert one.duplicates == sum(count - 1 for (origin, _), count in found.items() if origin == one.origin)
    assert {one.origin for one in report.origins} == {origin for origin, _ in [*told, *seen, *lake]}
    assert report.foreign.duplicates == len(others) - len(set(others))
    whole = told <= seen and found == Counter(expected) and len(others) == len(set(others))
    assert report.exact == whole


@settings(max_examples=300)
@given(
    rows=st.dictionaries(st.tuples(st.sampled_from("ab"), st.integers(0, 12)), st.sampled_from("lwbLN"), max_size=20),
    others=st.dictionaries(st.integers(0, 9), st.sampled_from("lwbLN")),
)
def test_what_is_on_its_way_is_not_missing(rows: dict[tuple[str, int], str], others: dict[int, str]) -> None:
    """Events in the lake, in files that wait for the publisher, in both, lost, and committed and published since."""
    everything = rows | {(f"shardId-000000000000:{number}", 0): kind for number, kind in others.items()}

    def of(kinds: str, found: dict[tuple[str, int], str] = everything) -> set[tuple[str, int]]:
        return {one for one, kind in found.items() if kind in kinds}

    states = [state(set(), of(kinds, rows), set()) for kinds in ("lwbL", "lwbLN")]
    for one, kinds in zip(states, ("lwbL", "lwbLN"), strict=True):
        one.counts["foreign"] = sum(kind in kinds for kind in others.values())
    read, now = states
    report = audit("p", [], [read], batches([*of("lbN")]), batches([*of("wb")]), later=lambda: [now])
    assert {(one.origin, seq) for one in report.origins for a, b in one.not_in_lake for seq in range(a, b)} == of(
        "L", rows
    )
    assert sum(one.waiting for one in report.origins) == len(of("w", rows))
    assert report.unexpected == report.duplicates == 0
    if not of("N"):
        assert report.waiting == len(of("w"))
        assert report.missing == len(of("L"))
        assert report.exact == (not of("L"))
    alone = audit("p", [], [read], batches([*of("lbN")]), batches([*of("wb")]))
    assert sum(b - a for one in alone.origins for a, b in one.unexpected) == len(of("N", rows))
