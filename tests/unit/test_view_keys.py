"""The keys that a view has: each row is found by them, in order, and nothing else is read."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.clock import ManualClock
from headwater.errors import Throttled
from headwater.sinks.views.items import MAX_KEY_BYTES, ViewSpec
from headwater.testing.dynamodb import MemoryDynamoDB
from tests.typed import a_key
from tests.views import AGGREGATES, VIEW, memory, rows_of, store, upsert

MINUTE, DAY = 60_000, 86_400_000
SHARDS = [f"shardId-{number:012d}/0" for number in range(3)]

rows = st.dictionaries(st.tuples(st.text("ab#@|\\=é", max_size=3), st.integers(0, 12)), st.integers(1, 5), max_size=25)


def written(found: dict[tuple[str, int], int]) -> MemoryDynamoDB:
    """Rows by device and minute, spread over so many partitions; beside another view with the same keys."""
    dynamodb = memory()
    writer = store(dynamodb)
    for (device, minute), spread in found.items():
        view = ViewSpec("v", ("device",), AGGREGATES, spread=spread)
        writer.write(view, [upsert(device, shard, 2, minute * MINUTE) for shard in SHARDS])
        writer.write(replace(VIEW, name="w"), [upsert(f"{device}x", SHARDS[0], 2)])
    return dynamodb


def shown(row: dict[str, object]) -> tuple[str, str]:
    return str(row["device"]), str(row["window_start"])


def place(device: str, minute: int) -> tuple[str, str]:
    return device, f"1970-01-01T00:{minute:02d}:00.000Z"


def key(device: str) -> str:
    return device.replace("\\", "\\\\").replace("|", "\\|")


@settings(max_examples=100, deadline=None)
@given(
    found=rows,
    prefix=st.sampled_from(["", "a", "b#", "\\", "é"]),
    limit=st.integers(1, 7),
    span=st.none() | st.tuples(st.integers(0, 12), st.integers(0, 12)),
)
def test_pages_hold_each_row_once_in_order(
    found: dict[tuple[str, int], int], prefix: str, limit: int, span: tuple[int, int] | None
) -> None:
    """Whatever the keys look like, rows of every spread, of a prefix and of a time."""
    wanted = [
        place(device, minute)
        for device, minute in sorted(found, key=lambda one: (key(one[0]), one[1]))
        if key(device).startswith(prefix) and (span is None or span[0] <= minute < span[1])
    ]
    start_ms, stop_ms = (None, None) if span is None else (span[0] * MINUTE, span[1] * MINUTE)
    reader, got, after = store(written(found)), [], None
    for _ in range(len(wanted) + 2):
        page, after = reader.page(VIEW, prefix, limit, after, start_ms, stop_ms)
        assert len(page) <= limit
        assert all(row["n"] == 3 * len(SHARDS) for row in page)
        got += [shown(row) for row in page]
        if after is None:
            break
    assert got == wanted
    if span is None:
        assert [shown(row) for row in reader.rows(VIEW, prefix)] == wanted


@settings(max_examples=60, deadline=None)
@given(found=rows, minutes=st.sets(st.integers(0, 12)))
def test_windows_of_all_keys(found: dict[tuple[str, int], int], minutes: set[int]) -> None:
    """A few windows are read by name, many as a range."""
    got = store(written(found)).at(VIEW, [minute * MINUTE for minute in minutes])
    assert sorted(map(shown, got)) == sorted(place(*one) for one in found if one[1] in minutes)


@given(count=st.integers(0, 12), limit=st.none() | st.integers(1, 14))
def test_the_newest_windows_of_a_key(count: int, limit: int | None) -> None:
    dynamodb = memory()
    writer = store(dynamodb, max_item_bytes=10)  # every slot is an item of its own
    writer.write(VIEW, [upsert("a", shard, 2, minute * MINUTE) for minute in range(count) for shard in SHARDS])
    got = writer.windows(VIEW, ("a",), limit=limit, newest_first=True)
    assert list(map(shown, got)) == [place("a", minute) for minute in range(count)][::-1][:limit]


class Counting:
    """How many items were read, by operation."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.read: Counter[str] = Counter()

    def get_paginator(self, operation: str) -> Any:
        def pages(**request: Any) -> Any:
            for page in self._client.get_paginator(operation).paginate(**request):
                self.read[operation] += len(page["Items"])
                yield page

        return type("Paginator", (), {"paginate": staticmethod(pages)})

    def batch_get_item(self, **request: Any) -> Any:
        answer = self._client.batch_get_item(**request)
        self.read["batch"] += sum(len(one["Keys"]) for one in request["RequestItems"].values())
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_what_is_not_shown_is_not_read() -> None:
    """A thousand rows of another view, and of other times, cost nothing."""
    found = {(f"d{number}", minute): 1 for number in range(10) for minute in range(10)}
    client = Counting(written(found))
    writer = store(client)
    writer.write(replace(VIEW, name="other"), [upsert(f"x{number}", SHARDS[0], 2) for number in range(1_000)])
    client.read.clear()
    assert len(list(writer.at(VIEW, [5 * MINUTE]))) == 10
    assert client.read == {"query": 10, "batch": 10}, "its keys, and a row of each"
    client.read.clear()
    rows, _ = writer.page(VIEW, "d7", 100, None, 5 * MINUTE, 8 * MINUTE)
    assert len(rows) == 3
    assert client.read["query"] <= 10 + 3
    assert client.read["scan"] == client.read["batch"] == 0


class Meanwhile:
    """Another writer comes just before the item that lists the key is deleted, or just after."""

    def __init__(self, client: Any, other: Any, *, before: bool) -> None:
        self._client, self._other, self._before = client, other, before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def delete_item(self, **request: Any) -> Any:
        listed = "@@keys#" in request["Key"]["pk"]["S"]
        if listed and self._before:
            self._other()
        answer = self._client.delete_item(**request)
        if listed and not self._before:
            self._other()
        return answer


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("spread", [1, 2])
@pytest.mark.parametrize("new", [True, False])
def test_a_row_that_begins_while_its_key_is_forgotten_is_listed(before: bool, spread: int, new: bool) -> None:
    """By a writer that is new, or one that knew the row; which then has found the key, or has not."""
    dynamodb, view = memory(), replace(VIEW, spread=spread)
    known = store(dynamodb)
    known.write(view, [upsert("a", SHARDS[0], 1)])

    def other() -> None:
        (store(dynamodb) if new else known).write(view, [upsert("a", SHARDS[0], 2)])

    assert store(Meanwhile(dynamodb, other, before=before)).remove(view, a_key("device", "a")) == 1
    assert [row["n"] for row in store(dynamodb).windows(VIEW, ("a",))] == [3]
    assert list(store(dynamodb).keys(VIEW)) == ["a"]


def test_keys_that_could_not_be_listed_are_when_the_flush_comes_again() -> None:
    """The rows are there, known to the writer, and have nothing newer."""
    dynamodb = memory()

    class Refusing:
        refuses = True

        def __getattr__(self, name: str) -> Any:
            return getattr(dynamodb, name)

        def put_item(self, **request: Any) -> Any:
            if self.refuses and "@@keys#" in request["Item"]["pk"]["S"]:
                raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "-"}}, "PutItem")
            return dynamodb.put_item(**request)

    client = Refusing()
    writer, batch = store(client, attempts=2), [upsert(device, SHARDS[0], 1) for device in "ab"]
    with pytest.raises(Throttled):
        writer.write(VIEW, batch)
    assert list(writer.keys(VIEW)) == []
    client.refuses = False
    assert writer.write(VIEW, batch).skipped == 2
    assert list(writer.keys(VIEW)) == ["a", "b"]


def test_rows_that_no_cache_holds_are_listed() -> None:
    """A flush of more rows than are remembered."""
    dynamodb = memory()
    store(dynamodb, cache_bytes=2_000).write(VIEW, [upsert(f"{number:03d}", SHARDS[0], 1) for number in range(300)])
    assert list(store(dynamodb).keys(VIEW)) == [f"{number:03d}" for number in range(300)]


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 3_000), st.sampled_from([None, DAY, 20 * DAY])), max_size=12
    )
)
def test_a_key_is_kept_as_long_as_its_rows(steps: list[tuple[int, int, int | None]]) -> None:
    """Two writers, windows in any order, a `keep` that changes; DynamoDB deletes all that has ended."""
    dynamodb, clock = memory(), ManualClock(0)
    writers = [store(dynamodb, clock) for _ in range(2)]
    for writer, minute, keep_ms in steps:
        writers[writer].write(replace(VIEW, keep_ms=keep_ms), [upsert("a", SHARDS[writer], 1, minute * MINUTE)])
    for _ in range(30):
        for item in dynamodb.scan(TableName="views", ConsistentRead=True)["Items"]:
            if "expires" in item and int(item["expires"]["N"]) * 1000 <= clock.now_ms():
                dynamodb.delete_item(TableName="views", Key={"pk": item["pk"], "sk": item["sk"]})
        if rows_of(dynamodb):
            assert list(store(dynamodb, clock).keys(VIEW)) == ["a"]
        elif clock.now_ms() > 28 * DAY and all(keep_ms for _, _, keep_ms in steps):
            assert dynamodb.scan(TableName="views", ConsistentRead=True)["Items"] == [], (
                "a key goes a day after its rows"
            )
        clock.advance(DAY)


def test_a_key_is_put_once_a_day() -> None:
    """However many windows it has; others are looked up only, a hundred in a request."""
    dynamodb = memory()
    puts: Counter[str] = Counter()

    class Puts:
        def __getattr__(self, name: str) -> Any:
            return getattr(dynamodb, name)

        def put_item(self, **request: Any) -> Any:
            puts["key" if "@@keys#" in request["Item"]["pk"]["S"] else "row"] += 1
            return dynamodb.put_item(**request)

    writer = store(Puts(), ManualClock(0))
    for minute in range(3 * 1440):
        writer.write(replace(VIEW, keep_ms=DAY), [upsert("a", SHARDS[0], 1, minute * MINUTE)])
    assert puts == {"row": 3 * 1440, "key": 3}


def test_a_key_that_is_too_long_is_refused_before_its_row_is_written(caplog: pytest.LogCaptureFixture) -> None:
    dynamodb = memory()
    report = store(dynamodb).write(VIEW, [upsert("é" * 512, SHARDS[0], 1), upsert("a" * MAX_KEY_BYTES, SHARDS[0], 1)])
    assert (report.refused, report.written) == (1, 1)
    assert list(store(dynamodb).keys(VIEW)) == ["a" * MAX_KEY_BYTES]
    assert len(rows_of(dynamodb)) == 1
    assert "at most 1,023 bytes" in caplog.records[0].reason  # type: ignore[attr-defined]  # a field of the line's own
