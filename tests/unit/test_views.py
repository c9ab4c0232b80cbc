"""Views converge: whatever is written twice, late or from two processes, each slot holds its newest version."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.aggregates.merging import merge, values
from headwater.errors import Throttled, UsageError
from headwater.sinks.views.items import ViewSpec
from headwater.sinks.views.slots import Upsert
from headwater.testing.dynamodb import MemoryDynamoDB
from tests.views import AGGREGATES, SPREAD, VIEW, memory, store, upsert

upserts = st.builds(upsert, st.sampled_from("ab"), st.sampled_from(["s1/0", "s1/9", "s2/0"]), st.integers(1, 20))


@settings(max_examples=80)
@given(
    flushes=st.lists(st.tuples(st.integers(0, 2), st.lists(upserts, max_size=6)), max_size=12),
    bound=st.sampled_from([350_000, 150, 10]),
    spread=st.lists(st.sampled_from([1, 2, 3]), min_size=3, max_size=3),
)
def test_slots_converge(flushes: list[tuple[int, list[Upsert]]], bound: int, spread: list[int]) -> None:
    """Three writers with caches of their own, in any order, items that outgrow their bound included; of several
    deployments, that would spread rows differently."""
    dynamodb = memory()
    writers = [store(dynamodb, max_item_bytes=bound) for _ in range(3)]
    newest: dict[tuple[str, str], Upsert] = {}
    for writer, batch in flushes:
        writers[writer].write(replace(VIEW, spread=spread[writer]), batch)
        for one in batch:
            place = (str(one.key[0]), one.slot)
            if place not in newest or newest[place].version < one.version:
                newest[place] = one
    for device in "ab":
        partials = [one.partial for (key, _), one in newest.items() if key == device]
        rows = store(dynamodb).windows(VIEW, (device,))
        if not partials:
            assert rows == []
            continue
        expected = values(AGGREGATES, merge(AGGREGATES, partials))
        assert [{name: row[name] for name in expected} for row in rows] == [expected]


def test_a_plain_reader_finds_final_values() -> None:
    """What DynamoDB holds has the merged values as plain attributes."""
    dynamodb = memory()
    store(dynamodb).write(VIEW, [upsert("a", "s1/0", 2), upsert("a", "s2/0", 3)])
    item = dynamodb.get_item(
        TableName="views", Key={"pk": {"S": "v#a"}, "sk": {"S": "1970-01-01T00:01:00.000Z"}}, ConsistentRead=True
    )["Item"]
    assert item["n"] == {"N": "7"}
    assert Decimal(item["total"]["N"]) == Decimal("2.25")
    assert item["device"] == {"S": "a"}
    assert item["window_end"] == {"S": "1970-01-01T00:02:00.000Z"}


class Rough:
    """A client whose puts are throttled, or carried out with the answer lost, as the script says."""

    def __init__(self, client: Any, script: str) -> None:
        self._client = client
        self._script = list(script)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def put_item(self, **request: Any) -> Any:
        step = self._script.pop(0) if self._script else "."
        if step == "t":
            raise ClientError({"Error": {"Code": "ProvisionedThroughputExceededException", "Message": "-"}}, "PutItem")
        answer = self._client.put_item(**request)
        if step == "l":
            raise ReadTimeoutError(endpoint_url="test")
        return answer


@pytest.mark.parametrize("script", ["tt.", "l", "tl.", "ltl", ".l", ".tl", "..l", "..tt"])
@pytest.mark.parametrize("view", [VIEW, SPREAD], ids=["plain", "spread"])
def test_throttled_and_lost_answers(script: str, view: ViewSpec) -> None:
    dynamodb = memory()
    report = store(Rough(dynamodb, script)).write(view, [upsert("a", "s1/0", 2)])
    assert report.written + report.skipped == 1
    assert store(dynamodb).windows(VIEW, ("a",))[0]["n"] == 3


def test_throttled_for_good_says_so() -> None:
    with pytest.raises(Throttled, match="'views' refused 3 times"):
        store(Rough(memory(), "t" * 9), attempts=3).write(VIEW, [upsert("a", "s1/0", 2)])


def test_a_missing_table_is_named() -> None:
    with pytest.raises(UsageError, match="no DynamoDB table 'views'"):
        store(MemoryDynamoDB()).write(VIEW, [upsert("a", "s1/0", 2)])


def test_list_by_prefix() -> None:
    dynamodb = memory()
    store(dynamodb).write(VIEW, [upsert(device, "s1/0", 2) for device in ("aa", "ab", "b")])
    assert [row["device"] for row in store(dynamodb).rows(VIEW, "a")] == ["aa", "ab"]
    assert len(list(store(dynamodb).rows(VIEW, limit=1))) == 1
