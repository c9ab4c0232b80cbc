"""Rows whose slots are spread over partitions: found whole by every reader, and gone when they are removed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product
from random import Random
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.aggregates.merging import merge, values
from headwater.errors import Throttled, UsageError
from headwater.sinks.views.items import Item, ViewSpec, part_key, part_of
from headwater.testing.dynamodb import MemoryDynamoDB
from tests.typed import a_key
from tests.views import AGGREGATES, SPREAD, VIEW, memory, rows_of, store, upsert

SHARDS = [f"shardId-{number:012d}/0" for number in range(7)]


def places(dynamodb: MemoryDynamoDB) -> list[str]:
    return sorted(item["pk"]["S"] for item in rows_of(dynamodb))


def test_slots_lie_in_as_many_partitions_and_the_row_says_so() -> None:
    """Nothing that a plain reader could take for a value of the row."""
    dynamodb = memory()
    writer = store(dynamodb)
    writer.write(SPREAD, [upsert("a", shard, 2) for shard in SHARDS])
    assert places(dynamodb) == ["v#a", "v@@1#a", "v@@2#a", "v@@3#a"]
    row, *parts = sorted(rows_of(dynamodb), key=lambda item: str(item["pk"]["S"]))
    assert row["slots"] == {"N": "3"}
    assert sorted(len(part["slots"]["M"]) for part in parts) == [2, 2, 3], "neighbouring shards lie evenly"
    assert not {"n", "total"} & {name for item in (row, *parts) for name in item}
    (found,) = store(dynamodb).windows(VIEW, ("a",))
    assert found["n"] == 3 * len(SHARDS)
    assert (found["device"], found["window_end"]) == ("a", "1970-01-01T00:02:00.000Z")


def test_a_row_that_has_begun_without_a_slot_is_not_shown() -> None:
    """A writer dies between its first two writes."""
    dynamodb = memory()
    with pytest.raises(Killed):
        store(Scripted(dynamodb, {1: [killed]})).write(SPREAD, [upsert("a", "s1/0", 2)])
    assert places(dynamodb) == ["v#a"]
    reader = store(dynamodb)
    assert reader.windows(VIEW, ("a",)) == list(reader.rows(VIEW)) == []
    assert reader.page(VIEW, "", 10) == ([], None)


def test_windows_of_a_spread_key_are_in_order() -> None:
    dynamodb = memory()
    writer = store(dynamodb)
    starts = [minute * 60_000 for minute in range(150)]
    writer.write(SPREAD, [upsert("a", shard, 2, start) for start in starts for shard in SHARDS])
    rows = writer.windows(VIEW, ("a",), 60_000, 140 * 60_000)
    assert [row["window_start"] for row in rows] == [row["window_start"] for row in writer.windows(VIEW, ("a",))[1:140]]
    assert len(rows) == 139
    assert {row["n"] for row in rows} == {3 * len(SHARDS)}


class Killed(Exception):
    """The writer's end."""


class Scripted:
    """A client whose puts are preceded by what the script says, by their number."""

    def __init__(self, client: Any, script: Mapping[int, Sequence[Callable[[], object]]]) -> None:
        self._client, self._script, self._puts = client, script, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def put_item(self, **request: Any) -> Any:
        self._puts += 1
        for event in self._script.get(self._puts - 1, ()):
            event()
        return self._client.put_item(**request)


def killed() -> None:
    raise Killed


def throttled() -> None:
    raise ClientError({"Error": {"Code": "ProvisionedThroughputExceededException", "Message": "-"}}, "PutItem")


def forgetting(
    flushes: Sequence[tuple[int, str, int]], spread: tuple[int, int], script: Mapping[int, Sequence[str]]
) -> None:
    """The key is forgotten before puts of a write; a writer that is killed, or throttled for good, writes the same
    again. A slot that lies where the row does not lead is where it does as well."""
    dynamodb, chance = memory(), Random(7).random

    def forget() -> None:
        store(dynamodb).remove(VIEW, a_key("device", "a"))

    events = {"forget": forget, "kill": killed, "throttle": throttled}
    steps = {number: [events[one] for one in what] for number, what in script.items()}
    client = Scripted(dynamodb, steps)
    writers = [store(client, chance=chance, attempts=1) for _ in spread]
    views = [replace(VIEW, spread=one) for one in spread]
    for writer, shard, number in flushes:
        for _ in range(len(script) + 1):
            try:
                writers[writer].write(views[writer], [upsert("a", shard, number)])
                break
            except Killed:
                writers[writer] = store(client, chance=chance, attempts=1)
            except Throttled:
                continue
    stored = {item["pk"]["S"]: Item.read(item) for item in rows_of(dynamodb)}
    row = stored.pop("v#a", Item())
    assert row == Item() or list(store(dynamodb).keys(VIEW)) == ["a"], f"no list leads to the row: {script}"
    led_to = [stored.get(part_key("v#a", part + 1), Item()) for part in range(row.spread)]
    for item in stored.values():
        for name, slot in item.slots.items():
            assert slot.version <= max(one.version(name) for one in (row, *led_to)), f"no reader finds {name}: {script}"


WHAT = [("forget",), ("kill",), ("throttle",), ("forget", "kill"), ("forget", "throttle")]


@settings(max_examples=300, deadline=None)
@given(
    flushes=st.lists(st.tuples(st.integers(0, 1), st.sampled_from(SHARDS[:4]), st.integers(1, 9)), max_size=8),
    spread=st.tuples(st.integers(1, 3), st.integers(2, 3)),
    script=st.dictionaries(st.integers(0, 20), st.sampled_from(WHAT), max_size=5),
)
def test_no_slot_lies_where_no_row_leads(
    flushes: list[tuple[int, str, int]], spread: tuple[int, int], script: dict[int, Sequence[str]]
) -> None:
    forgetting(flushes, spread, script)


def test_no_slot_lies_where_no_row_leads_whatever_two_things_happen() -> None:
    """All pairs of them, before any of the puts that two slots of one writer take."""
    flushes = [(0, SHARDS[0], 1), (0, SHARDS[1], 1), (0, SHARDS[0], 2)]
    for first, second in combinations(range(10), 2):
        for one, other in product(WHAT, WHAT):
            forgetting(flushes, (2, 2), {first: one, second: other})


def test_a_row_that_was_removed_and_begins_again_is_not_taken_for_the_old_one() -> None:
    """Two writers know a row's revision; it is removed, and one of them begins it again."""
    dynamodb, random = memory(), Random(7)
    one, other = (store(dynamodb, chance=random.random) for _ in range(2))
    one.write(VIEW, [upsert("a", "s1/0", 1)])
    other.write(VIEW, [upsert("a", "s1/0", 1)])
    store(dynamodb).remove(VIEW, a_key("device", "a"))
    one.write(VIEW, [upsert("a", "s2/0", 2)])
    other.write(VIEW, [upsert("a", "s1/0", 3)])
    (row,) = store(dynamodb).windows(VIEW, ("a",))
    assert row["n"] == 4 + 3, "the slots of both"


def test_a_key_is_removed_with_its_parts() -> None:
    """Also a part that begins between the look at the table and the deletion, and one that no row names."""
    dynamodb = memory()
    store(dynamodb).write(SPREAD, [upsert(device, SHARDS[0], 2) for device in "ab"])

    class Late:
        """Another writer begins a part just before the row is deleted."""

        def __getattr__(self, name: str) -> Any:
            return getattr(dynamodb, name)

        def delete_item(self, **request: Any) -> Any:
            if request["Key"]["pk"]["S"] == "v#a":
                store(dynamodb).write(SPREAD, [upsert("a", SHARDS[1], 2)])
            return dynamodb.delete_item(**request)

    assert store(Late()).remove(VIEW, a_key("device", "a")) == 1
    assert places(dynamodb) == ["v#b", "v@@1#b"]
    dynamodb.delete_item(TableName="views", Key={"pk": {"S": "v#b"}, "sk": {"S": "1970-01-01T00:01:00.000Z"}})
    assert store(dynamodb).partitions(VIEW, a_key("device", "b")) == {"v#b"}
    store(dynamodb).remove(VIEW, a_key("device", "b"))
    assert dynamodb.scan(TableName="views", ConsistentRead=True)["Items"] == []


def test_a_view_is_dropped_with_its_parts_and_no_other() -> None:
    dynamodb = memory()
    for name in ("v", "v@2", "v2"):
        store(dynamodb).write(ViewSpec(name, ("device",), AGGREGATES, spread=2), [upsert("a", SHARDS[0], 2)])
    assert sum(store(dynamodb).drop("v")) == 2 + 1, "a row, its part, and its key"
    assert places(dynamodb) == ["v2#a", "v2@@1#a", "v@2#a", "v@2@@1#a"]
    for name, keys in (("v", []), ("v@2", ["a"]), ("v2", ["a"])):
        assert list(store(dynamodb).keys(replace(VIEW, name=name))) == keys


def test_what_a_batch_leaves_unread_is_read_again() -> None:
    """DynamoDB answers in part when it is throttled or the answer is large; left again and again, it says so."""
    dynamodb = memory()
    store(dynamodb).write(SPREAD, [upsert("a", shard, 2) for shard in SHARDS])

    class Parts:
        def __init__(self, at_once: int) -> None:
            self.at_once = at_once

        def __getattr__(self, name: str) -> Any:
            return getattr(dynamodb, name)

        def batch_get_item(self, RequestItems: Any) -> Any:  # noqa: N803 (boto3's name)
            ((table, request),) = RequestItems.items()
            some, rest = request["Keys"][: self.at_once], request["Keys"][self.at_once :]
            answer = (
                dynamodb.batch_get_item(RequestItems={table: {**request, "Keys": some}}) if some else {"Responses": {}}
            )
            return answer | {"UnprocessedKeys": {table: {"Keys": rest}} if rest else {}}

    expected = values(AGGREGATES, merge(AGGREGATES, [upsert("a", shard, 2).partial for shard in SHARDS]))
    (row,) = store(Parts(1)).windows(VIEW, ("a",))
    assert {name: row[name] for name in expected} == expected
    with pytest.raises(Throttled, match="left 3 items unread 4 times"):
        store(Parts(0), attempts=4).windows(VIEW, ("a",))


@pytest.mark.parametrize("spread", [1, 2, 7, 100])
def test_neighbouring_shards_lie_evenly(spread: int) -> None:
    """Also those that shards were split into, which are numbered on; a shard's late slots lie beside its own."""
    for first in (0, 8, 120):
        parts = [part_of(f"shardId-{first + number:012d}/0", spread) for number in range(3 * spread)]
        assert sorted(parts) == sorted([*range(1, spread + 1)] * 3)
    assert part_of("shardId-000000000004/0", spread) == part_of("shardId-000000000004/17", spread)
    assert 1 <= part_of("lake/3", spread) <= spread


@pytest.mark.parametrize("spread", [0, -1, 101])
def test_a_spread_out_of_bounds_is_refused(spread: int) -> None:
    with pytest.raises(UsageError, match="is not between 1 and 100"):
        ViewSpec("v", ("device",), AGGREGATES, spread=spread)
