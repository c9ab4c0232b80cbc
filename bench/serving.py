"""Measure how fast views are read and written. `python -m bench.serving [--seconds 8]`

Reading: `headwater serve` is a process on a core of its own, over tables in memory; this process, on another core, is
200 readers that ask again at once over connections they keep, then 500 event streams that all wait for the same writes.
Writing: 10,000 rows a flush into a client that answers at once, then through boto3 into DynamoDB Local where Java and
Maven are there.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from headwater.aggregates.columns import Columns
from headwater.clock import SystemClock
from headwater.config import Settings
from headwater.ledger import Commit
from headwater.processors.definition.loading import load
from headwater.processors.services import Services
from headwater.sinks.views.items import ViewSpec
from headwater.sinks.views.slots import Upsert
from headwater.sinks.views.store import ViewStore
from headwater.sinks.views.table import create_table
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.testing.kinesis import MemoryKinesis

__all__ = ["main"]

READERS, STREAMS, KEYS, ROWS = 200, 500, 1_000, 10_000
READS_MARK, ROWS_MARK = 1_500, 10_000
_START_MS, _SIZE_MS, _WINDOWS = 1_762_160_400_000, 600_000, 6
_VIEW = "device_10m"
_WRITE_SECONDS = 2.0
_READY = "ready "


class InMemory(Services):
    """Stand for what the service reads, without AWS."""

    tables, streams = MemoryDynamoDB(), MemoryKinesis(SystemClock())

    def client(self, service: str) -> Any:
        return {"dynamodb": self.tables, "kinesis": self.streams}[service]

    def fill_table(self) -> None:
        for table, names in (
            (self.settings.ledger_table, ("pipeline", "item")),
            (self.settings.views_table, ("pk", "sk")),
        ):
            self.tables.create_table(TableName=table, KeySchema=[{"AttributeName": name} for name in names])
        self.streams.create_stream(StreamName=self.settings.stream, ShardCount=1)
        entry = self.ledger.claim("shardId-000000000000", "bench", None, _START_MS)
        read = Commit("1".zfill(56), b"", None, (), {}, _START_MS, closed=False, now_ms=_START_MS)
        self.ledger.commit(entry, read)
        for window in range(_WINDOWS):
            self.views.write(self.view_specs[_VIEW], upserts(self.view_specs[_VIEW], range(KEYS), window, 1, 20.0))


def upserts(spec: ViewSpec, keys: Sequence[int], window: int, version: int, value: float) -> list[Upsert]:
    """Return one event more in a window of each key."""
    columns = Columns(spec.aggregates)
    columns.grow(1)
    columns.fold(np.zeros(1, np.int64), pa.table({"value": [value]}), np.zeros(1, np.int64))
    start, partial = _START_MS + window * _SIZE_MS, columns.partial(0)
    return [Upsert((f"dev-{key}",), start, start + _SIZE_MS, "s/0", str(version).zfill(56), partial) for key in keys]


def _serve(core: int) -> None:
    """The service; every two seconds the newest window of the first key says what time it is."""
    from headwater.commands.serving import open_service
    from headwater.serving.api.server import serve

    os.sched_setaffinity(0, {core})
    settings = Settings()
    settings.serve.auth, settings.serve.port = "none", 0
    services = InMemory(settings, load(settings.pipeline))
    services.fill()
    spec, done = services.view_specs[_VIEW], threading.Event()

    def write() -> None:
        for version in range(2, 10_000):
            if done.wait(_WRITE_SECONDS):
                return
            services.views.write(spec, upserts(spec, range(1), _WINDOWS - 1, version, time.perf_counter()))

    writer = threading.Thread(target=write)
    writer.start()
    serve(open_service(services, console=False), settings, lambda url: print(_READY + url, flush=True))
    done.set()
    writer.join()
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"memory_mb": used.ru_maxrss / 1024, "cpu_s": used.ru_utime + used.ru_stime}), flush=True)


@contextmanager
def service(core: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Run the service; yield its authority, and at the end what it used."""
    used: dict[str, float] = {}
    command = [sys.executable, "-m", "bench.serving", "--serve", str(core)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().removeprefix(_READY).strip().removeprefix("http://"), used
        finally:
            process.terminate()
        used |= json.loads(process.stdout.readline())


@dataclass
class WindowsReader:
    """Ask for the windows of one key after the other."""

    authority: str
    rng: np.random.Generator
    latencies: list[float] = field(default_factory=list)

    async def connection(self, until: float) -> None:
        host, port = self.authority.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        while time.perf_counter() < until:
            started = time.perf_counter()
            key = f"dev-{self.rng.integers(KEYS)}"
            writer.write(f"GET /v1/views/{_VIEW}/{key} HTTP/1.1\r\nhost: {self.authority}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            if not head.startswith(b"HTTP/1.1 200") or body.count(b'"window_start"') != _WINDOWS:
                raise SystemExit(f"the service answered {head!r} {body!r}")
            self.latencies.append(time.perf_counter() - started)
        writer.close()

    async def run(self, seconds: float) -> float:
        """Requests a second."""
        started = time.perf_counter()
        await asyncio.gather(*(self.connection(started + seconds) for _ in range(READERS)))
        return len(self.latencies) / (time.perf_counter() - started)


async def stream(authority: str, delays: list[float], opened: asyncio.Barrier, updates: int) -> None:
    """One event stream: how long after each write its event was here."""
    host, port = authority.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    writer.write(f"GET /v1/views/{_VIEW}/stream?key=dev-0 HTTP/1.1\r\nhost: {authority}\r\n\r\n".encode())
    seen = 0
    for _ in range(_WINDOWS):
        await reader.readuntil(b"data: ")
    await opened.wait()
    while seen < updates:
        await reader.readuntil(b"data: ")
        row = json.loads(await reader.readline())
        delays.append(time.perf_counter() - row["most"])
        seen += 1
    writer.close()


async def _streams(authority: str, updates: int) -> list[float]:
    delays: list[float] = []
    opened = asyncio.Barrier(STREAMS)
    async with asyncio.timeout(60):
        await asyncio.gather(*(stream(authority, delays, opened, updates) for _ in range(STREAMS)))
    return delays


def read(seconds: float) -> None:
    """Print how fast 200 readers are answered."""
    with service(0) as (authority, used):
        asyncio.run(WindowsReader(authority, np.random.default_rng(1)).run(1.0))
        reader = WindowsReader(authority, np.random.default_rng(2))
        rate = asyncio.run(reader.run(seconds))
    p50, p99 = np.quantile(reader.latencies, [0.5, 0.99]) * 1000
    print(
        f"{READERS} readers of {KEYS:,} keys, service on one core: {rate:,.0f} requests/s (mark {READS_MARK:,}), "
        f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, memory at most {used['memory_mb']:.0f} MB"
    )


def listen() -> None:
    """Print how soon 500 streams hear of a write."""
    with service(0) as (authority, idle):
        pass
    with service(0) as (authority, used):
        delays = asyncio.run(_streams(authority, 3))
    p50, p99 = np.quantile(delays, [0.5, 0.99])
    print(
        f"{STREAMS} event streams, each with all of 3 updates: {p50:.2f} s after the write (p99 {p99:.2f} s), "
        f"{(used['memory_mb'] - idle['memory_mb']) * 1000 / STREAMS:.0f} kB a stream"
    )


class AtOnce:
    """Stand for DynamoDB: every put is taken, and an item that lists a key is there once it was put."""

    def __init__(self) -> None:
        self._listed: dict[str, dict[str, Any]] = {}

    def put_item(self, *, Item: dict[str, Any], **_: Any) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        if "slots" not in Item:
            self._listed[Item["sk"]["S"]] = Item
        return {}

    def batch_get_item(self, *, RequestItems: dict[str, Any]) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        ((table, asked),) = RequestItems.items()
        places = [key["sk"]["S"] for key in asked["Keys"]]
        return {"Responses": {table: [self._listed[at] for at in places if at in self._listed]}}


def flush(what: str, client: Any, table: str, mark: str = "") -> None:
    """Print how many rows a second a flush writes: of new keys, of known keys in a new window, and rows known."""
    spec, rates = load(Settings().pipeline).views[0].spec, []
    with ThreadPoolExecutor(Settings().view_writers) as pool:
        store = ViewStore(client, table, pool=pool)
        for window, version in ((0, 1), (1, 2), (1, 3)):
            batch = upserts(spec, range(ROWS), window, version, 20.0 + version)
            started = time.perf_counter()
            report = store.write(spec, batch)
            rates.append(f"{ROWS / (time.perf_counter() - started):,.0f}")
            assert report.written == ROWS, report
    print(
        f"flush of {ROWS:,} rows, {what}: of new keys {rates[0]} rows/s, in a new window {rates[1]} rows/s, "
        f"changed {rates[2]} rows/s{mark}",
        flush=True,
    )


class CountingClient:
    """Count the items that a client reads."""

    def __init__(self, client: Any) -> None:
        self._client, self.items = client, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def batch_get_item(self, **request: Any) -> Any:
        self.items += sum(len(one["Keys"]) for one in request["RequestItems"].values())
        return self._client.batch_get_item(**request)

    def get_paginator(self, _operation: str) -> Any:
        return self

    def paginate(self, **request: Any) -> Iterator[Any]:
        for page in self._client.get_paginator("query").paginate(**request):
            self.items += len(page["Items"])
            yield page


def lists(windows: int = 60) -> None:
    """Print how many items are read for what is shown."""
    spec, tables = load(Settings().pipeline).views[0].spec, MemoryDynamoDB()
    tables.create_table(TableName="views", KeySchema=[{"AttributeName": name} for name in ("pk", "sk")])
    client = CountingClient(tables)
    store = ViewStore(client, "views")
    for window in range(windows):
        store.write(spec, upserts(spec, range(KEYS), window, 1, 20.0))
    last, size = _START_MS + (windows - 1) * _SIZE_MS, _SIZE_MS
    found = []
    for read in (
        lambda: store.page(spec, "dev-7", 100, None, last, last + size)[0],
        lambda: list(store.at(spec, [last])),
    ):
        client.items = 0
        rows = len(read())
        found.append(f"{client.items:,} for {rows:,} rows")
    whole = len(tables.scan(TableName="views", ConsistentRead=True)["Items"])
    print(
        f"items read of {whole:,}: a page of the newest window below a prefix {found[0]}; "
        f"that window of every key, as alerts read it, {found[1]}",
        flush=True,
    )


def write() -> None:
    """Print how many rows a second are written."""
    flush("into a stub that answers at once", AtOnce(), "views", f" (mark {ROWS_MARK:,})")
    from tests.kcl_servers import dynamodb_local, missing

    if missing():
        print(f"flush into DynamoDB Local: not measured, {missing()}")
        return
    import boto3

    with dynamodb_local() as url:
        client = boto3.client(
            "dynamodb", endpoint_url=url, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
        )
        create_table(client, "views")
        flush("through boto3 into DynamoDB Local on the same two cores", client, "views")


def main() -> None:
    """Print a line for each measurement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", type=int, metavar="CORE", help="be the service")
    parser.add_argument("--seconds", type=float, default=8.0)
    wanted = parser.parse_args()
    if wanted.serve is not None:
        _serve(wanted.serve)
        return
    lists()
    write()
    os.sched_setaffinity(0, {1 % (os.cpu_count() or 1)})
    read(wanted.seconds)
    listen()


if __name__ == "__main__":
    main()
