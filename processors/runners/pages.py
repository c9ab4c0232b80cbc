"""Call Kinesis for the records of one shard: iterators, pages, and what to do when an answer is lost.

Every runner reads through this module. What is done with the records does not belong here.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from headwater.clock import Clock
from headwater.processors.runners.passing import PASSING_CODES
from headwater.stream import sequence
from headwater.stream.record import StreamRecord

__all__ = ["ReaderSettings", "get_page", "records_of", "shard_iterator"]

log = logging.getLogger("headwater.processor")


@dataclass(frozen=True)
class ReaderSettings:
    """Set how a shard is polled. A shard takes 5 GetRecords a second from all its readers together
    (https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html)."""

    max_records: int = 10_000
    idle_seconds: float = 0.25
    backoff_seconds: float = 1.0


def shard_iterator(kinesis: Any, stream: str, shard_id: str, position: str) -> str | None:
    """Return an iterator after the padded sequence number, or from the oldest record.

    From the oldest where the position is `sequence.NONE`, or past the retention and therefore refused.
    """
    shard = {"StreamName": stream, "ShardId": shard_id}
    oldest = {"ShardIteratorType": "TRIM_HORIZON"}
    after = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": sequence.unpad(position)}
    try:
        answer = kinesis.get_shard_iterator(**shard, **(oldest if position == sequence.NONE else after))
    except ClientError as error:
        if position == sequence.NONE or error.response["Error"]["Code"] != "InvalidArgumentException":
            raise
        log.error("the position is refused: reading from the oldest record", extra={"shard": shard_id, "at": position})
        answer = kinesis.get_shard_iterator(**shard, **oldest)
    iterator: str | None = answer["ShardIterator"]
    return iterator


def get_page(
    kinesis: Any, iterator: str, shard_id: str, clock: Clock, settings: ReaderSettings
) -> dict[str, Any] | None:
    """Return a GetRecords answer; None when it was lost or the iterator has expired, and a new one is needed."""
    try:
        answer: dict[str, Any] = kinesis.get_records(ShardIterator=iterator, Limit=settings.max_records)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code not in PASSING_CODES and code != "ExpiredIteratorException":
            raise
        if code in PASSING_CODES:
            clock.sleep(settings.backoff_seconds)
        log.info("read again", extra={"shard": shard_id, "reason": code})
        return None
    except BotoCoreError as error:
        clock.sleep(settings.backoff_seconds)
        log.info("read again", extra={"shard": shard_id, "reason": str(error)})
        return None
    return answer


def records_of(answer: Mapping[str, Any], shard_id: str) -> list[StreamRecord]:
    """Return the records of a GetRecords answer."""
    return [
        StreamRecord(
            shard_id,
            record["SequenceNumber"],
            round(record["ApproximateArrivalTimestamp"].timestamp() * 1000),
            record["PartitionKey"],
            record["Data"],
        )
        for record in answer["Records"]
    ]
