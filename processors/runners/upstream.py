"""Compare what the ledger knows of the stream with what the stream holds now, before a shard is read.

A stream may be deleted and made again under its name, a parent may be past the retention. The first is refused with a
line that says what to do, the second counted as lost, logged, and passed: no shard waits for records that never come.
What a worker does once it reads does not belong here; records that expire unread are noticed in `retention`.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol, TypeVar

from botocore.exceptions import ClientError

from headwater.clock import HOUR_MS, Clock
from headwater.errors import UsageError
from headwater.processors.ports import StreamClient
from headwater.processors.runners.passing import pauses, repeat
from headwater.processors.shard.context import WorkerContext
from headwater.processors.shard.worker import ShardWorker
from headwater.stores import DocumentStore
from headwater.stream import Shard, sequence

__all__ = [
    "DOCUMENT",
    "LOST_PARENTS",
    "StreamFacts",
    "check_stream",
    "claim_worker",
    "known_parents",
    "stream_mismatch",
]

DOCUMENT = "stream"
"""Name of the ledger document: {"name", "arn", "created_ms"} of the stream that the pipeline's shards are of."""
LOST_PARENTS = "lost_parents"
"""A shard's count, 1 for a parent that the stream no longer holds and that was not read to its end."""

_DENIED = frozenset({"AccessDenied", "AccessDeniedException"})

log = logging.getLogger("headwater.processor")


class _StreamLedger(DocumentStore, Protocol):
    pipeline: str


@dataclass(frozen=True)
class StreamFacts:
    """Hold what the service says of a stream; None where it does not say, or may not be asked."""

    arn: str = ""
    created_ms: int | None = None
    retention_ms: int | None = None


def check_stream(source: StreamClient, ledger: _StreamLedger, clock: Clock) -> StreamFacts:
    """Return the facts of the stream, which the ledger keeps when it first meets it.

    An account has 20 DescribeStreamSummary a second, and the processes of a fleet start together: a refusal is waited
    out. Raises UsageError when the ledger is of another stream, or of an earlier one of this name: its positions and
    sets mean nothing there, and every new shard whose id the ledger has would be taken for read.
    """
    stream = source.stream
    facts = repeat(partial(_described, source.kinesis, stream), pauses(1.0, 8), clock, f"stream {stream}")
    if facts.created_ms is None:
        return facts
    made = {"name": stream, "arn": facts.arn, "created_ms": facts.created_ms}
    known = ledger.change(DOCUMENT, lambda found: None if found else made)
    reason = _mismatch(ledger.pipeline, stream, facts, known)
    if reason:
        raise UsageError(reason)
    return facts


def stream_mismatch(kinesis: Any, stream: str, ledger: _StreamLedger) -> str:
    """Return why the ledger is of another stream than this, and what to do; an empty text when it is of this one."""
    known, _ = ledger.document(DOCUMENT)
    return _mismatch(ledger.pipeline, stream, _described(kinesis, stream), known) if known else ""


def _described(kinesis: Any, stream: str) -> StreamFacts:
    try:
        found = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
    except ClientError as error:
        if error.response["Error"]["Code"] not in _DENIED:
            raise
        # a role without this permission: the pipeline goes on, and the log says what cannot be checked
        log.warning("no leave to see whether the stream was made again: grant kinesis:DescribeStreamSummary")
        return StreamFacts()
    created, hours = found.get("StreamCreationTimestamp"), found.get("RetentionPeriodHours")
    return StreamFacts(
        arn=str(found.get("StreamARN", "")),
        created_ms=None if created is None else round(_seconds(created) * 1000),
        retention_ms=None if hours is None else int(hours) * HOUR_MS,
    )


def _seconds(moment: datetime | float) -> float:
    return moment.timestamp() if isinstance(moment, datetime) else float(moment)


def _mismatch(pipeline: str, stream: str, facts: StreamFacts, known: Mapping[str, Any]) -> str:
    if not known or facts.created_ms is None or (known["name"], known["created_ms"]) == (stream, facts.created_ms):
        return ""
    what = (
        f"stream {stream} was deleted and made again at {_iso(facts.created_ms)}"
        if known["name"] == stream
        else f"stream {stream} is another than stream {known['name']}"
    )
    return (
        f"{what}, and the ledger of pipeline {pipeline} is of the one made at {_iso(known['created_ms'])}: its shards "
        "had the same names, so nothing of the new one is read. To read it, give the pipeline another name, lake table "
        "and view names; what was read before stays where it is (docs/operations/recreated-stream.md)"
    )


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


Worker = TypeVar("Worker", bound=ShardWorker)


def claim_worker(
    kind: type[Worker],
    context: WorkerContext,
    shard_id: str,
    shards: Sequence[Shard],
) -> Worker:
    """Claim a shard as every runner does it: with all its parents' sets, and a parent that is lost counted.

    `shards` are those that the stream lists. Raises Retryable while a listed parent is not read to its end.
    """
    shard = next((one for one in shards if one.shard_id == shard_id), None)
    parents = () if shard is None else known_parents(shard, shards, context)
    return kind.claim(context, shard_id, parents, None if shard is None else (shard.start, shard.end))


def known_parents(shard: Shard, shards: Sequence[Shard], context: WorkerContext) -> Sequence[str]:
    """Return the shards whose sets a shard takes over, those included that the stream no longer lists.

    `shards` are those that it lists. A parent past the retention that was not read to its end is closed in the ledger,
    with its loss counted, so that the child does not wait for it.
    """
    if not shard.expired_parents or not _is_new(context, shard.shard_id):
        return shard.parents
    listed = {one.shard_id for one in shards}
    # The listing may be older than the ledger: a shard made since is not gone. Numbers of shards only grow.
    known = (entry.shard_id for entry in context.ports.ledger.shards())
    gone = [one for one in known if one not in listed and one < shard.shard_id]
    for parent in shard.expired_parents:
        # The pipeline was not there while this parent was. Its ancestors are among the shards that are gone, and a set
        # that is too large drops nothing but copies. Without such shards the pipeline itself is new.
        ancestors = [] if parent in gone else gone
        if parent in gone or ancestors:
            _close(parent, ancestors, context)
    return shard.all_parents


def _is_new(context: WorkerContext, shard_id: str) -> bool:
    entry = context.ports.ledger.shard(shard_id)
    return entry is None or entry.position == sequence.NONE


def _close(shard_id: str, ancestors: Sequence[str], context: WorkerContext) -> None:
    """Close a shard that the stream no longer has, unless it was read to its end."""
    entry = context.ports.ledger.shard(shard_id)
    if entry is not None and entry.closed:
        return
    for ancestor in ancestors:
        _close(ancestor, (), context)
    worker = ShardWorker.claim(context, shard_id, ancestors)
    worker.count(LOST_PARENTS)
    worker.commit(closed=True)
    log.error(
        "a shard past the retention was not read to its end: what followed its position is lost",
        extra={"shard": shard_id, "position": worker.position},
    )
