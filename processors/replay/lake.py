"""Read the events of a span of arrival times from the pipeline's lake.

Into the stream that the pipeline itself reads, an event has to go where its readers know it: to a shard that has seen
it, or a descendant. Into any other it goes where its identity says.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from pyiceberg.expressions import And, BooleanExpression, GreaterThanOrEqual, LessThan
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.table import Table

from headwater.errors import HeadwaterError
from headwater.ledger import ShardEntry
from headwater.lineage.members import member_slices
from headwater.processors.ports import OpenTable, PipelineReader, PipelineStores
from headwater.processors.published import wait_until_published
from headwater.processors.replay.chunk import CHUNK_EVENTS, ArrivalSpan, Position, ReplayChunk, identified, placed
from headwater.processors.replay.stream import decoded, iso, pages, shards_in_order
from headwater.processors.shard.snapshots import StateStore
from headwater.stream import sequence

__all__ = ["current_snapshot", "from_lake", "published_table"]


def from_lake(
    reader: PipelineReader,
    span: ArrivalSpan,
    position: Position,
    publish: Callable[[], object],
    *,
    own: bool,
    most: int = CHUNK_EVENTS,
) -> Iterator[ReplayChunk]:
    """Yield the rows of the pipeline's table, at most `most` in a chunk.

    `own`: they go into the stream that the pipeline reads. `publish` makes one step of a publisher. A snapshot that has
    expired since the first call is replaced by the present one, and read from its beginning.

    Raises HeadwaterError when the pipeline has not committed all that arrived in the span.
    """
    stores, contract = reader.stores, reader.stores.pipeline.contract
    _check_committed(reader, span)
    table = published_table(stores, reader.open_table, stores.ledger.shards(), publish)
    if not position or table.snapshot_by_id(position["snapshot"]) is None:
        current = table.current_snapshot()
        if current is None:
            return
        position = {"snapshot": current.snapshot_id, "file": 0, "row": 0}
    hash_keys = _SeenBy(reader).hash_keys if own else None
    wanted, names = _arrived(span), contract.arrow_schema.names
    scan = table.scan(wanted, (*names, "_origin", "_seq", "_arrived_at"), snapshot_id=position["snapshot"])
    # by path: a second call has to meet the files in the same order to go on from a number
    tasks = sorted(scan.plan_files(), key=lambda task: task.file.file_path)
    files = ArrowScan(table.metadata, table.io, scan.projection(), wanted)
    for number, task in enumerate(tasks[position["file"] :], position["file"]):
        rows = identified(files.to_table([task]), contract)
        begin = position["row"] if number == position["file"] else 0
        for start in range(begin, rows.num_rows, most):
            stop = min(start + most, rows.num_rows)
            goes_on = {"file": number, "row": stop} if stop < rows.num_rows else {"file": number + 1, "row": 0}
            kept, left_out = placed(rows.slice(start, stop - start), contract, reader.stream.stream, hash_keys)
            yield ReplayChunk(kept, {"snapshot": position["snapshot"]} | goes_on, left_out)


def published_table(
    stores: PipelineStores, open_table: OpenTable, entries: Sequence[ShardEntry], publish: Callable[[], object]
) -> Table:
    """Return the lake's table once it has every file that these entries name; `publish` makes a publisher's step.

    Raises Retryable when files still wait after a hundred steps, and says what keeps one out.
    """
    wait_until_published(stores.ledger, {file.uri for entry in entries for file in entry.pending}, publish)
    return open_table()


def current_snapshot(table: Table) -> int:
    """Return the id of the table's current snapshot; 0 when it has none."""
    snapshot = table.current_snapshot()
    return 0 if snapshot is None else snapshot.snapshot_id


class _SeenBy:
    """Know for each shard of the stream what the pipeline has committed as seen in it and its ancestors."""

    def __init__(self, reader: PipelineReader) -> None:
        stores = reader.stores
        starts = {shard.shard_id: str(shard.start) for shard in shards_in_order(reader.stream)}
        store = StateStore(stores.pipeline, stores.objects)
        entries = [entry for entry in stores.ledger.shards() if entry.shard_id in starts]
        self._seen = [(starts[entry.shard_id], store.load(entry).seen) for entry in entries]

    def hash_keys(self, rows: pa.Table) -> pa.Array:
        """Return a hash key for each of the rows, which are sorted by identity; null where no shard has seen it."""
        code = np.full(rows.num_rows, -1, np.int64)
        for at, (_, seen) in enumerate(self._seen):
            for start, stop in member_slices(rows, seen):
                # a later shard overwrites an earlier one: a child has its parent's set, and is the one to go to
                code[start:stop] = at
        names = pa.array([start for start, _ in self._seen], pa.string())
        return names.take(pa.array(code, mask=code < 0))


def _arrived(span: ArrivalSpan) -> BooleanExpression:
    start, stop = (iso(ms) for ms in (span.start_ms, span.stop_ms))
    return And(GreaterThanOrEqual("_arrived_at", start), LessThan("_arrived_at", stop))


def _check_committed(reader: PipelineReader, span: ArrivalSpan) -> None:
    """Raise HeadwaterError for an event that arrived in the span and is not committed: it is not in the lake."""
    stores = reader.stores
    for shard in shards_in_order(reader.stream):
        entry = stores.ledger.shard(shard.shard_id)
        if entry is not None and entry.closed:
            continue
        mark = {"after": sequence.unpad(entry.position)} if entry and entry.position != sequence.NONE else {}
        for records, _ in pages(reader.stream, stores.clock, shard.shard_id, mark, span):
            if decoded(stores.pipeline.contract, records, stores.pipeline.decoder)[0].num_rows:
                raise HeadwaterError(
                    f"pipeline {stores.pipeline.name} has not committed all of {shard.shard_id} that arrived before "
                    f"{iso(span.stop_ms)}; wait for it, or take an earlier --to"
                )
