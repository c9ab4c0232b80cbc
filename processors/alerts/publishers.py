"""Where changes go: EventBridge, SNS, SQS. Each gets whole events under their own ids, ten a request.

A request may be repeated, so an event may come twice, always with the same id; FIFO topics and queues drop it.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headwater.errors import Retryable, UsageError

__all__ = ["BATCH", "Event", "Publish", "publish_to"]

Event = Mapping[str, Any]
Publish = Callable[[Sequence[Event]], None]
"""Takes up to BATCH events. Retryable when one of them may not have arrived: publish all again."""

BATCH = 10
"""Entries in a request: the limit of PutEvents, PublishBatch and SendMessageBatch alike."""


def publish_to(targets: str, client: Callable[[str], Any]) -> Publish:
    """To each of the targets, separated by commas; `client` opens a boto3 client by service."""
    each = [_publisher(target.strip(), client) for target in targets.split(",") if target.strip()]

    def publish(events: Sequence[Event]) -> None:
        for one in each:
            one(events)

    return publish


def _publisher(target: str, client: Callable[[str], Any]) -> Publish:
    service = (
        "sqs" if target.startswith(("http://", "https://")) else (re.match("arn:[^:]+:([a-z]+):", target) or "  ")[1]
    )
    if service == "events":
        return _Bus(client("events"), target)
    if service == "sns":
        return _Topic(client("sns"), target)
    if service == "sqs":
        return _Queue(client("sqs"), target)
    raise UsageError(
        f"HEADWATER_ALERTS_TO: {target!r} is no ARN of an event bus, a topic or a queue, and no URL of a queue"
    )


class _Bus:
    def __init__(self, client: Any, arn: str) -> None:
        self._client, self._arn = client, arn

    def __call__(self, events: Sequence[Event]) -> None:
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
        _check(self._arn, [one["ErrorCode"] for one in answer["Entries"] if "ErrorCode" in one])


class _Topic:
    def __init__(self, client: Any, arn: str) -> None:
        self._client, self._arn = client, arn

    def __call__(self, events: Sequence[Event]) -> None:
        entries = [
            {"Id": str(at), "Message": json.dumps(event), "MessageAttributes": _attributes(event)}
            | _once(self._arn, event)
            for at, event in enumerate(events)
        ]
        answer = self._client.publish_batch(TopicArn=self._arn, PublishBatchRequestEntries=entries)
        _check(self._arn, [one["Code"] for one in answer.get("Failed", ())])


class _Queue:
    def __init__(self, client: Any, target: str) -> None:
        self._client, self._target = client, target
        self._url = target if "://" in target else ""

    def __call__(self, events: Sequence[Event]) -> None:
        if not self._url:
            *_, account, name = self._target.split(":")
            self._url = self._client.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"]
        entries = [
            {"Id": str(at), "MessageBody": json.dumps(event), "MessageAttributes": _attributes(event)}
            | _once(self._target, event)
            for at, event in enumerate(events)
        ]
        answer = self._client.send_message_batch(QueueUrl=self._url, Entries=entries)
        _check(self._target, [one["Code"] for one in answer.get("Failed", ())])


def _attributes(event: Event) -> dict[str, Any]:
    """For filters of subscriptions."""
    found = {"type": event["type"], "rule": event["data"]["rule"]}
    return {name: {"DataType": "String", "StringValue": value} for name, value in found.items()}


def _once(target: str, event: Event) -> dict[str, str]:
    """FIFO: changes of an episode in order, each once (AWS remembers an id for five minutes)."""
    if not target.endswith(".fifo"):
        return {}
    return {"MessageGroupId": event["data"]["episode"], "MessageDeduplicationId": event["id"]}


def _check(target: str, codes: Sequence[str]) -> None:
    if codes:
        raise Retryable(f"{target} refused {len(codes)} events ({', '.join(sorted(set(codes)))}); they are sent again")
