"""Measure the whole path in one process: columnar records in memory to Parquet files and view writes in memory.

One core, 1 M events with 5 % copies. Run: python -m bench.path
"""

import argparse
import gc
import resource
import sys
import time
from collections.abc import Sequence

import pyarrow as pa

from bench.data import CONTRACT, devices, fleet_events
from headwater import aggregates as agg
from headwater.clock import ManualClock
from headwater.codec import encode_batch
from headwater.config import Settings
from headwater.ledger import Ledger
from headwater.processors.definition.parts import Reference
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.processors.operators.enrich import ReferenceTable
from headwater.processors.shard.context import Ports, WorkerContext
from headwater.processors.shard.worker import ShardWorker
from headwater.sinks.deadletter import DeadLetters
from headwater.sinks.views.items import ViewSpec
from headwater.sinks.views.slots import Upsert
from headwater.stream.record import StreamRecord
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.testing.objects import MemoryObjects

DEVICES = Reference("devices", "bench.csv", "device", {"site": "string"})
PIPELINE = (
    Pipeline("bench", CONTRACT, allowed_lateness="1m")
    .enrich(DEVICES, on="device")
    .view("site_1m", by=["site", "metric"], window=tumbling("1m"), n=agg.count(), mean=agg.mean("value"))
    .view("fleet_1m", by=["metric"], window=tumbling("1m"), n=agg.count(), low=agg.min("value"), high=agg.max("value"))
    .lake("bench")
)


class MemoryViews:
    """Keep the newest version of each slot, as the table would."""

    def __init__(self) -> None:
        self.slots: dict[tuple[object, ...], Upsert] = {}
        self.writes = 0

    def write(self, view: ViewSpec, upserts: Sequence[Upsert]) -> None:
        """Keep these slots where they are newer."""
        for one in upserts:
            self.slots[view.name, one.key, one.window_start_ms, one.slot] = one
        self.writes += len(upserts)


def run(payloads: Sequence[bytes], records_a_call: int, flush_every: int) -> tuple[float, int, int, MemoryViews]:
    """Return seconds, rows in the lake's files, the files' bytes, and the views."""
    dynamodb, objects, views = MemoryDynamoDB(), MemoryObjects(), MemoryViews()
    keys = [{"AttributeName": "pipeline", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}]
    dynamodb.create_table(TableName="ledger", KeySchema=keys)
    ledger = Ledger(dynamodb, "ledger", PIPELINE.name)
    ledger.put_document("references", {"devices": {"initial": {"version": 1, "uri": "v1"}}}, 0)
    reference = ReferenceTable.of(DEVICES, devices())
    ports = Ports(ledger, objects, views, DeadLetters(objects), lambda _name, _uri: reference)
    clock = ManualClock()
    context = WorkerContext(PIPELINE, ports, Settings(commit_mb=1_000), clock, "bench")
    worker = ShardWorker.claim(context, "shardId-000000000000")
    records = [StreamRecord("shardId-000000000000", str(n), clock.now_ms(), "k", p) for n, p in enumerate(payloads, 1)]
    gc.collect()
    began = time.process_time()
    for turn, at in enumerate(range(0, len(records), records_a_call)):
        worker.process(records[at : at + records_a_call])
        if turn % flush_every == flush_every - 1:
            clock.advance(1_000)
            worker.tick()
    worker.commit()
    seconds = time.process_time() - began
    entry = ledger.shards()[0]
    return seconds, sum(f.rows for f in entry.pending), sum(f.bytes for f in entry.pending), views


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    options = argparse.ArgumentParser()
    options.add_argument("--events", type=int, default=1_000_000)
    options.add_argument("--repeat", type=int, default=3)
    given = options.parse_args(arguments)
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    table = fleet_events(given.events)
    unique = len({*zip(table["device"].to_pylist(), table["seq"].to_pylist(), strict=True)})
    n = table.num_rows
    for size in (5_000, 50_000):
        payloads = [encode_batch(table.slice(at, size), CONTRACT) for at in range(0, n, size)]
        runs = [run(payloads, max(1, 50_000 // size), 4) for _ in range(given.repeat)]
        seconds, rows, size_bytes, views = min(runs, key=lambda one: one[0])
        print(
            f"whole path, batches of {size:6,}: {n / seconds / 1e6:5.2f} M events/s; {rows:,} rows, "
            f"{size_bytes / rows:.1f} bytes a row; {views.writes:,} view writes"
        )
        if rows != unique:
            print(f"WRONG: {unique:,} rows expected")
            return 1
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
