"""A lake that shards write to, file by file, and the tables of its views."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count as numbers
from typing import Any

import pyarrow as pa
from pyiceberg.table import Table

from headwater.aggregates import count, distinct, first, mean, quantile
from headwater.aggregates import max as max_of
from headwater.aggregates import sum as sum_of
from headwater.aws import Objects, client
from headwater.clock import ManualClock, SystemClock
from headwater.config import Settings
from headwater.contract.iceberg import iceberg_schema, plain_columns
from headwater.ledger import Commit, Ledger, PendingFile
from headwater.processors.audit.views import ViewAudit
from headwater.processors.audit.viewtables import audit_view_tables
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import hopping, tumbling
from headwater.processors.ports import PipelineReader, PipelineStores, StreamClient
from headwater.processors.rebuild.recompute import batch_view, differences
from headwater.processors.viewtables.following import PARTITIONING, FollowReport, ViewTablePorts, follow, position_of
from headwater.processors.viewtables.rows import column_docs, sort_order, table_columns
from headwater.sinks.lake.buffer import LakeBuffer
from headwater.sinks.lake.catalog import IcebergTable, ensure_table, open_table
from headwater.sinks.lake.catalogs import open_catalog
from headwater.sinks.lake.compaction import CompactionSizes
from headwater.sinks.lake.maintenance import Maintenance, MaintenanceSettings
from headwater.sinks.lake.publisher import Publisher
from headwater.sinks.lake.rewrite import SortOrder
from headwater.stream import sequence
from tests.lake import DAY, NOON, contract, new_ledger

__all__ = ["MINUTE", "LakeWorld"]

MINUTE = 60_000
PIPELINE = (
    Pipeline("p", contract=contract(), allowed_lateness="1m")
    .view("minutes", by=["device"], window=tumbling("1m"), table="minutes", events=count(), total=sum_of("status"))
    .view(
        "all",
        by=[],
        window=hopping("3m", every="1m"),
        table="all_devices",
        events=count(),
        last=max_of("ts"),
        mean=mean("status"),
        median=quantile("status", 0.5),
        devices=distinct("device"),
        first=first("device"),
    )
    .lake("metric")
)


@dataclass
class LakeWorld:
    """A lake that shards write to, file by file, and its tables of views."""

    settings: Settings
    pipeline: Pipeline = PIPELINE
    ledger: Ledger = field(default_factory=new_ledger)
    shards: dict[str, list[str]] = field(default_factory=lambda: {"shard-0": [], "shard-1": []})
    seq: Iterator[int] = field(default_factory=lambda: numbers(1))
    stale: dict[str, Table] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.objects = Objects(client("s3", self.settings), self.settings.bucket)
        self.catalog = open_catalog(self.settings)
        ensure_table(self.catalog, self.settings, "metric", iceberg_schema(self.pipeline.contract), DAY)
        catalog, database = self.catalog, self.settings.database
        self.clock = ManualClock(SystemClock().now_ms())
        self.publisher = Publisher(
            self.ledger, lambda name: IcebergTable(catalog, database, name), self.clock, "me", lease_seconds=0
        )

    def list_shards(self, **_: Any) -> dict[str, Any]:
        return {
            "Shards": [
                {
                    "ShardId": name,
                    "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "1"},
                    "SequenceNumberRange": {"StartingSequenceNumber": "0"},
                }
                | dict(zip(("ParentShardId", "AdjacentParentShardId"), parents, strict=False))
                for name, parents in self.shards.items()
            ]
        }

    def commit(self, shard: str, minutes: list[float], mark: float | None = None, *, closed: bool = False) -> None:
        """A commit of events at these minutes after noon; the shard's watermark is there."""
        table = pa.table(
            {
                "device": [f"d{round(at * 7) % 3}" for at in minutes],
                "ts": pa.array([NOON + round(at * MINUTE) for at in minutes], pa.timestamp("ms", "UTC")),
                "status": pa.array([round(at * 10) for at in minutes], pa.int32()),
                "_origin": [shard] * len(minutes),
                "_seq": [next(self.seq) for _ in minutes],
                "_arrived_at": pa.array([NOON] * len(minutes), pa.timestamp("ms", "UTC")),
            },
            schema=self.pipeline.lake_schema,
        )
        buffer = LakeBuffer(self.pipeline.lake_schema, DAY)
        buffer.append(table)
        entry = self.ledger.shard(shard) or self.ledger.claim(shard, "owner", b"", 0)
        position = sequence.pad(str(next(self.seq)))
        base = f"lake/metric/data/{shard}/{entry.epoch:08d}-{entry.position}-{position}"
        files = [
            PendingFile("metric", self.objects.put(f"{base}-{at:04d}.parquet", one.body), one.rows, len(one.body))
            for at, one in enumerate(buffer.seal() if minutes else [])
        ]
        marks = [one for one in (entry.watermark_ms, None if mark is None else NOON + round(mark * MINUTE)) if one]
        now = SystemClock().now_ms()
        self.ledger.commit(entry, Commit(position, b"", None, files, {}, max(marks, default=None), closed, now))

    def open(self, view: Any) -> Table:
        schema = plain_columns(table_columns(view, self.pipeline.schema), column_docs(view))
        return ensure_table(self.catalog, self.settings, view.table, schema, PARTITIONING)

    @property
    def reader(self) -> PipelineReader:
        stores = PipelineStores(self.pipeline, self.ledger, self.objects)
        return PipelineReader(stores, StreamClient(self, "s"), partial(open_table, self.settings, "metric"))

    def ports(self, **changed: Any) -> ViewTablePorts:
        return replace(ViewTablePorts(self.reader, self.open, self.publisher.drain, most=20), **changed)

    def follow(self, **changed: Any) -> list[FollowReport]:
        return list(follow(self.ports(**changed)))

    def maintenance(self, name: str, order: SortOrder) -> Maintenance:
        reload = partial(open_table, self.settings, name)
        how = MaintenanceSettings(order, CompactionSizes(fewest=2))
        return Maintenance(name, reload, self.ledger, self.objects, SystemClock(), how)

    def tidy(self, *, expire: bool) -> None:
        """What maintenance does to all tables."""
        self.publisher.drain()
        of = [("metric", SortOrder("device", "ts"))]
        of += [(str(view.table), sort_order(view)) for view in self.pipeline.views]
        for name, order in of:
            self.maintenance(name, order).compact()
            if expire:
                self.maintenance(name, order).expire(1, SystemClock().now_ms() + 1)

    def rows(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = open_table(self.settings, name).scan().to_arrow().to_pylist()
        return found

    def wrong(self) -> list[str]:
        """What is not as pandas has it, of the windows that the tables say they have."""
        found: list[str] = []
        frame = open_table(self.settings, "metric").scan().to_arrow().to_pandas()
        for view in self.pipeline.views:
            table = open_table(self.settings, str(view.table))
            position, newest = position_of(table), dict[tuple[Any, ...], dict[str, Any]]()
            assert position is not None
            for row in sorted(table.scan().to_arrow().to_pylist(), key=lambda row: row["_revision"]):
                place = (*(row[name] for name in view.by), row["window_start"])
                if place in newest and newest[place]["_revision"] == row["_revision"]:
                    found.append(f"{view.name} {place} is there twice")
                newest[place] = row
            assert view.window is not None
            ended = position.through_ms - view.window.size_ms
            right = {at: row for at, row in batch_view(self.pipeline, view, frame).items() if at[-1] <= ended}
            found += differences(view, right, newest.values())
        return found

    def audits(self, sample: int | None = None) -> list[ViewAudit]:
        database = self.settings.database
        return list(audit_view_tables(self.reader, lambda name: self.catalog.load_table((database, name)), sample))
