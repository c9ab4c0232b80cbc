"""A pipeline whose events go on to another: one shard, whose owner may die in any call, and the other stream."""

import io
from collections import Counter
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from headwater.aggregates import count
from headwater.clock import ManualClock
from headwater.codec import encode_batch
from headwater.config import Settings
from headwater.contract import Contract, parse_contract
from headwater.controlkeys import ensure_control_key, streams
from headwater.ledger import Ledger
from headwater.processors.controls import ControlCheck
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.shard.context import Ports, WorkerContext
from headwater.processors.shard.worker import ShardWorker
from headwater.sinks.deadletter import DeadLetters
from headwater.sinks.streams import KinesisStreams
from headwater.sinks.views.store import ViewStore
from headwater.stream.record import StreamRecord
from headwater.testing import MemoryDynamoDB
from headwater.testing.kinesis import MemoryKinesis
from headwater.testing.objects import MemoryObjects

SHARD, START = "shardId-000000000000", 1_772_366_400_000


def contract(name: str, more: str = "", own: str = "") -> Contract:
    fields = "  - {name: device, type: string}\n  - {name: ts, type: timestamp}\n  - {name: n, type: long}\n"
    return parse_contract(f"name: {name}\nversion: 1\nkey: device\ntime: ts\n{own}fields:\n{fields}{more}", name)


READING = contract("reading")
DOUBLED = contract("doubled", more="  - {name: twice, type: long}\n")
OWN = contract("own", own="id: {origin: device, seq: n}\n")


def times(factor: int) -> Callable[[pa.Table], pa.Table]:
    return lambda events: pa.table({"twice": pc.multiply(events["n"], factor)})


def first(factor: int = 2, lowest: int = 0, pure: bool = True) -> Pipeline:
    """A version of the first pipeline's code: what it computes, and what it sends on."""
    return (
        Pipeline("first", READING)
        .map(times(factor), adds={"twice": "long"}, pure=pure)
        .view("devices", by=["device"], events=count())
        .to_stream("doubled", contract=DOUBLED, where=lambda events: pc.greater_equal(events["n"], lowest))
        .lake("first")
    )


SECOND = Pipeline("second", DOUBLED).lake("second")


class Died(BaseException):
    """The process is gone."""


class Mortal:
    """A client in whose call, of those of all clients that share a countdown, the process dies."""

    def __init__(self, inner: Any, world: "World") -> None:
        self._inner, self._world = inner, world

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found) or name in ("get_paginator", "exceptions"):
            return found

        def call(*arguments: Any, **request: Any) -> Any:
            self._world.calls += 1
            at = self._world.calls
            if self._world.dies == (at, "before"):
                raise Died
            answer = found(*arguments, **request)
            if self._world.dies == (at, "after"):
                raise Died
            return answer

        return call


class World:
    """A stream's one shard, the other stream with two, and what both pipelines keep."""

    def __init__(self, pause_ms: int = 1_000) -> None:
        self.clock, self.pause_ms = ManualClock(START), pause_ms
        self.db, self.objects, self.kinesis = MemoryDynamoDB(), MemoryObjects(), MemoryKinesis(self.clock)
        for table, keys in {"ledger": ("pipeline", "item"), "views": ("pk", "sk")}.items():
            schema = [{"AttributeName": n, "KeyType": k} for n, k in zip(keys, ("HASH", "RANGE"), strict=True)]
            self.db.create_table(TableName=table, KeySchema=schema)
        self.kinesis.create_stream(StreamName="doubled", ShardCount=2)
        self.calls, self.dies = 0, (0, "")
        self.records: list[StreamRecord] = []

    def load(self, batches: int, events: int = 3) -> None:
        for at in range(batches):
            rows = [{"device": f"d{n % 2}", "ts": START + n, "n": n} for n in range(at * events, (at + 1) * events)]
            table = pa.Table.from_pylist(rows, schema=READING.arrow_schema)
            data = encode_batch(table, READING, origin="o", first_seq=at * events)
            self.records.append(StreamRecord(SHARD, str(100 + at), START + at, "k", data))

    def owner(self, pipeline: Pipeline, shard: str = SHARD) -> ShardWorker:
        db: Any = Mortal(self.db, self)
        objects: Any = Mortal(self.objects, self)
        key = ensure_control_key("doubled", streams(self.db, "ledger"))
        ledger = Ledger(db, "ledger", pipeline.name)
        out = KinesisStreams(Mortal(self.kinesis, self), lambda _: key, self.clock, lambda: 0.5)
        views, letters = ViewStore(db, "views", clock=self.clock), DeadLetters(objects)
        check = ControlCheck(key, pipeline.name, ledger)
        ports = Ports(ledger, objects, views, letters, lambda _n, _u: pytest.fail("no tables"), check, out)
        return ShardWorker.claim(WorkerContext(pipeline, ports, Settings(), self.clock, "me"), shard)

    def life(self, pipeline: Pipeline, *, dies: tuple[int, str] = (0, "")) -> bool:
        """Read all records in turn, flush and commit as time goes, and end the shard; True unless it died."""
        self.calls, self.dies = 0, dies
        try:
            worker = self.owner(pipeline)
            for at, record in enumerate(self.records):
                worker.process([record])
                self.clock.advance(self.pause_ms)
                worker.tick()
                if at % 4 == 3:
                    worker.commit()
            worker.commit(closed=True)
        except Died:
            return False
        finally:
            self.dies = (0, "")
        return True

    def read_on(self) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """What the second pipeline makes of the other stream: its rows, and its counts."""
        rows, counts = [], Counter[str]()
        for shard in self.kinesis.list_shards(StreamName="doubled")["Shards"]:
            worker = self.owner(SECOND, shard["ShardId"])
            iterator = self.kinesis.get_shard_iterator(
                StreamName="doubled", ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            found = self.kinesis.get_records(ShardIterator=iterator, Limit=10_000)["Records"]
            worker.process(
                [
                    StreamRecord(shard["ShardId"], one["SequenceNumber"], self.clock.now_ms(), "k", one["Data"])
                    for one in found
                ]
            )
            worker.commit()
            counts.update(worker.engine.state.counts)
            accepted = {name: worker.engine.state.accepted.get(name) for name in worker.engine.state.accepted.origins()}
            self.accepted = {name: list(one) for name, one in accepted.items()}
            for file in worker.entry.pending:
                body = io.BytesIO(self.objects.get(file.uri.removeprefix("s3://memory/")))
                rows += pq.read_table(body).to_pylist()
        return rows, dict(counts)
