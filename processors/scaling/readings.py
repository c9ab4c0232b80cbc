"""Read the shards from Kinesis, and what was measured of them from the ledger.

All calls of the planner that only read are here; those that reshard are in `apply`.
"""

from collections.abc import Callable, Collection
from typing import Any, TypeVar

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

from headwater.awscodes import THROTTLED
from headwater.clock import Clock
from headwater.errors import HeadwaterError, Retryable, Throttled, UsageError
from headwater.processors.scaling.heat import Sample, sample_from_json
from headwater.processors.scaling.topology import Topology
from headwater.stores import DocumentReader
from headwater.stream.shards import list_shards

__all__ = ["code_of", "heat_document", "read_samples", "read_topology", "wait_active"]

T = TypeVar("T")
_IDLE_MS = 600_000
"""A shard of which nothing was heard for so long has had no records."""
_PAUSE = 2.0


def code_of(error: Exception) -> str:
    """Return the service's name of the error; empty for a lost connection."""
    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else ""


def _call(stream: str, call: Callable[[], T]) -> T:
    """Return what the call returns; raise an error of our own that names the stream."""
    try:
        return call()
    except ClientError as error:
        code = code_of(error)
        if code == "ResourceNotFoundException":
            raise UsageError(f"no stream {stream} in this account and region; see HEADWATER_STREAM") from None
        if code in THROTTLED:
            raise Throttled(f"stream {stream}: Kinesis asks for fewer calls ({code})") from None
        raise HeadwaterError(f"stream {stream}: {code}: {error.response['Error'].get('Message', '')}") from None
    except (ConnectionError, HTTPClientError) as error:
        raise Retryable(f"stream {stream}: no answer from Kinesis ({error})") from None


def read_topology(kinesis: Any, stream: str) -> Topology:
    """Return all shards as they are now, checked to cover the hash space."""
    return Topology(stream, tuple(_call(stream, lambda: list_shards(kinesis, stream)))).validate()


def wait_active(kinesis: Any, stream: str, clock: Clock, seconds: float) -> None:
    """Wait until the stream is ACTIVE; raise Retryable after `seconds`."""
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
    """Return the name of the ledger document in which a processor keeps its sample of the shard, as `sample`."""
    return f"heat.{shard_id}"


def read_samples(
    documents: DocumentReader, topology: Topology, now_ms: int, also: Collection[str] = ()
) -> dict[str, Sample]:
    """Return what the processor measured of each open shard, and of those named in `also`, by shard id.

    Shards of which nothing is written yet are left out.

    A processor writes when it commits, so one without news for long has had no records: its shard counts as idle. A
    sample is as of the arrival of its last record, which may be long ago: where the reader lags, it was written later
    by as much.
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
