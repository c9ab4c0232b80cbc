"""The DynamoDB in memory, where no emulator shows what the service may do: stale reads, keys left, scripted faults."""

from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from headwater.clock import ManualClock
from headwater.testing import MemoryDynamoDB, Staleness

KEY = {"pk": {"S": "a"}}


def written(staleness: Staleness | None = None, versions: int = 2) -> MemoryDynamoDB:
    """A table `t` with one item, written so many times."""
    dynamodb = MemoryDynamoDB(staleness)
    dynamodb.create_table(TableName="t", KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}])
    for version in range(versions):
        dynamodb.put_item(TableName="t", Item={**KEY, "v": {"N": str(version)}})
    return dynamodb


def seen(dynamodb: MemoryDynamoDB, times: int = 40, **options: Any) -> list[Any]:
    """What so many reads see of the item, each by get, batch, query and scan."""
    found: list[Any] = []
    for _ in range(times):
        found.append(dynamodb.get_item(TableName="t", Key=KEY, **options).get("Item"))
        found += dynamodb.batch_get_item(RequestItems={"t": {"Keys": [KEY], **options}})["Responses"]["t"] or [None]
        condition: Any = {"KeyConditionExpression": "pk = :p", "ExpressionAttributeValues": {":p": {"S": "a"}}}
        found += dynamodb.query(TableName="t", **condition, **options)["Items"] or [None]
        found += dynamodb.scan(TableName="t", **options)["Items"] or [None]
    return [one and one["v"]["N"] for one in found]


def test_a_consistent_read_sees_the_last_write() -> None:
    assert set(seen(written(), ConsistentRead=True)) == {"1"}


def test_any_other_read_may_see_the_write_before() -> None:
    """By seed, of an item that was changed, made or deleted."""
    assert set(seen(written())) == {"0", "1"}
    assert set(seen(written(versions=1))) == {None, "0"}
    deleted = written()
    deleted.delete_item(TableName="t", Key=KEY)
    assert set(seen(deleted)) == {"1", None}
    runs = [seen(written(Staleness(seed=seed))) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_with_a_clock_a_write_is_seen_by_everybody_after_a_second() -> None:
    clock = ManualClock()
    dynamodb = written(Staleness(clock=clock))
    clock.advance(999)
    assert set(seen(dynamodb)) == {"0", "1"}
    clock.advance(1)
    assert set(seen(dynamodb)) == {"1"}


def test_keys_are_left_and_one_at_least_is_read() -> None:
    dynamodb = written(Staleness(unprocessed=1.0))
    keys = [{"pk": {"S": str(at)}} for at in range(5)]
    answer = dynamodb.batch_get_item(RequestItems={"t": {"Keys": keys, "ConsistentRead": True}})
    assert answer["UnprocessedKeys"] == {"t": {"Keys": keys[1:], "ConsistentRead": True}}


def test_a_lost_answer_was_carried_out_and_a_failed_call_was_not() -> None:
    dynamodb = written()
    dynamodb.faults.lose_answer("put_item")
    with pytest.raises(ReadTimeoutError):
        dynamodb.put_item(TableName="t", Item={**KEY, "v": {"N": "7"}})
    dynamodb.faults.fail_next("put_item", "ProvisionedThroughputExceededException")
    with pytest.raises(ClientError):
        dynamodb.put_item(TableName="t", Item={**KEY, "v": {"N": "8"}})
    assert dynamodb.stored("t", "a") == {**KEY, "v": {"N": "7"}}


@pytest.mark.parametrize("request_", [{"ReturnValues": "UPDATED_NEW"}, {"ConditionExpression": "NOT v = v"}])
def test_what_is_not_supported_is_said(request_: dict[str, Any]) -> None:
    with pytest.raises(NotImplementedError):
        written().put_item(TableName="t", Item=KEY, **request_)
