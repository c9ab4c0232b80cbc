"""Call Kinesis for a producer: the only room where a boto3 client is used to send events."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from headwater.announcing import put_control
from headwater.awsfailures import AWS_ERRORS, aws_error, lacks_credentials
from headwater.clock import Clock
from headwater.controlkeys import read_control_key, streams
from headwater.errors import HeadwaterError, Retryable
from headwater.producers.outages import OutageLog
from headwater.producers.sealing import SealedBatch
from headwater.producers.writer import RequestOutcome, Writer

__all__ = ["KinesisStream", "default_client", "put_records"]

log = logging.getLogger("headwater.producer")


class KinesisStream:
    """Reach one stream: a client, the time and randomness of retries, and the key that signs its control records.

    `connect` makes the client, now and again when the one at hand has no credentials: boto3 looks for them when a
    client is made and never after, so one that was made before they were there would stay without.

    Without a `control_key` it is read from the ledger's table, as the environment says; a client that is not boto3's
    reaches no ledger, and its control records are not signed.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        name: str,
        clock: Clock,
        random: Callable[[], float],
        control_key: bytes | None = None,
    ) -> None:
        self._connect = connect
        self.client = connect()
        self.name, self.clock, self.random = name, clock, random
        self._control_key, self._key_missed = control_key, False
        self._outages = OutageLog(name, str(getattr(getattr(self.client, "meta", None), "endpoint_url", "")))

    def send(self, writer: Writer, request: Sequence[SealedBatch], lock: Any) -> RequestOutcome:
        """Send a request of the writer and give it the answer. `lock` guards the writer, and is free over the call."""
        began_ms = self.clock.now_ms()
        try:
            entries = put_records(self.client, self.name, request)
        except HeadwaterError as error:
            self._outages.failed(error, began_ms, self.clock.now_ms())
            if lacks_credentials(error):
                self.client = self._connect()
            with lock:
                return writer.failed(error, self.clock.now_ms())
        # an answer that refuses every record is still one: the stream is there, and its limits are another matter
        self._outages.delivered(self.clock.now_ms())
        with lock:
            return writer.answered(entries, self.clock.now_ms())

    def can_sign(self) -> bool:
        """Tell whether control records can be put now: what is not signed would be taken for forged."""
        if self._control_key is not None or not hasattr(self.client, "meta"):
            return True
        try:
            self._control_key = _key_in_ledger(self.name)
            reason = "the ledger has none yet"
        except AWS_ERRORS as error:
            reason = str(error)
        if self._control_key is None and not self._key_missed:
            log.warning("stream %s: no receipts until the key that signs them can be read: %s", self.name, reason)
        self._key_missed = self._control_key is None
        return not self._key_missed

    def put_control(self, kind: str, body: dict[str, object]) -> int:
        """Put a control record on every open shard; return on how many."""
        key = self._control_key if self.can_sign() else None
        return put_control(self.client, self.name, kind, body, self.clock, self.random, key)


def put_records(client: Any, stream: str, batches: Sequence[SealedBatch]) -> list[dict[str, Any]]:
    """Return the entries that answer one PutRecords, one for each batch. Raises what `aws_error` makes of a failure."""
    records = [
        {"Data": batch.payload, "PartitionKey": batch.partition_key, "ExplicitHashKey": batch.explicit_hash_key}
        for batch in batches
    ]
    try:
        entries: list[dict[str, Any]] = client.put_records(StreamName=stream, Records=records)["Records"]
    except AWS_ERRORS as error:
        raise aws_error(error, stream) from error
    if len(entries) != len(batches):
        raise Retryable(f"stream {stream}: {len(entries)} answers to {len(batches)} records")
    return entries


def default_client() -> Any:
    """Return a boto3 client for Kinesis as the environment says.

    It tries each call once: the producer sends again by its own rules, and would not learn of a failure for as long as
    botocore repeats the call.
    """
    from headwater.aws import client
    from headwater.config import read_settings

    return client("kinesis", read_settings(), retries={"mode": "standard", "total_max_attempts": 1})


def _key_in_ledger(stream: str) -> bytes | None:
    from headwater.aws import client
    from headwater.config import read_settings

    settings = read_settings()
    # receipts wait behind events, so a table that does not answer must not keep their thread
    options = {"connect_timeout": 2, "read_timeout": 5, "retries": {"mode": "standard", "total_max_attempts": 2}}
    return read_control_key(stream, streams(client("dynamodb", settings, **options), settings.ledger_table))
