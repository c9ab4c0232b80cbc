"""One shard in memory, with a pipeline that has every kind of step and the limits of DynamoDB."""

import json
from typing import Any

import numpy as np
import pyarrow as pa

from headwater.aggregates import count, distinct, last, mean, quantile, sum
from headwater.clock import ManualClock
from headwater.config import Settings
from headwater.contract import Contract, parse_contract
from headwater.errors import Retryable, UsageError
from headwater.ledger import Ledger
from headwater.processors.definition.parts import Reference
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.processors.engine.state import ShardState
from headwater.processors.operators.enrich import ReferenceTable
from headwater.processors.shard.context import Ports, WorkerContext
from headwater.processors.shard.worker import Rewound, ShardWorker
from headwater.sinks.deadletter import DeadLetters
from headwater.sinks.views.store import ViewStore
from headwater.stream.record import StreamRecord
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.testing.objects import MemoryObjects

SHARD, START, DAY = "shardId-000000000000", 1_772_366_400_000, 86_400_000
FIELDS = """
fields:
  - {name: device, type: string}
  - {name: n, type: long}
  - {name: ts, type: timestamp}
  - {name: value, type: double, required: false, maximum: 1000}
  - {name: note, type: string, required: false}
"""
IDS = {"none": "", "pair": "id: {origin: device, seq: n}\n", "text": "id: device\n"}
CONTRACTS = {
    kind: parse_contract(f"name: reading\nversion: 1\nkey: device\ntime: ts\n{own}{FIELDS}", kind)
    for kind, own in IDS.items()
}
DEVICES = Reference("devices", "devices.csv", "device", {"site": "string"})
TABLE = ReferenceTable.of(DEVICES, pa.table({"device": ["d1"], "site": ["s"]}))


def pipeline(contract: Contract, buckets: int | None = None) -> Pipeline:
    return (
        Pipeline("t", contract, allowed_lateness="2m")
        .enrich(DEVICES, on="device")
        .map(unlucky, adds={"twice": "double"})
        .view(
            "w", by=["device"], window=tumbling("1m"), n=count(), s=sum("n"), l=last("note"), q=quantile("value", 0.5)
        )
        .view("k", by=["note", "value"], m=mean("twice"), d=distinct("note"))
        .lake("t", buckets=buckets)
    )


def unlucky(events: pa.Table) -> pa.Table:
    values = events["value"].to_pylist()
    if 13.0 in values:
        raise ValueError("13")
    return pa.table({"twice": pa.array([None if value is None else value * 2 for value in values], pa.float64())})


def load_reference(_name: str, uri: str) -> ReferenceTable:
    if uri != "first":
        raise UsageError(f"no version at {uri}")
    return TABLE


class Shard:
    """A worker in memory, with DynamoDB's limits."""

    def __init__(self, of: Pipeline, db: Any = None) -> None:
        self.db, self.objects, self.clock = db or MemoryDynamoDB(), MemoryObjects(), ManualClock(START)
        for table, keys in {"l": ("pipeline", "item"), "v": ("pk", "sk")}.items():
            schema = [{"AttributeName": n, "KeyType": k} for n, k in zip(keys, ("HASH", "RANGE"), strict=True)]
            self.db.create_table(TableName=table, KeySchema=schema)
        self.ledger = Ledger(self.db, "l", "t")
        self.ledger.put_document("references", {"devices": {"initial": {"version": 1, "uri": "first"}}}, 0)
        self.of, self.records, self.published = of, list[StreamRecord](), 0
        self.worker = self.claim()

    def claim(self) -> ShardWorker:
        views = ViewStore(self.db, "v", clock=self.clock, chance=lambda: 0.5)
        ports = Ports(self.ledger, self.objects, views, DeadLetters(self.objects), load_reference)
        return ShardWorker.claim(WorkerContext(self.of, ports, Settings(), self.clock, "me"), SHARD)

    def put(self, *datas: bytes, publish: bool = True) -> None:
        """Add records, and take them in together as a reader does."""
        for at, data in enumerate(datas, len(self.records)):
            self.records.append(StreamRecord(SHARD, f"4966{at + 1:052d}", START + at, "pk", data))
        self.take(publish=publish)

    def take(self, *, publish: bool = True) -> None:
        """Take in the records beyond the position, with a publisher that makes room where there is none."""
        for _ in range(100):
            try:
                self.worker.process(self.records)
                return
            except Rewound:
                continue
            except Retryable:
                if not publish:
                    raise
                self.publish()
        raise AssertionError("there is never room")

    def publish(self) -> None:
        """Take every pending file out of the ledger."""
        for (entry,) in iter(self.ledger.shards, None):
            if not entry.pending:
                return
            self.published += sum_of(file.rows for file in entry.pending[:50])
            self.ledger.take(entry, range(min(50, len(entry.pending))))

    def commit(self) -> None:
        try:
            self.worker.commit()
        except Retryable:
            self.publish()
            self.worker.commit()

    @property
    def counts(self) -> dict[str, int]:
        return self.worker.engine.state.counts

    def letters(self) -> list[Any]:
        return list(DeadLetters(self.objects).list("t"))

    def check(self) -> None:
        """Nothing is lost, and everything fits."""
        got = self.counts
        unique = got.get("events", 0) - got.get("duplicates", 0)
        assert unique == got.get("lake", 0) + got.get("dead_events", 0) + got.get("filtered", 0), got
        (entry,) = self.ledger.shards()
        assert self.published + sum_of(file.rows for file in entry.pending) == got.get("lake", 0)
        ShardState.loads(self.of, self.worker.engine.state.dumps())


def sum_of(numbers: Any) -> int:
    return int(np.sum(list(numbers), dtype=np.int64))


def event(at: int, /, **changes: Any) -> dict[str, Any]:
    n = at
    return {"device": f"d{n % 3}-{n}", "n": n, "ts": START + n, "value": 1.0, "note": "x"} | changes


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()
