"""What a replay reads: the events that arrived in a span of time, from the lake or from the stream's retention.

They come in chunks, each with the place to go on from after it: a second call from there reads the rest, or some of it
twice. Whoever puts the events again does so under the same identities, so readers drop copies.

Into the stream that the pipeline itself reads, an event has to go where its readers know it: to a shard that has seen
it, or a descendant. Into any other it goes where its identity says.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from botocore.exceptions import ClientError
from pyiceberg.expressions import And, BooleanExpression, GreaterThanOrEqual, LessThan
from pyiceberg.io.pyarrow import ArrowScan

from headwater import sequence
from headwater.codec import OtherContract
from headwater.errors import HeadwaterError, UsageError
from headwater.lineage import OriginSets
from headwater.records import StreamRecord
from processors.audit import is_foreign
from processors.backfill import as_contract, settled
from processors.operators.arrays import whole
from processors.operators.decode import Part, Poison, combine, decode
from processors.operators.dedupe import identify
from processors.runners.embedded import ShardInfo, list_shards
from processors.runners.shardreader import ReaderSettings, get_page, records_of
from processors.services import Services
from processors.worker import StateStore

__all__ = [
    "CHUNK_EVENTS",
    "HASH_KEY",
    "Chunk",
    "Span",
    "decoded",
    "from_lake",
    "from_stream",
    "listed",
    "pages",
    "retention_ms",
]

HASH_KEY = "_hash_key"
CHUNK_EVENTS = 20_000
_EVENT_BYTES = 13
"""What an event takes in a columnar record, about."""
_PAUSE_SECONDS = 1.0
"""Between two reads of a shard: of its five a second the live readers need theirs."""
_SKEW_MS = 10_000
"""Arrival times of a shard do not always rise: so much before and after the span is looked at too."""
_IDENTITY = ("_origin", "_seq")

Position = Mapping[str, Any]
Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]


@dataclass(frozen=True)
class Span:
    """Of arrival in the stream, epoch ms: `[start_ms, stop_ms)`."""

    start_ms: int
    stop_ms: int


@dataclass(frozen=True)
class Chunk:
    """Events in the order of their identities: the contract's columns, `_origin`, `_seq`, and in `_hash_key` where an
    event has to go, as text; empty where its identity says. `left_out` counts by reason what is not replayed."""

    rows: pa.Table
    position: Position
    left_out: Mapping[str, int]


def from_lake(
    services: Services,
    span: Span,
    position: Position,
    settle: Callable[[], object],
    *,
    own: bool,
    most: int = CHUNK_EVENTS,
) -> Iterator[Chunk]:
    """The rows of the pipeline's table, at most so many in a chunk; `own` when they go into the stream that it reads.

    HeadwaterError when the pipeline has not committed all that arrived in the span. A snapshot that has expired since
    the first call is replaced by the present one, and read from its beginning.
    """
    _check_committed(services, span)
    table = settled(services, services.ledger.shards(), settle)
    if not position or table.snapshot_by_id(position["snapshot"]) is None:
        current = table.current_snapshot()
        if current is None:
            return
        position = {"snapshot": current.snapshot_id, "file": 0, "row": 0}
    places = _Places(services) if own else None
    wanted, names = _arrived(span), services.pipeline.contract.arrow_schema.names
    scan = table.scan(wanted, (*names, *_IDENTITY, "_arrived_at"), snapshot_id=position["snapshot"])
    tasks = sorted(scan.plan_files(), key=lambda task: task.file.file_path)
    reader = ArrowScan(table.metadata, table.io, scan.projection(), wanted)
    for number, task in enumerate(tasks[position["file"] :], position["file"]):
        rows = _labelled(reader.to_table([task]), services)
        begin = position["row"] if number == position["file"] else 0
        for start in range(begin, rows.num_rows, most):
            stop = min(start + most, rows.num_rows)
            goes_on = {"file": number, "row": stop} if stop < rows.num_rows else {"file": number + 1, "row": 0}
            kept, left_out = _placed(rows.slice(start, stop - start), services, places)
            yield Chunk(kept, {"snapshot": position["snapshot"]} | goes_on, left_out)


def from_stream(
    services: Services, span: Span, position: Position, *, own: bool, most: int = CHUNK_EVENTS
) -> Iterator[Chunk]:
    """The events in the pipeline's stream, shard after shard, parents first. Left out are records that cannot be read,
    those of other contracts, and control records. A chunk has about `most` events, or those of one record.

    UsageError when the retention does not cover what is left of the span.
    """
    shards, kept_ms = listed(services), retention_ms(services, services.settings.stream)
    first = {shard.shard_id: {"arrived_ms": span.start_ms} for shard in shards}
    marks: dict[str, Position] = first | position.get("shards", {})
    _check_retention(services, marks, kept_ms)
    for shard in shards:
        for records, mark in pages(services, shard.shard_id, marks[shard.shard_id], span, most):
            marks[shard.shard_id] = mark
            _check_retention(services, marks, kept_ms)
            rows, unread = decoded(services, records)
            kept, left_out = _placed(rows, services, shard if own else None)
            yield Chunk(kept, {"shards": dict(marks)}, unread | left_out)


def retention_ms(services: Services, stream: str) -> int:
    """How long the stream keeps records. UsageError when there is none of that name."""
    try:
        found = services.kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        raise UsageError(f"there is no stream {stream}") from error
    return int(found["RetentionPeriodHours"]) * 3_600_000


def listed(services: Services) -> list[ShardInfo]:
    """A child's id is above its parents'."""
    return sorted(list_shards(services.kinesis, services.settings.stream), key=lambda shard: shard.shard_id)


class _Places:
    """Per shard of the stream, what the pipeline has seen in it and its ancestors, as committed."""

    def __init__(self, services: Services) -> None:
        starts = {shard.shard_id: str(shard.start) for shard in listed(services)}
        store = StateStore(services.pipeline, services.objects)
        entries = [entry for entry in services.ledger.shards() if entry.shard_id in starts]
        self._seen = [(starts[entry.shard_id], store.load(entry).seen) for entry in entries]

    def of(self, rows: pa.Table) -> pa.Array:
        """A hash key for each of the rows, which are sorted by identity; null where no shard has seen it."""
        origins, seqs = whole(rows["_origin"].combine_chunks().dictionary_encode()), rows["_seq"].to_numpy()
        code = np.full(rows.num_rows, -1, np.int64)
        edges = np.flatnonzero(np.diff(origins.indices.to_numpy(), prepend=-1, append=-1))
        for start, stop in pairwise(edges.tolist()):
            origin, mine = origins[start].as_py(), seqs[start:stop]
            for at, (_, seen) in enumerate(self._seen):
                for low, high in seen.get(origin):
                    first, last = np.searchsorted(mine, [low, high])
                    code[start + first : start + last] = at
        names = pa.array([start for start, _ in self._seen], pa.string())
        return names.take(pa.array(code, mask=code < 0))


def _placed(rows: pa.Table, services: Services, to: _Places | ShardInfo | None) -> tuple[pa.Table, dict[str, int]]:
    """With the column of hash keys and in their order; and what cannot go there.

    An event of others is known by its place in the stream alone. In that stream a copy would be another event, so it is
    left out; in any other it is named after the stream and the place.
    """
    foreign = _foreign(rows, services)
    left_out = {}
    if to is not None:
        left_out["foreign"] = int(foreign.sum())
        rows = rows.filter(pa.array(~foreign))
    elif foreign.any():
        named = pc.binary_join_element_wise(services.settings.stream, rows["_origin"], ":")
        named = pc.if_else(pa.array(foreign), named, rows["_origin"])
        rows = rows.set_column(rows.column_names.index("_origin"), "_origin", named)
    if isinstance(to, _Places):
        keys = to.of(rows)
    else:
        keys = pa.array([str(to.start) if to else ""] * rows.num_rows, pa.string())
    left_out["unknown"] = keys.null_count
    rows = rows.append_column(HASH_KEY, keys).filter(keys.is_valid())
    order = [(name, "ascending") for name in (HASH_KEY, *_IDENTITY)]
    return rows.sort_by(order), {name: count for name, count in left_out.items() if count}


def _foreign(rows: pa.Table, services: Services) -> Mask:
    if services.pipeline.contract.id is not None:
        return np.zeros(rows.num_rows, np.bool_)
    origins = whole(rows["_origin"].combine_chunks().dictionary_encode())
    outside = np.array([is_foreign(name) for name in origins.dictionary.to_pylist()] or [False], np.bool_)
    mask: Mask = outside[origins.indices.to_numpy()]
    return mask


def _labelled(rows: pa.Table, services: Services) -> pa.Table:
    contract = services.pipeline.contract
    named = as_contract(rows, contract, contract)
    for name, kind in zip(_IDENTITY, (pa.string(), pa.int64()), strict=True):
        named = named.append_column(name, rows[name].cast(kind))
    return named.sort_by([(name, "ascending") for name in _IDENTITY])


def _arrived(span: Span) -> BooleanExpression:
    start, stop = (_iso(ms) for ms in (span.start_ms, span.stop_ms))
    return And(GreaterThanOrEqual("_arrived_at", start), LessThan("_arrived_at", stop))


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def _check_committed(services: Services, span: Span) -> None:
    """An event that arrived in the span and is not committed is not in the lake."""
    for shard in listed(services):
        entry = services.ledger.shard(shard.shard_id)
        if entry is not None and entry.closed:
            continue
        mark = {"after": sequence.unpad(entry.position)} if entry and entry.position != sequence.NONE else {}
        for records, _ in pages(services, shard.shard_id, mark, span):
            if decoded(services, records)[0].num_rows:
                raise HeadwaterError(
                    f"pipeline {services.pipeline.name} has not committed all of {shard.shard_id} that arrived before "
                    f"{_iso(span.stop_ms)}; wait for it, or take an earlier --to"
                )


def _check_retention(services: Services, marks: Mapping[str, Position], kept_ms: int) -> None:
    oldest = min((mark["arrived_ms"] for mark in marks.values() if not mark.get("done")), default=None)
    horizon = services.clock.now_ms() - kept_ms
    if oldest is not None and oldest < horizon:
        raise UsageError(
            f"stream {services.settings.stream} keeps records for {kept_ms / 3_600_000:g} h, since {_iso(horizon)}, "
            f"and no longer those from {_iso(oldest)} on; take them from the lake"
        )


def pages(
    services: Services, shard_id: str, mark: Position, span: Span, most: int = CHUNK_EVENTS
) -> Iterator[tuple[list[StreamRecord], Position]]:
    """A shard's records of the span, some `most` events at a time, each with the mark to go on from; the last
    is done."""
    iterator = None
    while not mark.get("done"):
        iterator = iterator or _iterator(services, shard_id, mark)
        answer = get_page(services.kinesis, iterator, shard_id, services.clock, ReaderSettings())
        if answer is None:
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
            services.clock.sleep(_PAUSE_SECONDS)


def _iterator(services: Services, shard_id: str, mark: Position) -> str:
    if "after" in mark:
        where = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": mark["after"]}
    elif "arrived_ms" in mark:
        seconds = (mark["arrived_ms"] - _SKEW_MS) / 1000
        where = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": datetime.fromtimestamp(seconds, UTC)}
    else:
        where = {"ShardIteratorType": "TRIM_HORIZON"}
    stream = services.settings.stream
    answer = services.kinesis.get_shard_iterator(StreamName=stream, ShardId=shard_id, **where)
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


def decoded(services: Services, records: list[StreamRecord]) -> tuple[pa.Table, dict[str, int]]:
    """The events of the records; and what cannot be read as such."""
    contract, parts = services.pipeline.contract, list[Part]()
    unread = {"invalid": 0, "unreadable_records": 0, "other_contract": 0}
    for found in decode(records, contract):
        if isinstance(found, Part):
            parts.append(found)
            unread["invalid"] += len(found.decoded.invalid)
        elif isinstance(found, Poison):
            unread["unreadable_records"] += 1
        elif isinstance(found[1], OtherContract):
            unread["other_contract"] += found[1].events
    unread = {name: count for name, count in unread.items() if count}
    if not parts:
        empty = contract.arrow_schema.empty_table()
        return _labelled(empty.append_column("_origin", [[]]).append_column("_seq", [[]]), services), unread
    batch = combine(parts, contract.arrow_schema)
    who = identify(batch, records, contract, OriginSets())
    rows = batch.table.append_column("_origin", who.origin).append_column("_seq", pa.array(who.seq))
    return _labelled(rows, services), unread
