"""Read the events of a span of arrival times from what the stream still keeps.

Shards come one after the other, parents first, each with a mark to go on from. Whoever puts the events again does so
under the same identities, so readers drop the copies. What reads a stream for a replay or a rebuild belongs here;
where the events go is decided in `chunk`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from botocore.exceptions import ClientError

from headwater.clock import HOUR_MS, Clock
from headwater.codec import Decoder, OtherContract
from headwater.contract import Contract
from headwater.errors import UsageError
from headwater.lineage.origins import OriginSets
from headwater.processors.operators.decode import Part, Poison, combine, decode
from headwater.processors.operators.dedupe import identify
from headwater.processors.operators.misplaced import Awaited, Misplaced, Renewed, find_misplaced
from headwater.processors.ports import PipelineReader, StreamClient
from headwater.processors.replay.chunk import CHUNK_EVENTS, ArrivalSpan, Position, ReplayChunk, identified, placed
from headwater.processors.runners.pages import ReaderSettings, get_page, records_of
from headwater.stream.record import StreamRecord
from headwater.stream.shards import Shard, list_shards

__all__ = ["Copies", "decoded", "from_stream", "iso", "pages", "retention_ms", "shards_in_order"]

_EVENT_BYTES = 13
"""Size of an event in a columnar record, about."""
_PAUSE_SECONDS = 1.0
"""Between two reads of a shard: of its five reads a second (GetRecords' limit) the live readers need theirs."""
_SKEW_MS = 10_000
"""Arrival times of a shard do not always rise: so much before and after the span is looked at too."""


@dataclass
class Copies:
    """Remember, over the records of one shard, which user records of a KPL may come again, as its reader did."""

    hash_range: tuple[int, int]
    renewed_ms: int | None = None
    """0 for a child of shards that had aggregates in the span: it begins there."""
    has_kpl: bool = False
    awaited: Awaited = field(default_factory=dict)
    renewed: Renewed = field(default_factory=dict)

    def among(self, records: Sequence[StreamRecord], contract: Contract) -> Misplaced:
        """Return what of the next records does not count."""
        return find_misplaced(records, self.hash_range, self, contract.name)

    def count(self, name: str, by: int = 1) -> None:
        """Count nothing: the shard's reader has."""


def from_stream(
    reader: PipelineReader, span: ArrivalSpan, position: Position, *, own: bool, most: int = CHUNK_EVENTS
) -> Iterator[ReplayChunk]:
    """Yield the events in the pipeline's stream, shard after shard, parents first.

    Records that cannot be read, those of other contracts, and control records are left out, and so are user records of
    another shard, which a KPL puts again. A chunk has about `most`
    events, or those of one record. `own`: the events go into the same stream, each to the shard it came from, because
    the readers of that shard know its identity.

    Raises UsageError when the retention period does not cover what is left of the span.
    """
    contract, stream = reader.stores.pipeline.contract, reader.stream
    shards, kept_ms = shards_in_order(stream), retention_ms(stream.kinesis, stream.stream)
    first = {shard.shard_id: {"arrived_ms": span.start_ms} for shard in shards}
    marks: dict[str, Position] = first | position.get("shards", {})
    now_ms = reader.stores.clock.now_ms
    _check_retention(stream.stream, marks, kept_ms, now_ms())
    for shard in shards:

        def its_start(rows: pa.Table, start: str = str(shard.start)) -> pa.Array:
            return pa.array([start] * rows.num_rows, pa.string())

        # a child comes after its parents, and begins within the span when those have records there
        heir = "after" not in marks[shard.shard_id] and any(marks.get(one, {}).get("kpl") for one in shard.parents)
        copies = Copies((shard.start, shard.end), 0 if heir else None)
        for records, mark in pages(stream, reader.stores.clock, shard.shard_id, marks[shard.shard_id], span, most):
            marks[shard.shard_id] = mark
            # again after every page: a replay that is slow may be overtaken by the retention
            _check_retention(stream.stream, marks, kept_ms, now_ms())
            rows, unread = decoded(contract, records, reader.stores.pipeline.decoder, copies)
            if copies.has_kpl:
                marks[shard.shard_id] = {**mark, "kpl": True}
            kept, left_out = placed(rows, contract, stream.stream, its_start if own else None)
            yield ReplayChunk(kept, {"shards": dict(marks)}, unread | left_out)


def retention_ms(kinesis: Any, stream: str) -> int:
    """Return for how many milliseconds the stream keeps records; UsageError when there is no stream of that name."""
    try:
        found = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        raise UsageError(f"there is no stream {stream}") from error
    return int(found["RetentionPeriodHours"]) * HOUR_MS


def shards_in_order(stream: StreamClient) -> list[Shard]:
    """Return the stream's shards, parents before their children: a child's id is above its parents'."""
    return sorted(list_shards(stream.kinesis, stream.stream), key=lambda shard: shard.shard_id)


def pages(
    stream: StreamClient, clock: Clock, shard_id: str, mark: Position, span: ArrivalSpan, most: int = CHUNK_EVENTS
) -> Iterator[tuple[list[StreamRecord], Position]]:
    """Yield a shard's records of the span, some `most` events at a time, each with the mark to go on from.

    The mark of the last page says `done`.
    """
    iterator = None
    while not mark.get("done"):
        iterator = iterator or _iterator(stream, shard_id, mark)
        answer = get_page(stream.kinesis, iterator, shard_id, clock, ReaderSettings())
        if answer is None:  # the iterator has expired: begin again from the mark
            iterator = None
            continue
        found = records_of(answer, shard_id)
        for group in _groups([one for one in found if span.start_ms <= one.arrived_ms < span.stop_ms], most):
            mark = {"after": group[-1].sequence_number, "arrived_ms": group[-1].arrived_ms}
            yield group, mark
        iterator = answer.get("NextShardIterator")
        beyond = any(one.arrived_ms >= span.stop_ms + _SKEW_MS for one in found)
        if beyond or iterator is None or not answer["MillisBehindLatest"]:
            mark = {**mark, "done": True}
            yield [], mark
        else:
            clock.sleep(_PAUSE_SECONDS)


def decoded(
    contract: Contract, records: Sequence[StreamRecord], decoder: Decoder | None = None, copies: Copies | None = None
) -> tuple[pa.Table, dict[str, int]]:
    """Return the events of the records with their identities, and by reason the number of what cannot be read.

    With `copies` those that a reader of the shard does not count are left out.
    """
    parts = list[Part]()
    misplaced = Misplaced() if copies is None else copies.among(records, contract)
    unread = {"invalid": 0, "unreadable_records": 0, "other_contract": 0}
    for found in decode(records, contract, decoder):
        if isinstance(found, Part):
            parts.append(misplaced.without(found))
            unread["invalid"] += len(found.decoded.invalid)
        elif isinstance(found, Poison):
            unread["unreadable_records"] += 1
        elif isinstance(found[1], OtherContract):
            unread["other_contract"] += found[1].events
    unread = {name: count for name, count in unread.items() if count}
    if not parts:
        empty = contract.arrow_schema.empty_table()
        return identified(empty.append_column("_origin", [[]]).append_column("_seq", [[]]), contract), unread
    batch = combine(parts, contract.arrow_schema)
    who = identify(batch, list(records), contract, OriginSets())
    rows = batch.table.append_column("_origin", who.origin).append_column("_seq", pa.array(who.seq))
    return identified(rows, contract), unread


def iso(ms: int) -> str:
    """Return a point in time, epoch ms, as ISO 8601 in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def _check_retention(stream: str, marks: Mapping[str, Position], kept_ms: int, now_ms: int) -> None:
    oldest = min((mark["arrived_ms"] for mark in marks.values() if not mark.get("done")), default=None)
    horizon = now_ms - kept_ms
    if oldest is not None and oldest < horizon:
        raise UsageError(
            f"stream {stream} keeps records for {kept_ms / HOUR_MS:g} h, since {iso(horizon)}, and no longer those "
            f"from {iso(oldest)} on; take them from the lake"
        )


def _iterator(stream: StreamClient, shard_id: str, mark: Position) -> str:
    if "after" in mark:
        where = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": mark["after"]}
    elif "arrived_ms" in mark:
        seconds = (mark["arrived_ms"] - _SKEW_MS) / 1000
        where = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": datetime.fromtimestamp(seconds, UTC)}
    else:
        where = {"ShardIteratorType": "TRIM_HORIZON"}
    answer = stream.kinesis.get_shard_iterator(StreamName=stream.stream, ShardId=shard_id, **where)
    iterator: str = answer["ShardIterator"]
    return iterator


def _groups(records: Sequence[StreamRecord], most: int) -> Iterator[list[StreamRecord]]:
    group, size = list[StreamRecord](), 0
    for record in records:
        group.append(record)
        size += len(record.data)
        if size >= most * _EVENT_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
