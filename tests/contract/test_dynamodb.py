"""One suite over the DynamoDB in memory, the embedded AWS that serves it, and DynamoDB Local: what we rely on, all do.

DynamoDB Local is Amazon's own. Only it knows the service's reserved words, and only the one in memory answers a read
that is not consistent with an older item (tests/unit/test_memory_dynamodb.py).
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from headwater.commands.local.embedded import EmbeddedAws
from headwater.sinks.views.statements import insertion, replacement
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.testing.items import MAX_ITEM_BYTES, item_size
from tests.kcl_servers import dynamodb_local

CREDENTIALS: Any = {"region_name": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}
A = {"pk": {"S": "a"}, "sk": {"S": "1"}}


@pytest.fixture(scope="module")
def local() -> Iterator[Any]:
    if not (shutil.which("java") and shutil.which("mvn")):
        reason = "DynamoDB Local needs Java and Maven"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    with dynamodb_local() as url:
        yield boto3.client("dynamodb", endpoint_url=url, **CREDENTIALS)


@pytest.fixture(scope="module")
def embedded() -> Iterator[Any]:
    with EmbeddedAws() as aws:
        yield boto3.client("dynamodb", endpoint_url=aws.endpoint, **CREDENTIALS)


@pytest.fixture(params=["memory", "embedded", "local"])
def dynamodb(request: pytest.FixtureRequest) -> Any:
    return MemoryDynamoDB() if request.param == "memory" else request.getfixturevalue(request.param)


@pytest.fixture
def table(dynamodb: Any) -> str:
    """A table's name, with `pk` and `sk`."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    dynamodb.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": one, "AttributeType": "S"} for one in ("pk", "sk")],
        BillingMode="PAY_PER_REQUEST",
    )
    dynamodb.get_waiter("table_exists").wait(TableName=name)
    return name


def refused(call: Any, **request: Any) -> tuple[str, str]:
    """The error's code and message."""
    with pytest.raises(ClientError) as caught:
        call(**request)
    return caught.value.response["Error"]["Code"], caught.value.response["Error"]["Message"]


def item(dynamodb: Any, table: str, key: Any = A) -> Any:
    return dynamodb.get_item(TableName=table, Key=key, ConsistentRead=True).get("Item")


def sized(size: int) -> dict[str, Any]:
    """An item of exactly so many bytes."""
    return {**A, "body": {"S": "x" * (size - item_size({**A, "body": {"S": ""}}))}}


def test_an_item_is_what_was_put(dynamodb: Any, table: str) -> None:
    put = {**A, "n": {"N": "-1.5"}, "l": {"L": [{"M": {"x": {"BOOL": True}}}, {"NULL": True}]}, "b": {"B": b"\x00\xff"}}
    dynamodb.put_item(TableName=table, Item=put)
    assert item(dynamodb, table) == put
    dynamodb.delete_item(TableName=table, Key=A)
    dynamodb.delete_item(TableName=table, Key=A)
    assert item(dynamodb, table) is None


def test_a_write_answers_with_what_was_and_is_there(dynamodb: Any, table: str) -> None:
    for wanted, found in (("NONE", None), ("ALL_OLD", None), ("ALL_OLD", {**A, "n": {"N": "2"}})):
        request = {"ExpressionAttributeValues": {":n": {"N": "2"}}, "ReturnValues": wanted}
        answer = dynamodb.update_item(TableName=table, Key=A, UpdateExpression="SET n = :n", **request)
        assert answer.get("Attributes") == found
        if wanted == "NONE":
            dynamodb.delete_item(TableName=table, Key=A)
    answer = dynamodb.update_item(
        TableName=table,
        Key=A,
        UpdateExpression="SET t = :t ADD n :n, m :n",
        ExpressionAttributeValues={":n": {"N": "1"}, ":t": {"S": "x"}},
        ReturnValues="ALL_NEW",
    )
    assert answer["Attributes"] == {**A, "n": {"N": "3"}, "m": {"N": "1"}, "t": {"S": "x"}}
    assert dynamodb.delete_item(TableName=table, Key=A, ReturnValues="ALL_OLD")["Attributes"] == answer["Attributes"]


@pytest.mark.parametrize(
    ("condition", "values", "holds"),
    [
        ("n = :v", {"N": "1.0"}, True),
        ("n = :v", {"S": "1"}, False),
        ("n <> :v", {"S": "1"}, True),
        ("n BETWEEN :v AND :v", {"N": "1"}, True),
        ("absent = :v", {"N": "1"}, False),
        ("absent <> :v", {"N": "1"}, True),
        ("absent < :v", {"N": "1"}, False),
        ("n < :v OR n = :v AND absent = :v", {"N": "1"}, False),
        ("(n < :v OR n = :v) AND attribute_exists(n)", {"N": "1"}, True),
        ("begins_with(s, :v)", {"S": "wo"}, True),
        ("begins_with(absent, :v)", {"S": "wo"}, False),
        ("attribute_not_exists(absent) AND s > :v", {"S": "Word"}, True),
    ],
)
def test_a_condition(dynamodb: Any, table: str, condition: str, values: Any, holds: bool) -> None:
    """Both decide alike, with attributes of another type or none."""
    dynamodb.put_item(TableName=table, Item={**A, "n": {"N": "1"}, "s": {"S": "word"}})
    request = {
        "TableName": table,
        "Key": A,
        "UpdateExpression": "SET done = :v",
        "ConditionExpression": condition,
        "ExpressionAttributeValues": {":v": values},
    }
    if holds:
        dynamodb.update_item(**request)
    else:
        assert refused(dynamodb.update_item, **request)[0] == "ConditionalCheckFailedException"
    assert ("done" in item(dynamodb, table)) == holds


def test_a_refusal_says_what_is_there(dynamodb: Any, table: str) -> None:
    """Only when it is asked to, and only of an item that is there."""
    dynamodb.put_item(TableName=table, Item={**A, "n": {"N": "1"}})
    with pytest.raises(ClientError) as caught:
        dynamodb.put_item(
            TableName=table,
            Item=A,
            ConditionExpression="attribute_not_exists(pk)",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    assert caught.value.response["Item"] == {**A, "n": {"N": "1"}}  # type: ignore[typeddict-item]  # this error has it


def test_an_update_sets_removes_and_appends(dynamodb: Any, table: str) -> None:
    """Indexes are those before the update, and so are the values that are read."""
    numbers = [{"N": str(at)} for at in range(4)]
    for expression, values in (
        ("SET l = list_append(if_not_exists(l, :none), :some), one = :one", {":none": [], ":some": numbers}),
        ("SET two = one REMOVE l[0], l[2], gone", {}),
    ):
        given = {name: {"L": value} for name, value in values.items()} | ({":one": {"N": "1"}} if values else {})
        dynamodb.update_item(
            TableName=table,
            Key=A,
            UpdateExpression=expression,
            **({"ExpressionAttributeValues": given} if given else {}),
        )
    want = {**A, "l": {"L": [numbers[1], numbers[3]]}, "one": {"N": "1"}, "two": {"N": "1"}}
    assert item(dynamodb, table) == want


def test_an_item_holds_400_kb(dynamodb: Any, table: str) -> None:
    """Of names and values together; a byte more is refused, put or updated."""
    dynamodb.put_item(TableName=table, Item=sized(MAX_ITEM_BYTES))
    assert refused(dynamodb.put_item, TableName=table, Item=sized(MAX_ITEM_BYTES + 1)) == (
        "ValidationException",
        "Item size has exceeded the maximum allowed size",
    )
    code, message = refused(
        dynamodb.update_item,
        TableName=table,
        Key=A,
        UpdateExpression="SET n = :n",
        ExpressionAttributeValues={":n": {"N": "1"}},
    )
    assert (code, message) == ("ValidationException", "Item size to update has exceeded the maximum allowed size")
    assert item(dynamodb, table) == sized(MAX_ITEM_BYTES)


@pytest.mark.parametrize(
    "value",
    [
        {"N": "123456"},
        {"N": "-0.00120"},
        {"N": "100000"},
        {"B": b"12345"},
        {"NULL": True},
        {"BOOL": False},
        {"L": []},
        {"L": [{"N": "1"}, {"S": "é"}]},
        {"M": {"name": {"S": "v"}, "other": {"L": [{"N": "7"}]}}},
    ],
)
def test_a_value_is_as_large_as_the_service_counts(dynamodb: Any, table: str, value: Any) -> None:
    """An item with it is just full at 400 KB, never above our own figure."""
    spare = MAX_ITEM_BYTES - item_size({**A, "v": value, "body": {"S": ""}})
    assert spare > 0
    dynamodb.put_item(TableName=table, Item={**A, "v": value, "body": {"S": "x" * spare}})
    over = {**A, "v": value, "body": {"S": "x" * (spare + 16)}}
    assert refused(dynamodb.put_item, TableName=table, Item=over)[0] == "ValidationException"


@pytest.mark.parametrize("key", [{"S": ""}, {"S": "x" * 2049}, {"N": "1"}])
def test_a_hash_key_is_text_of_1_to_2048_bytes(dynamodb: Any, table: str, key: Any) -> None:
    dynamodb.put_item(TableName=table, Item={"pk": {"S": "x" * 2048}, "sk": {"S": "x" * 1024}})
    assert refused(dynamodb.put_item, TableName=table, Item={**A, "pk": key})[0] == "ValidationException"
    assert refused(dynamodb.get_item, TableName=table, Key={**A, "pk": key})[0] == "ValidationException"


@pytest.mark.parametrize(
    "request_",
    [
        {"ConditionExpression": "attribute_exists(" + "a" * 4096 + ")"},
        {"ConditionExpression": ""},
        {"ConditionExpression": "n = :absent"},
        {"ConditionExpression": "#absent = n"},
        {"ConditionExpression": "n = :v", "ExpressionAttributeValues": {":v": {"N": "1"}, ":more": {"N": "1"}}},
        {"ConditionExpression": "attribute_exists(n)", "ExpressionAttributeNames": {"#n": "n"}},
        {"ConditionExpression": "attribute_exists(n)", "ExpressionAttributeValues": {}},
        {
            "ConditionExpression": " OR ".join(["n = :v"] * 152),
            "ExpressionAttributeValues": {":v": {"N": "1"}},
        },
    ],
)
def test_an_expression_that_is_refused(dynamodb: Any, table: str, request_: Any) -> None:
    """Longer than 4 KB, of more than 300 operators, empty, or with a placeholder that is unused or undefined."""
    assert refused(dynamodb.put_item, TableName=table, Item=A, **request_)[0] == "ValidationException"


def test_a_page_ends_at_1_mb(dynamodb: Any, table: str) -> None:
    """In order of the range key, either way; the next one starts behind it, and filters count what was read."""
    for at in range(6):
        dynamodb.put_item(TableName=table, Item={"pk": {"S": "a"}, "sk": {"S": str(at)}, "body": {"S": "x" * 300_000}})
    request = {
        "TableName": table,
        "ConsistentRead": True,
        "KeyConditionExpression": "pk = :p",
        "ExpressionAttributeValues": {":p": {"S": "a"}},
    }
    first = dynamodb.query(**request)
    assert [one["sk"]["S"] for one in first["Items"]] == ["0", "1", "2", "3"]
    assert first["LastEvaluatedKey"] == {"pk": {"S": "a"}, "sk": {"S": "3"}}
    pages = [
        [one["sk"]["S"] for one in page["Items"]]
        for page in dynamodb.get_paginator("query").paginate(ScanIndexForward=False, **request)
    ]
    assert pages == [["5", "4", "3", "2"], ["1", "0"]]
    filtered = dynamodb.scan(
        TableName=table,
        ConsistentRead=True,
        FilterExpression="sk > :s",
        ExpressionAttributeValues={":s": {"S": "2"}},
        ProjectionExpression="sk",
    )
    assert (filtered["Items"], filtered["ScannedCount"]) == ([{"sk": {"S": "3"}}], 4)
    assert "LastEvaluatedKey" in filtered


def test_pages_of_so_many_items(dynamodb: Any, table: str) -> None:
    for pk in ("a", "b"):
        for sk in range(3):
            dynamodb.put_item(TableName=table, Item={"pk": {"S": pk}, "sk": {"S": str(sk)}})
    scan = dynamodb.get_paginator("scan")
    found = scan.paginate(TableName=table, PaginationConfig={"PageSize": 2}, ConsistentRead=True)
    pages = [[(one["pk"]["S"], one["sk"]["S"]) for one in page["Items"]] for page in found]
    assert max(map(len, pages)) == 2
    assert sorted(one for page in pages for one in page) == [(pk, str(sk)) for pk in "ab" for sk in range(3)]


def test_a_batch_of_100_keys(dynamodb: Any, table: str) -> None:
    """Each once; those that are not there are left out."""
    keys = [{"pk": {"S": "a"}, "sk": {"S": f"{at:03d}"}} for at in range(101)]
    for key in keys[:3]:
        dynamodb.put_item(TableName=table, Item=key)
    ask = dynamodb.batch_get_item
    answer = ask(RequestItems={table: {"Keys": keys[:100], "ConsistentRead": True}})
    assert sorted(one["sk"]["S"] for one in answer["Responses"][table]) == ["000", "001", "002"]
    assert answer["UnprocessedKeys"] == {}
    assert refused(ask, RequestItems={table: {"Keys": keys}})[0] == "ValidationException"
    assert refused(ask, RequestItems={table: {"Keys": [keys[0], keys[0]]}})[0] == "ValidationException"


def test_a_batch_answers_16_mb_at_most(dynamodb: Any, table: str) -> None:
    """The rest are UnprocessedKeys, to be asked for again with the same request."""
    keys = [{"pk": {"S": "a"}, "sk": {"S": f"{at:03d}"}} for at in range(45)]
    for key in keys:
        dynamodb.put_item(TableName=table, Item={**key, "body": {"S": "x" * 390_000}})
    wanted = {"Keys": keys, "ConsistentRead": True}
    answer = dynamodb.batch_get_item(RequestItems={table: wanted})
    left = answer["UnprocessedKeys"][table]
    assert left["ConsistentRead"] is True
    assert 0 < len(left["Keys"]) < 10
    again = dynamodb.batch_get_item(RequestItems=answer["UnprocessedKeys"])
    found = [*answer["Responses"][table], *again["Responses"][table]]
    assert sorted(one["sk"]["S"] for one in found) == [key["sk"]["S"] for key in keys]


def test_each_statement_of_a_batch_stands_for_itself(dynamodb: Any, table: str) -> None:
    def run(*some: Any) -> list[Any]:
        told = [one | {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"} for one in some]
        answers = dynamodb.batch_execute_statement(Statements=told)["Responses"]
        return [(one.get("Error", {}).get("Code"), one.get("Error", {}).get("Item")) for one in answers]

    def new(key: str, **more: Any) -> Any:
        return insertion(table, {"pk": {"S": key}, "sk": {"S": "1"}, "rev": {"N": "1"}, **more})

    def change(key: str, known: int, **more: Any) -> Any:
        stored = {"pk": {"S": key}, "sk": {"S": "1"}, "rev": {"N": str(known + 1)}, **more}
        return replacement(table, stored, known, frozenset({"more", "events"}))

    slots = {"M": {"s/0": {"M": {"v": {"S": "1"}, "p": {"B": b"\x00x"}}}}}
    assert run(new("a", slots=slots, more={"S": "x"}), new("b")) == [(None, None)] * 2
    assert run(new("a"), new("c")) == [("DuplicateItem", None), (None, None)]
    found = run(change("a", 1, slots=slots, events={"N": "4"}), change("b", 9), change("z", 1))
    b = {"pk": {"S": "b"}, "sk": {"S": "1"}, "rev": {"N": "1"}}
    assert found == [(None, None), ("ConditionalCheckFailed", b), ("ConditionalCheckFailed", None)]
    assert item(dynamodb, table) == {**A, "rev": {"N": "2"}, "slots": slots, "events": {"N": "4"}}
    large = {"S": "x" * MAX_ITEM_BYTES}
    assert run(change("a", 2, big=large), change("b", 1)) == [("ValidationError", None), (None, None)]
    assert run(new("d", big=large), new("e" * 2_049), new("f")) == [("ValidationError", None)] * 2 + [(None, None)]
    for wrong in ([new("g"), new("g")], [new(f"h{number}") for number in range(26)]):
        assert refused(dynamodb.batch_execute_statement, Statements=wrong)[0] == "ValidationException"


def test_a_transaction_is_all_or_nothing(dynamodb: Any, table: str) -> None:
    """Its refusal says for each action why; an item above 400 KB in the second undoes the first."""
    b = {"pk": {"S": "b"}, "sk": {"S": "1"}}
    dynamodb.put_item(TableName=table, Item=b)
    put = {"Put": {"TableName": table, "Item": A}}
    absent = {"ConditionCheck": {"TableName": table, "Key": b, "ConditionExpression": "attribute_not_exists(pk)"}}
    with pytest.raises(ClientError) as caught:
        dynamodb.transact_write_items(TransactItems=[put, absent])
    assert caught.value.response["Error"]["Code"] == "TransactionCanceledException"
    reasons: Any = caught.value.response["CancellationReasons"]
    assert [one["Code"] for one in reasons] == ["None", "ConditionalCheckFailed"]
    large = {"Put": {"TableName": table, "Item": {**sized(MAX_ITEM_BYTES + 1), "pk": {"S": "c"}}}}
    assert refused(dynamodb.transact_write_items, TransactItems=[put, large])[0] in (
        "ValidationException",
        "TransactionCanceledException",
    )
    assert item(dynamodb, table) is None
    for _ in range(2):
        dynamodb.transact_write_items(TransactItems=[put], ClientRequestToken="once")
    assert item(dynamodb, table) == A
    other = {"Delete": {"TableName": table, "Key": A}}
    code, _ = refused(dynamodb.transact_write_items, TransactItems=[other], ClientRequestToken="once")
    assert code == "IdempotentParameterMismatchException"


def test_a_transaction_has_1_to_100_actions_on_items_of_their_own(dynamodb: Any, table: str) -> None:
    puts = [{"Put": {"TableName": table, "Item": {"pk": {"S": "a"}, "sk": {"S": str(at)}}}} for at in range(101)]
    write = dynamodb.transact_write_items
    assert refused(write, TransactItems=puts)[0] == "ValidationException"
    assert refused(write, TransactItems=[puts[0], puts[0]])[0] == "ValidationException"
    assert item(dynamodb, table, {"pk": {"S": "a"}, "sk": {"S": "0"}}) is None
    write(TransactItems=puts[:100])
    assert item(dynamodb, table, {"pk": {"S": "a"}, "sk": {"S": "99"}}) is not None


def test_a_transaction_has_4_mb_at_most(dynamodb: Any, table: str) -> None:
    large = [
        {"Put": {"TableName": table, "Item": {"pk": {"S": "a"}, "sk": {"S": str(at)}, "b": {"S": "x" * 400_000}}}}
        for at in range(11)
    ]
    assert refused(dynamodb.transact_write_items, TransactItems=large)[0] == "ValidationException"
