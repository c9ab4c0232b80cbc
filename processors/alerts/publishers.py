"""Publish events to EventBridge, SNS or SQS, up to ten in a request.

A request may be repeated, so an event may come twice, always with the same id; FIFO topics and queues drop the copy.
Only requests belong here: what is sent when is decided in `delivery`.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headwater.errors import UsageError

__all__ = ["BATCH", "Event", "Publish", "Refused", "publish_to"]

Event = Mapping[str, Any]
Refused = Mapping[int, str]
"""The refused events: the target's error code by the event's place in the request."""
Publish = Callable[[Sequence[Event]], Refused]
"""Publishes up to BATCH events and returns the refused ones. After an error nobody knows which were accepted."""

BATCH = 10
"""Entries in a request: the limit of PutEvents, PublishBatch and SendMessageBatch alike."""

_PLACE = r"arn:[\w-]+:{}:[\w-]+:\d+:"
_BUS = re.compile(_PLACE.format("events") + r"event-bus/[\w./-]+")
_TOPIC = re.compile(_PLACE.format("sns") + r"[\w-]+(\.fifo)?")
_QUEUE = re.compile(_PLACE.format("sqs") + r"[\w-]+(\.fifo)?|https?://[^/\s]+/\S+")


def publish_to(targets: str, client: Callable[[str], Any]) -> dict[str, Publish]:
    """Return a publisher for each of the targets, by target.

    `targets` are ARNs of event buses, topics and queues or URLs of queues, separated by commas; `client` opens a boto3
    client by the service's name. Raises UsageError for a target that is none of these.
    """
    names = [target.strip() for target in targets.split(",") if target.strip()]
    return {name: _publisher(name, client) for name in names}


def _publisher(target: str, client: Callable[[str], Any]) -> Publish:
    if _BUS.fullmatch(target):
        return _Bus(client("events"), target)
    if _TOPIC.fullmatch(target):
        return _Topic(client("sns"), target)
    if _QUEUE.fullmatch(target):
        return _Queue(client("sqs"), target)
    raise UsageError(
        f"HEADWATER_ALERTS_TO: {target!r} is no ARN of an event bus, a topic or a queue, and no URL of a queue"
    )


class _Bus:
    def __init__(self, client: Any, arn: str) -> None:
        self._client, self._arn = client, arn

    def __call__(self, events: Sequence[Event]) -> Refused:
        entries = [
            {
                "EventBusName": self._arn,
                "Source": "headwater",
                "DetailType": event["type"],
                "Detail": json.dumps(event),
            }
            for event in events
        ]
        answer = self._client.put_events(Entries=entries)
        return {at: one["ErrorCode"] for at, one in enumerate(answer["Entries"]) if "ErrorCode" in one}


class _Topic:
    def __init__(self, client: Any, arn: str) -> None:
        self._client, self._arn = client, arn

    def __call__(self, events: Sequence[Event]) -> Refused:
        entries = [
            {"Id": str(at), "Message": json.dumps(event), "MessageAttributes": _attributes(event)}
            | _once(self._arn, event)
            for at, event in enumerate(events)
        ]
        return _failed(self._client.publish_batch(TopicArn=self._arn, PublishBatchRequestEntries=entries))


class _Queue:
    def __init__(self, client: Any, target: str) -> None:
        self._client, self._target = client, target
        self._url = target if "://" in target else ""

    def __call__(self, events: Sequence[Event]) -> Refused:
        if not self._url:
            *_, account, name = self._target.split(":")
            self._url = self._client.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"]
        entries = [
            {"Id": str(at), "MessageBody": json.dumps(event), "MessageAttributes": _attributes(event)}
            | _once(self._target, event)
            for at, event in enumerate(events)
        ]
        return _failed(self._client.send_message_batch(QueueUrl=self._url, Entries=entries))


def _attributes(event: Event) -> dict[str, Any]:
    """Return the message attributes that filter policies of subscriptions can match."""
    found = {"type": event["type"], "rule": event["data"]["rule"]}
    return {name: {"DataType": "String", "StringValue": value} for name, value in found.items()}


def _once(target: str, event: Event) -> dict[str, str]:
    """Return the FIFO fields, for a FIFO topic or queue: events of an episode in order and each once.

    AWS remembers a deduplication id for five minutes.
    """
    if not target.endswith(".fifo"):
        return {}
    # a group per episode: the order matters within one only, and groups are delivered in parallel
    return {"MessageGroupId": event["data"]["episode"], "MessageDeduplicationId": event["id"]}


def _failed(answer: Mapping[str, Any]) -> Refused:
    """Return the error codes by the event's place in the request."""
    return {int(one["Id"]): one["Code"] for one in answer.get("Failed", ())}
