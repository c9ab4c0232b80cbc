"""A stream, a feeder whose events are known to the last one, fleets as processes of their own, and the audit."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from headwater.clock import SystemClock
from headwater.codec import encode_batch
from headwater.commands.local.provision import provision
from headwater.config import KclSettings, Settings
from headwater.processors.audit.report import AuditReport
from headwater.processors.audit.run import run_audit
from headwater.processors.references import ensure_initial
from headwater.processors.services import Services
from tests.kcl_pipeline import pipeline
from tests.waiting import until

__all__ = ["Fleet", "World"]

START_MS = 1_762_160_400_000
COMMAND = [sys.executable, "-c", "from headwater.commands import main; main()", "process", "--on", "kcl"]


@dataclass
class Fleet:
    """`headwater process --on kcl` with its log."""

    process: subprocess.Popen[bytes]
    log: Path
    errors: Path
    started: float = field(default_factory=time.monotonic)

    def lines(self) -> list[dict[str, Any]]:
        """Every line must be JSON: that is part of what is tested."""
        text = self.log.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def said(self, message: str, **fields: Any) -> list[dict[str, Any]]:
        return [
            line
            for line in self.lines()
            if message in line["message"] and all(line.get(name) == value for name, value in fields.items())
        ]

    def port(self) -> int:
        line = until(lambda: self.said("health and metrics on"), 30, "the health port")[0]
        return int(line["message"].rpartition(":")[2])

    def shards(self) -> set[str]:
        """Those it reads, by their last status."""
        states = {line["shard"]: line["state"] for line in self.said("status") if "state" in line}
        return {shard for shard, state in states.items() if state == "reading"}

    def stop(self, seconds: float = 120) -> int:
        """Gracefully."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """The supervisor, its daemons and all their children at once, as a machine dies."""
        self.send(signal.SIGKILL)
        self.process.wait()

    def descendants(self) -> list[int]:
        """Daemons, and the processes of their shards."""
        return _descendants(self.process.pid)

    def send(self, number: signal.Signals) -> None:
        """To all its processes."""
        for pid in [self.process.pid, *_descendants(self.process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _descendants(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for one in Path("/proc").iterdir():
        if one.name.isdigit():
            try:
                parent = int((one / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(one.name))
    found, at = [pid], 0
    while at < len(found):
        found += parents.get(found[at], [])
        at += 1
    return found[1:]


class World:
    """One stream with its ledger, views and lake, named after the test."""

    def __init__(self, name: str, folder: Path, shards: int, **kcl: Any) -> None:
        self.folder = folder
        options: dict[str, Any] = {
            "failover_seconds": 3.0,
            "assignment_seconds": 1.0,
            "shard_sync_seconds": 2.0,
            "http_port": 0,
            "shutdown_seconds": 20.0,
            "java_options": "-XX:TieredStopAtLevel=1 -Xmx256m",
        }
        self.kcl = options | kcl
        self.settings = Settings(
            stream=name,
            ledger_table=f"{name}-ledger",
            views_table=f"{name}-views",
            bucket=f"{name}-lake",
            database=name.replace("-", "_"),
            pipeline="tests.kcl_pipeline:pipeline",
            commit_seconds=1.0,
            view_flush_seconds=0.5,
            kcl=KclSettings(**self.kcl),
        )
        provision(self.settings, shards=shards)
        self.services = Services(self.settings, pipeline, SystemClock())
        ensure_initial(pipeline, self.services.ledger, self.services.objects, self.services.client)
        self.kinesis = self.services.kinesis
        self.put: dict[str, int] = {}
        self._fleets = 0

    def environment(self, **extra: str) -> dict[str, str]:
        plain = {name: value for name, value in self.settings.model_dump().items() if not isinstance(value, dict)}
        own = plain | {f"kcl_{name}": value for name, value in self.kcl.items()}
        return os.environ | {f"HEADWATER_{name.upper()}": str(value) for name, value in own.items()} | extra

    @contextmanager
    def fleet(self, workers: int = 1, **extra: str) -> Iterator[Fleet]:
        """A machine of the fleet."""
        self._fleets += 1
        log, errors = self.folder / f"fleet{self._fleets}.jsonl", self.folder / f"fleet{self._fleets}.err"
        with log.open("wb") as out, errors.open("wb") as err:
            process = subprocess.Popen(
                [*COMMAND, "--workers", str(workers)],
                stdout=out,
                stderr=err,
                env=self.environment(**extra),
                cwd=Path(__file__).parent.parent,
            )
        fleet = Fleet(process, log, errors)
        try:
            yield fleet
        finally:
            if process.poll() is None:
                fleet.kill()

    def feed(self, origin: str, batches: int, events: int = 50, *, copies: int = 1, shard: str | None = None) -> None:
        """Sealed batches, each with its own place in the hash space; copies land where the first did."""
        for _ in range(batches):
            first = self.put.get(origin, 0)
            body = encode_batch(_table(first, events), pipeline.contract, origin=origin, first_seq=first)
            place = self._place(shard) if shard else str(int(hashlib.md5(f"{origin}:{first}".encode()).hexdigest(), 16))
            for _ in range(copies):
                self.kinesis.put_record(
                    StreamName=self.settings.stream, Data=body, PartitionKey=origin, ExplicitHashKey=place
                )
            self.put[origin] = first + events

    def _place(self, shard: str) -> str:
        found = self.kinesis.list_shards(StreamName=self.settings.stream)["Shards"]
        key: str = next(one["HashKeyRange"]["StartingHashKey"] for one in found if one["ShardId"] == shard)
        return key

    def events(self) -> int:
        return sum(self.put.values())

    def processed(self) -> int:
        """Events that are committed, copies left out."""
        counts = [entry.counts for entry in self.services.ledger.shards()]
        return sum(count.get("events", 0) - count.get("duplicates", 0) for count in counts)

    def wait_processed(self, seconds: float = 90.0) -> None:
        until(
            lambda: self.processed() >= self.events(),
            seconds,
            lambda: f"{self.processed()} of {self.events()} processed",
        )

    def audit(self) -> AuditReport:
        """Publish what is pending, then compare every hop, the view among them, with what was put."""
        publisher = self.services.publisher("test")
        publisher.drain()
        report = run_audit(self.services.reader)
        assert {one.origin: one.in_lake for one in report.origins} == self.put
        assert report.exact, [one for one in report.origins if not one.exact]
        assert not report.pending_files
        seen = sum(int(row["events"]) for row in self.view_rows())
        assert seen == self.events(), (seen, self.events())
        return report

    def view_rows(self) -> list[Mapping[str, Any]]:
        spec = self.services.view_specs["by_metric"]
        return list(self.services.views.rows(spec))

    def open_shards(self) -> list[dict[str, Any]]:
        found = self.kinesis.list_shards(StreamName=self.settings.stream)["Shards"]
        still = [one for one in found if "EndingSequenceNumber" not in one["SequenceNumberRange"]]
        return sorted(still, key=lambda one: int(one["HashKeyRange"]["StartingHashKey"]))

    def split(self, shard: dict[str, Any]) -> None:
        low, high = (int(shard["HashKeyRange"][name]) for name in ("StartingHashKey", "EndingHashKey"))
        self.kinesis.split_shard(
            StreamName=self.settings.stream,
            ShardToSplit=shard["ShardId"],
            NewStartingHashKey=str((low + high) // 2),
        )
        self._wait_active()

    def merge(self, left: dict[str, Any], right: dict[str, Any]) -> None:
        self.kinesis.merge_shards(
            StreamName=self.settings.stream, ShardToMerge=left["ShardId"], AdjacentShardToMerge=right["ShardId"]
        )
        self._wait_active()

    def _wait_active(self) -> None:
        until(
            lambda: (
                self.kinesis.describe_stream_summary(StreamName=self.settings.stream)["StreamDescriptionSummary"][
                    "StreamStatus"
                ]
                == "ACTIVE"
            ),
            30,
            "an active stream",
        )


def _table(first: int, count: int) -> pa.Table:
    columns: dict[str, list[object]] = {
        "device": [f"d{(first + i) % 7}" for i in range(count)],
        "metric": [f"m{(first + i) % 3}" for i in range(count)],
        "ts": [START_MS + (first + i) * 10 for i in range(count)],
        "value": [float((first + i) % 11) for i in range(count)],
    }
    for name in ("unit", "region", "firmware", "status"):
        columns[name] = [None] * count
    return pa.table(
        {
            one.name: pa.array(columns[one.name], pa.int64()).cast(one.type)
            if pa.types.is_timestamp(one.type)
            else pa.array(columns[one.name], one.type)
            for one in pipeline.contract.arrow_schema
        }
    )
