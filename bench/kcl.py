"""Measure events a second through the KCL's stdio protocol on one shard, beside a plain consumer.

The processor reads columnar batches; the consumer on amazon_kclpy reads one JSON event a record.

`stdio`: the very messages of the MultiLangDaemon, written to the consumer and answered, without Java and emulator; the
same events for all but the slow row. `daemon`: the real one over kinesis-local, timed from the end of the first call to
that of the last; kinesis-local takes ever longer to put many small records, so there are few. The plain consumer adds
up one field; the processor does its whole work (lake, view, commits). Run: python -m bench.kcl
"""

import argparse
import base64
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench.data import CONTRACT, fleet_events
from headwater.aws import client
from headwater.clock import SystemClock
from headwater.codec import encode_batch, event_json
from headwater.commands.local.provision import provision
from headwater.config import KclSettings, Settings, environment, use_environment
from headwater.processors.definition.loading import load
from headwater.processors.references import ensure_initial
from headwater.processors.runners.kcl.fleet import daemon_command, find_java
from headwater.processors.runners.kcl.properties import LOGBACK, FleetNames, properties, render
from headwater.processors.runners.kcl.tables import ensure_tables, seed_leases
from headwater.processors.services import Services
from tests.kcl_servers import KclServers, missing, servers


@dataclass(frozen=True)
class Case:
    """Hold one row of the table."""

    name: str
    consumer: str
    records: Sequence[bytes]
    events: int


@dataclass(frozen=True)
class Result:
    """Hold what a case measured."""

    records: int
    bytes: int
    events: int
    seconds: float


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=600_000)
    parser.add_argument("--small-events", type=int, default=12_000)
    wanted = parser.parse_args()
    reason = missing()
    if reason:
        sys.exit(f"bench.kcl is left out: {reason}")
    table = fleet_events(wanted.events)
    plain = event_json(table)
    few = plain[: wanted.small_events]
    small, large = batches(table, 6_000), batches(table, 65_000)
    sys.stdout.write(f"{'':46}{'B/record':>10}{'records/s':>11}{'MB/s':>7}{'events/s':>12}\n")
    with servers() as found:
        use_environment(found.environment)
        replayed = [
            Case("stdio: plain amazon_kclpy, JSON", "plain", plain, len(plain)),
            Case("stdio: headwater, JSON", "headwater", few, len(few)),
            Case("stdio: headwater, columnar, 6,000 a record", "headwater", small, table.num_rows),
            Case("stdio: headwater, columnar, 65,000 a record", "headwater", large, table.num_rows),
        ]
        report([(case, replay(case)) for case in replayed])
        streams = dict[int, str]()
        through = [
            Case("daemon: plain amazon_kclpy, JSON", "plain", few, len(few)),
            Case("daemon: headwater, JSON", "headwater", few, len(few)),
            Case("daemon: headwater, columnar, 6,000 a record", "headwater", small, table.num_rows),
            Case("daemon: headwater, columnar, 65,000 a record", "headwater", large, table.num_rows),
        ]
        report([(case, measure(case, found, streams)) for case in through])


def report(results: Sequence[tuple[Case, Result]]) -> None:
    """Print a result; the first row is what the others are compared with."""
    base = results[0][1].events / results[0][1].seconds
    for case, result in results:
        rate = result.events / result.seconds
        sys.stdout.write(
            f"{case.name:46}{result.bytes // result.records:>10,}{result.records / result.seconds:>11,.0f}"
            f"{result.bytes / result.seconds / 1e6:>7.1f}{rate:>12,.0f}{rate / base:>7.1f}x\n"
        )
    sys.stdout.flush()


def replay(case: Case) -> Result:
    """Send every message and read its answer, a megabyte of records at a time, after an untimed initialize."""
    services = prepared(f"bench-{uuid.uuid4().hex[:8]}", KclSettings())
    messages = [line.encode() for line in protocol(case.records)]
    with tempfile.TemporaryDirectory() as made, (Path(made) / "stderr").open("w+b") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.kclconsumers", case.consumer, str(Path(made) / "notes")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env=own_environment(services.settings),
        )
        started = {"shardId": "shardId-000000000000", "sequenceNumber": "TRIM_HORIZON", "subSequenceNumber": 0}
        try:
            ask(process, json.dumps({"action": "initialize"} | started).encode())
            began = time.perf_counter()
            for message in messages:
                ask(process, message)
            seconds = time.perf_counter() - began
        except (SystemExit, BrokenPipeError):
            process.wait(30)
            said.seek(0)
            raise SystemExit(f"the consumer has ended: {said.read()[-2000:].decode()}") from None
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)
    return Result(len(case.records), sum(map(len, case.records)), case.events, seconds)


def protocol(records: Sequence[bytes]) -> Iterator[str]:
    """Return a processRecords message as the KCL's MessageWriter writes it."""
    batch: list[dict[str, object]] = []
    size = 0
    for at, data in enumerate(records):
        batch.append(
            {
                "action": "record",
                "data": base64.b64encode(data).decode(),
                "partitionKey": "bench",
                "sequenceNumber": str(10**50 + at),
                "subSequenceNumber": 0,
                "approximateArrivalTimestamp": 1_762_160_400_000 + at,
            }
        )
        size += len(data)
        if size >= 1_000_000 or len(batch) == 10_000 or at == len(records) - 1:
            yield json.dumps({"action": "processRecords", "records": batch, "millisBehindLatest": 0})
            batch, size = [], 0


def ask(process: subprocess.Popen[bytes], message: bytes) -> None:
    """Send a message and read until its status, granting checkpoints on the way."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(message + b"\n")
    process.stdin.flush()
    for line in process.stdout:
        if not line.strip():
            continue
        said = json.loads(line)
        if said["action"] == "status":
            return
        process.stdin.write(json.dumps(said | {"error": None}).encode() + b"\n")
        process.stdin.flush()
    raise SystemExit("the consumer has ended")


def batches(table: pa.Table, events: int) -> list[bytes]:
    """Yield sealed batches of one session."""
    return [
        encode_batch(table.slice(first, events), CONTRACT, origin="bench", first_seq=first)
        for first in range(0, table.num_rows, events)
    ]


def measure(case: Case, found: KclServers, streams: dict[int, str]) -> Result:
    """Fill the stream once for all consumers, then run one worker until everything was seen."""
    stream = streams.get(id(case.records))
    name = stream or f"bench-{uuid.uuid4().hex[:8]}"
    # the stream is small, yet what is timed should be several calls
    options: dict[str, Any] = {"max_records": max(1, len(case.records) // 8), "idle_ms": 10}
    kcl = KclSettings(application=f"{name}-{case.consumer}", java_options="-Xmx1g -XX:+UseSerialGC", **options)
    services = prepared(name, kcl)
    if stream is None:
        fill(services, case.records)
        streams[id(case.records)] = name
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        notes = folder / "notes"
        daemon = start(services, found, folder, f"-m bench.kclconsumers {case.consumer} {notes}")
        try:
            return wait(notes, len(case.records), daemon, folder)
        finally:
            os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()


def prepared(name: str, kcl: KclSettings) -> Services:
    """Create the stream, tables and bucket of that name."""
    settings = Settings(
        stream=name,
        ledger_table=f"{name}-ledger",
        views_table=f"{name}-views",
        bucket=f"{name}-lake",
        database=name.replace("-", "_"),
        pipeline="bench.kclpipeline:pipeline",
        commit_seconds=5.0,
        kcl=kcl,
    )
    provision(settings, shards=1)
    services = Services(settings, load(settings.pipeline), SystemClock())
    ensure_initial(services.pipeline, services.ledger, services.objects, services.client)
    return services


def own_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of the consumer's process."""
    own = {name: str(value) for name, value in settings.model_dump().items() if not isinstance(value, dict)}
    return environment({f"HEADWATER_{name.upper()}": value for name, value in own.items()})


def fill(services: Services, records: Sequence[bytes]) -> None:
    """Put all records, in calls of at most 500 records and 4 MB."""
    entries: list[dict[str, object]] = []
    size = 0
    for data in [*records, b""]:
        if entries and (not data or len(entries) == 500 or size + len(data) > 4_000_000):
            answer = services.kinesis.put_records(StreamName=services.settings.stream, Records=entries)
            assert not answer["FailedRecordCount"]
            entries, size = [], 0
        entries.append({"Data": data, "PartitionKey": "bench"})
        size += len(data)


def start(services: Services, found: KclServers, folder: Path, program: str) -> subprocess.Popen[bytes]:
    """Start a worker."""
    settings = services.settings
    names = FleetNames(settings, "bench")
    dynamodb = client("dynamodb", settings)
    ensure_tables(dynamodb, names, settings.kcl)
    seed_leases(services.kinesis, dynamodb, settings.stream, names.table)
    shard = folder / "shard"
    shard.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} {program} 2>>{folder}/stderr\n")
    shard.chmod(0o700)
    endpoints = {"kinesis": found.kinesis, "dynamodb": found.dynamodb, "region": "us-east-1"}
    (folder / "daemon.properties").write_text(render(properties(settings, names, "bench", str(shard), endpoints)))
    (folder / "logback.xml").write_text(LOGBACK)
    return subprocess.Popen(
        daemon_command(find_java("java"), settings.kcl.java_options, folder, plain_json=True),
        stdin=subprocess.DEVNULL,
        stdout=(folder / "daemon.log").open("wb"),
        stderr=subprocess.STDOUT,
        env=own_environment(settings),
        start_new_session=True,
    )


def wait(notes: Path, records: int, daemon: subprocess.Popen[bytes], folder: Path) -> Result:
    """Wait until everything was seen."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and daemon.poll() is None:
        time.sleep(0.5)
        lines = [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
        if sum(line[2] for line in lines) >= records:
            if len(lines) < 2:
                raise SystemExit("all seen in one call, which leaves nothing to time: give more --events")
            total = [sum(line[at] for line in lines[1:]) for at in (2, 3, 4)]
            return Result(total[0], total[1], total[2], lines[-1][1] - lines[0][1])
    errors = folder / "stderr"
    tail = (errors.read_text() if errors.exists() else "") + (folder / "daemon.log").read_text()
    raise SystemExit(f"the consumer did not see all records: {tail[-2000:]}")


if __name__ == "__main__":
    main()
