"""Where the planner meets Kinesis and the ledger: read the shards, read the measurements."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

from headwater.clock import Clock
from headwater.errors import HeadwaterError, Retryable, Throttled, UsageError
from processors.shards.heat import Sample, sample_from_json
from processors.shards.topology import Topology, parse

__all__ = ["Documents", "code_of", "heat_document", "read_samples", "read_topology", "wait_active"]

T = TypeVar("T")
_IDLE_MS = 600_000
_PAUSE = 2.0


class Documents(Protocol):
    """headwater.ledger.Ledger, as far as it is needed here."""

    def document(self, name: str) -> tuple[dict[str, Any], int]: ...

    def put_document(self, name: str, doc: Mapping[str, Any], expected_rev: int) -> int: ...


def code_of(error: Exception) -> str:
    """The service's name of the error; empty for a lost connection."""
    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else ""


def _call(stream: str, call: Callable[[], T]) -> T:
    try:
        return call()
    except ClientError as error:
        code = code_of(error)
        if code == "ResourceNotFoundException":
            raise UsageError(f"no stream {stream} in this account and region; see HEADWATER_STREAM") from None
        if code in ("LimitExceededException", "ThrottlingException"):
            raise Throttled(f"stream {stream}: Kinesis asks for fewer calls ({code})") from None
        raise HeadwaterError(f"stream {stream}: {code}: {error.response['Error'].get('Message', '')}") from None
    except (ConnectionError, HTTPClientError) as error:
        raise Retryable(f"stream {stream}: no answer from Kinesis ({error})") from None


def _pages(kinesis: Any, stream: str) -> Iterator[dict[str, Any]]:
    request: dict[str, Any] = {"StreamName": stream}
    while True:
        answer = kinesis.list_shards(**request)
        yield answer
        if not answer.get("NextToken"):
            return
        request = {"NextToken": answer["NextToken"]}


def read_topology(kinesis: Any, stream: str) -> Topology:
    """All shards now, checked to cover the hash space."""
    return parse(stream, _call(stream, lambda: list(_pages(kinesis, stream))))


def wait_active(kinesis: Any, stream: str, clock: Clock, seconds: float) -> None:
    """Until the stream is ACTIVE; Retryable when it takes longer."""
    until = clock.now_ms() + round(seconds * 1000)
    while True:
        try:
            summary = _call(stream, lambda: kinesis.describe_stream_summary(StreamName=stream))
            status = summary["StreamDescriptionSummary"]["StreamStatus"]
        except Retryable:
            status = "unknown"
        if status == "ACTIVE":
            return
        if clock.now_ms() >= until:
            raise Retryable(f"stream {stream} is {status} after {seconds:.0f} s; run the same command again later")
        clock.sleep(_PAUSE)


def heat_document(shard_id: str) -> str:
    """The ledger document that a processor writes what it measured of the shard to: {"sample": Sample as JSON}."""
    return f"heat.{shard_id}"


def read_samples(
    documents: Documents, topology: Topology, now_ms: int, also: Collection[str] = ()
) -> dict[str, Sample]:
    """What the processor measured of each open shard, and of those of `also`, by shard; shards it has not written yet
    are left out.

    A processor writes when it commits, so one without news for long has had no records. A sample is as of the last
    record's arrival, which may be long ago: the news came as much later as the reader was behind.
    """
    out = {}
    for shard in topology.shards:
        if shard.closed and shard.shard_id not in also:
            continue
        doc, rev = documents.document(heat_document(shard.shard_id))
        if rev:
            sample = sample_from_json(doc["sample"])
            idle = now_ms - sample.at_ms - max(sample.lag_ms.values(), default=0) > _IDLE_MS
            out[shard.shard_id] = Sample(shard.shard_id, now_ms, sample.seconds, 0, 0, 0) if idle else sample
    return out
