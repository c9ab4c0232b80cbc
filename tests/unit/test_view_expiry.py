"""Rows that a view keeps for a time: never half there, whoever deletes what when."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.aggregates import count
from headwater.aggregates.merging import merge, values
from headwater.clock import ManualClock
from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.config import Settings
from headwater.errors import UsageError
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.processors.services import Services
from headwater.sinks.views.slots import Upsert
from headwater.testing.dynamodb import MemoryDynamoDB
from tests.typed import a_key
from tests.views import AGGREGATES, VIEW, memory, rows_of, store, upsert

KEEP_MS = 120_000
KEPT = replace(VIEW, keep_ms=KEEP_MS)
ENDS_MS = 120_000 + KEEP_MS
"""When the row of `upsert`'s window does."""


def items(dynamodb: MemoryDynamoDB) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dynamodb.scan(TableName="views", ConsistentRead=True)["Items"]
    return found


def delete_expired(dynamodb: MemoryDynamoDB, now_ms: int, every: int = 1) -> None:
    """What DynamoDB does, days late and in no order: of the items that have ended, every n-th."""
    ended = [one for one in items(dynamodb) if int(one["expires"]["N"]) * 1000 <= now_ms]
    for one in ended[::every]:
        dynamodb.delete_item(TableName="views", Key={"pk": one["pk"], "sk": one["sk"]})


steps = st.one_of(
    st.tuples(
        st.just("write"),
        st.integers(0, 1),
        st.builds(
            upsert,
            st.sampled_from("ab"),
            st.sampled_from(["s1/0", "s1/9", "s2/0"]),
            st.integers(1, 20),
            st.sampled_from([0, 60_000, 120_000]),
        ),
    ),
    st.tuples(st.just("wait"), st.sampled_from([20_000, 60_000])),
    st.tuples(st.just("delete"), st.integers(1, 3)),
)


@settings(max_examples=100, deadline=None)
@given(
    script=st.lists(steps, max_size=25),
    bound=st.sampled_from([350_000, 10]),
    behind_ms=st.integers(0, 90_000),
    spread=st.sampled_from([1, 2]),
)
def test_a_row_is_whole_or_not_there(script: list[Any], bound: int, behind_ms: int, spread: int) -> None:
    """One of the writers has a clock that is behind: it puts deleted rows back, and no reader sees them."""
    dynamodb, clock, slow = memory(), ManualClock(60_000), ManualClock(60_000)
    writers = [store(dynamodb, clock, max_item_bytes=bound), store(dynamodb, slow, max_item_bytes=bound)]
    newest: dict[tuple[str, int, str], Upsert] = {}
    for what, *how in script:
        if what == "write":
            writers[how[0]].write(replace(KEPT, spread=spread), [how[1]])
            place = (str(how[1].key[0]), how[1].window_end_ms, how[1].slot)
            if place not in newest or newest[place].version < how[1].version:
                newest[place] = how[1]
        elif what == "wait":
            clock.advance(how[0])
            slow.advance(max(0, clock.now_ms() - behind_ms - slow.now_ms()))
        else:
            delete_expired(dynamodb, clock.now_ms(), how[0])
        expected: dict[tuple[str, int], list[bytes]] = {}
        for (device, end, _), one in newest.items():
            if end + KEEP_MS > clock.now_ms():
                expected.setdefault((device, end), []).append(one.partial)
        rows = list(store(dynamodb, clock).rows(KEPT))
        assert sorted((row["n"], row["total"]) for row in rows) == sorted(
            tuple(values(AGGREGATES, merge(AGGREGATES, partials)).values()) for partials in expected.values()
        )


def test_a_late_event_for_an_expired_row_changes_nothing_and_is_counted() -> None:
    """Neither the row that DynamoDB has not deleted yet, nor one that it has."""
    dynamodb, clock = memory(), ManualClock(ENDS_MS - 1)
    writer = store(dynamodb, clock)
    writer.write(KEPT, [upsert("a", "s1/0", 1)])
    assert [row["n"] for row in writer.windows(KEPT, ("a",))] == [2]
    clock.advance(1)
    before = items(dynamodb)
    assert writer.write(KEPT, [upsert("a", "s1/9", 2)]).expired == 1
    assert items(dynamodb) == before
    assert writer.windows(KEPT, ("a",)) == []
    assert writer.page(KEPT, "", 10) == ([], None)
    delete_expired(dynamodb, clock.now_ms())
    assert writer.write(KEPT, [upsert("a", "s1/9", 2)]).expired == 1
    assert rows_of(dynamodb) == []


def test_a_spread_row_that_a_shorter_keep_has_touched_is_whole_or_not_there() -> None:
    """Its parts end at different times; the row does with the first of them."""
    dynamodb, clock = memory(), ManualClock(0)
    writer = store(dynamodb, clock)
    spread = replace(KEPT, spread=2)
    writer.write(spread, [upsert("a", f"shardId-{shard:012d}/0", 1) for shard in range(2)])
    writer.write(replace(spread, keep_ms=KEEP_MS // 2), [upsert("a", "shardId-000000000000/0", 2)])
    clock.advance(ENDS_MS - KEEP_MS // 2 - 1)
    assert [row["n"] for row in writer.windows(KEPT, ("a",))] == [5]
    clock.advance(1)
    assert writer.windows(KEPT, ("a",)) == []
    assert writer.page(KEPT, "", 10) == ([], None)


def test_an_expired_row_is_forgotten_too() -> None:
    """With what is left of it once DynamoDB has deleted a part."""
    dynamodb, clock = memory(), ManualClock(0)
    writer = store(dynamodb, clock, max_item_bytes=10)
    writer.write(KEPT, [upsert(device, slot, 1) for device in "ab" for slot in ("s1/0", "s2/0")])
    clock.advance(ENDS_MS)
    dynamodb.delete_item(TableName="views", Key={"pk": {"S": "v#a"}, "sk": {"S": "1970-01-01T00:01:00.000Z"}})
    assert writer.remove(KEPT, a_key("device", "a")) == 0
    assert {item["pk"]["S"] for item in rows_of(dynamodb)} == {"v#b"}
    assert list(writer.keys(KEPT)) == ["b"]
    assert writer.remove(KEPT, a_key("device", "b")) == 1
    assert items(dynamodb) == []


def test_the_table_deletes_what_the_pipeline_says() -> None:
    """`keep` from the definition to the item's attribute, and the table told of it."""
    pipeline = Pipeline("p", "telemetry").view("v", by=["device"], window=tumbling("1m"), keep="2d", n=count())
    with EmbeddedAws() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        for _ in range(2):
            provision(Settings(), shards=1)
        services = Services(Settings(), pipeline, ManualClock(0))
        dynamodb = services.client("dynamodb")
        table = services.settings.views_table
        found = dynamodb.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
        assert found == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires"}
        services.views.write(replace(services.view_specs["v"], aggregates=AGGREGATES), [upsert("a", "s1/0", 1)])
        (item,) = rows_of(dynamodb, table)
        assert item["expires"] == {"N": str(120 + 2 * 86_400)}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"keep": "30d"}, "view v has no window"),
        ({"keep": "1m", "window": tumbling("1m")}, "less than the lateness"),
        ({"keep": "30", "window": tumbling("1m")}, "'30' is no duration"),
    ],
)
def test_keep_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Pipeline("p", "telemetry").view("v", by=["device"], n=count(), **options)
