"""Parse the events that a Lambda function gets, and check the event source mapping that sends them. Pure.

Two kinds of event concern a shard: a batch of its records from the mapping, and, through an SQS queue as on-failure
destination, the word that the mapping has given a range of it up.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headwater.errors import UsageError
from headwater.stream import sequence
from headwater.stream.record import StreamRecord

__all__ = ["ShardBatch", "batch", "check_mapping", "discarded", "source"]

_TAKES = "this function takes batches of a Kinesis event source mapping, or of the SQS queue that is its on-failure one"
_WANTED: Mapping[str, tuple[object, str]] = {
    "ParallelizationFactor": (1, "the state of a shard is one, so its batches must come one after the other"),
    "MaximumRetryAttempts": (-1, "a batch given up is read again from the stream, but only with the next one"),
    "MaximumRecordAgeInSeconds": (-1, "a batch given up is read again from the stream, but only with the next one"),
    "TumblingWindowInSeconds": (0, "windows are the pipeline's"),
    "StartingPosition": ("TRIM_HORIZON", "the ledger says where a shard begins, a new one at its beginning"),
}
_DEFAULTS: Mapping[str, object] = {
    "ParallelizationFactor": 1,
    "MaximumRetryAttempts": -1,
    "MaximumRecordAgeInSeconds": -1,
    "TumblingWindowInSeconds": 0,
}
"""Defaults of the service, where a mapping leaves a setting out:
https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-parameters.html"""
_GIVES_UP = ("MaximumRetryAttempts", "MaximumRecordAgeInSeconds")


@dataclass(frozen=True)
class ShardBatch:
    """Name what an invocation is about: a shard, up to and with the padded sequence number `until`."""

    shard_id: str
    until: str
    records: tuple[StreamRecord, ...] = ()
    """The batch, in order; empty where only the range is known."""


def source(event: Mapping[str, Any]) -> str:
    """Return `aws:kinesis` or `aws:sqs`. Raises UsageError for an event of anything else."""
    records = event.get("Records")
    found = {str(record.get("eventSource")) for record in records} if isinstance(records, list) else set()
    if len(found) != 1 or not found <= {"aws:kinesis", "aws:sqs"}:
        raise UsageError(f"{_TAKES}; the event is of {', '.join(sorted(found)) or 'no source'}")
    return found.pop()


def batch(event: Mapping[str, Any], stream: str) -> ShardBatch:
    """Return the records of a Kinesis event. Raises UsageError unless they are of one shard of the stream."""
    records, shards = [], set()
    for item in event["Records"]:
        _of_stream(str(item["eventSourceARN"]), stream)
        shard_id, body = item["eventID"].partition(":")[0], item["kinesis"]
        shards.add(shard_id)
        arrived_ms = round(float(body["approximateArrivalTimestamp"]) * 1000)
        data = base64.b64decode(body["data"])
        records.append(StreamRecord(shard_id, body["sequenceNumber"], arrived_ms, body["partitionKey"], data))
    if len(shards) != 1:
        raise UsageError(f"a batch of {len(shards)} shards ({', '.join(sorted(shards))}): {_TAKES}")
    records.sort(key=lambda record: sequence.pad(record.sequence_number))
    return ShardBatch(shards.pop(), sequence.pad(records[-1].sequence_number), tuple(records))


def discarded(body: str, stream: str) -> ShardBatch:
    """Return the range that a message of the on-failure destination says was given up
    (https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html)."""
    try:
        info = json.loads(body)["KinesisBatchInfo"]
        shard_id, until, arn = str(info["shardId"]), sequence.pad(str(info["endSequenceNumber"])), info["streamArn"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"a message that is not of a Kinesis on-failure destination: {body[:200]!r}") from error
    _of_stream(str(arn), stream)
    return ShardBatch(shard_id, until)


def _of_stream(arn: str, stream: str) -> None:
    """Raise UsageError for another stream's ARN; a consumer's has `/consumer/NAME:TIME` behind the stream's."""
    name = arn.partition(":stream/")[2].partition("/")[0]
    if name != stream:
        raise UsageError(f"records of {arn}, and HEADWATER_STREAM is {stream}: the mapping or the setting is wrong")


def check_mapping(mapping: Mapping[str, Any]) -> Sequence[str]:
    """Return what is wrong with an event source mapping, a line each.

    The mapping is the request of CreateEventSourceMapping, the template's properties or the service's answer. Giving
    up is allowed with a destination that tells.
    """
    wrong = []
    tells = bool(mapping.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination"))
    for name, (wanted, reason) in _WANTED.items():
        value = mapping.get(name, _DEFAULTS.get(name))
        if value != wanted and not (tells and name in _GIVES_UP):
            wrong.append(f"{name} is {value}, and must be {wanted}: {reason}")
    if "ReportBatchItemFailures" not in mapping.get("FunctionResponseTypes", ()):
        wrong.append("FunctionResponseTypes lacks ReportBatchItemFailures: how far a batch came would not be heard")
    if mapping.get("FilterCriteria"):
        wrong.append("FilterCriteria is set: the function reads a shard whole; filter with the pipeline's where()")
    return wrong
