"""Where alerts go, and who takes them: EventBridge, SNS and SQS on moto, and the tickets of the sample subscriber."""

import contextlib
import json
from collections.abc import Iterator
from itertools import permutations
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from headwater.errors import UsageError
from headwater.processors.alerts import Rule, above
from headwater.processors.alerts.events import About, event_of
from headwater.processors.alerts.machine import Change
from headwater.processors.alerts.publishers import publish_to
from headwater.processors.definition.windows import tumbling
from headwater.processors.examples.tickets import Tickets, alert_in

RULE = Rule("hot", "device_1m", tumbling("1m"), above("mean", 30), summary="too hot")
RAISED, CLEARED = (
    event_of("plant", About.of(RULE), "dev-1", {"device": "dev-1"}, change)
    for change in (Change("raised", 60_000, 120_000, 31.0), Change("cleared", 60_000, 300_000, 27.0))
)


@pytest.fixture
def aws() -> Iterator[Any]:
    """Opens a client by service."""
    with mock_aws():
        yield lambda service: boto3.client(
            service, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
        )


def received(sqs: Any, url: str) -> list[Any]:
    found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"])
    return list(found.get("Messages", ()))


def test_a_queue_by_its_arn_or_its_url(aws: Any) -> None:
    sqs = aws("sqs")
    url = sqs.create_queue(QueueName="q")["QueueUrl"]
    for publish in publish_to(f"arn:aws:sqs:us-east-1:123456789012:q,{url}", aws).values():
        assert publish([RAISED, CLEARED]) == {}
    messages = received(sqs, url)
    assert [json.loads(one["Body"])["id"] for one in messages] == [RAISED["id"], CLEARED["id"]] * 2
    attributes = {name: value["StringValue"] for name, value in messages[0]["MessageAttributes"].items()}
    assert attributes == {"type": "headwater.alert.raised", "rule": "hot"}


def test_a_fifo_queue_drops_what_comes_again(aws: Any) -> None:
    sqs = aws("sqs")
    url = sqs.create_queue(QueueName="q.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    (publish,) = publish_to(url, aws).values()
    publish([RAISED, CLEARED])
    publish([RAISED, CLEARED])
    assert [alert_in(one["Body"]) for one in received(sqs, url)] == [RAISED, CLEARED]


def test_an_event_that_is_refused_is_no_success() -> None:
    """Each service answers 200 and names the entries that it did not take."""

    class Refusing:
        def put_events(self, **_: Any) -> Any:
            return {"FailedEntryCount": 1, "Entries": [{"EventId": "1"}, {"ErrorCode": "InternalFailure"}]}

        def publish_batch(self, **_: Any) -> Any:
            return {"Successful": [{"Id": "0"}], "Failed": [{"Id": "1", "Code": "InternalError"}]}

        def send_message_batch(self, **_: Any) -> Any:
            return {"Successful": [{"Id": "0"}], "Failed": [{"Id": "1", "Code": "InternalError"}]}

    for target in ("arn:aws:events:r:1:event-bus/b", "arn:aws:sns:r:1:t", "https://sqs.r.amazonaws.com/1/q"):
        refused = publish_to(target, lambda _: Refusing())[target]([RAISED, CLEARED])
        assert refused.keys() == {1}


@pytest.mark.parametrize("target", ["alerts", "arn:aws:s3:::bucket", "sqs://q"])
def test_targets_that_there_are_not(aws: Any, target: str) -> None:
    with pytest.raises(UsageError, match="HEADWATER_ALERTS_TO"):
        publish_to(target, aws)


def test_a_ticket_is_the_same_in_every_order(aws: Any) -> None:
    """However often its events come, and whichever first; each tells something new once."""
    dynamodb, found = aws("dynamodb"), []
    keys = {"KeySchema": [{"AttributeName": "ticket", "KeyType": "HASH"}]}
    keys |= {"AttributeDefinitions": [{"AttributeName": "ticket", "AttributeType": "S"}]}
    for at, order in enumerate(permutations([RAISED, RAISED, CLEARED, CLEARED])):
        dynamodb.create_table(TableName=f"t{at}", BillingMode="PAY_PER_REQUEST", **keys)
        tickets = Tickets(None, dynamodb, "", f"t{at}")
        assert sum(tickets.handle(event) for event in order) == 2
        (item,) = dynamodb.scan(TableName=f"t{at}", ConsistentRead=True)["Items"]
        found.append({name: value["S"] for name, value in item.items()})
    assert found == [found[0]] * len(found)
    assert found[0] == {
        "ticket": RAISED["data"]["episode"],
        "status": "closed",
        "opened_at": "1970-01-01T00:01:00.000Z",
        "closed_at": "1970-01-01T00:05:00.000Z",
        "alert": "hot",
        "alert_key": "dev-1",
        "summary": "too hot",
    }


def test_a_message_that_the_table_refuses_takes_no_other_along(aws: Any) -> None:
    """It stays in the queue, which moves it in the end; so does one whose episode is empty or too long."""
    sqs, dynamodb = aws("sqs"), aws("dynamodb")
    url = sqs.create_queue(QueueName="q", Attributes={"VisibilityTimeout": "0"})["QueueUrl"]
    keys = {"KeySchema": [{"AttributeName": "ticket", "KeyType": "HASH"}]}
    keys |= {"AttributeDefinitions": [{"AttributeName": "ticket", "AttributeType": "S"}]}
    dynamodb.create_table(TableName="t", BillingMode="PAY_PER_REQUEST", **keys)

    class Strict:
        def update_item(self, **request: Any) -> Any:
            episode = request["Key"]["ticket"]["S"]
            if episode in ("", "refused") or len(episode) > 2048:
                raise ClientError({"Error": {"Code": "ValidationException", "Message": "no"}}, "UpdateItem")
            if is_down:
                raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "no"}}, "UpdateItem")
            return dynamodb.update_item(**request)

    is_down = False
    wanted = {f"e{number}" for number in range(7)}
    for episode in ("", "refused", "x" * 2049, *wanted):
        event = {**RAISED, "data": {**RAISED["data"], "episode": episode}}
        sqs.send_message(QueueUrl=url, MessageBody=json.dumps(event))
    tickets = Tickets(sqs, Strict(), url, "t")
    for _ in range(5):
        tickets.poll(0)
    assert {item["ticket"]["S"] for item in dynamodb.scan(TableName="t", ConsistentRead=True)["Items"]} == wanted
    left = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])["Attributes"]
    assert left == {"ApproximateNumberOfMessages": "3"}
    is_down = True
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps(RAISED))
    with pytest.raises(ClientError, match="Throttling"):
        tickets.poll(0)


def test_an_event_without_a_subject_opens_a_ticket() -> None:
    """Of an empty key."""
    event = {name: value for name, value in RAISED.items() if name != "subject"}
    assert alert_in(json.dumps(event)) == event


leaves = st.one_of(st.none(), st.integers(), st.sampled_from(["x", RAISED["type"], "Notification", json.dumps(RAISED)]))
names = st.sampled_from(["Type", "Message", "detail-type", "detail", "type", "data", "episode", "id", "subject"])
documents = st.recursive(leaves, lambda inner: st.dictionaries(names, inner, max_size=5))


@given(documents)
def test_what_is_no_event_is_a_value_error(document: object) -> None:
    """Never another error, with which the subscriber would end."""
    with contextlib.suppress(ValueError):
        assert alert_in(json.dumps(document))["data"]["episode"] == RAISED["data"]["episode"]
    for body in ("", "[]", "17", json.dumps(RAISED | {"subject": None})):
        with pytest.raises(ValueError, match=r"."):
            alert_in(body)
