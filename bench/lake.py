"""Measure queries over the lake, before and after compaction, with and without buckets, and how soon a commit is
queryable.

Tables on the embedded AWS, made by the project's own writer, publisher and maintenance. Iceberg plans the files, and
DuckDB reads copies of them on the local disk with every read counted: on S3 each is a request of 20 to 50 ms.
Run: python -m bench.lake
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread, local
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem
from pyiceberg.expressions import AlwaysTrue, BooleanExpression, EqualTo

from bench.data import CONTRACT, fleet_events
from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.config import Settings
from headwater.ledger import Commit, PendingFile
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.services import Services
from headwater.sinks.lake.buffer import LakeBuffer
from headwater.sinks.lake.catalog import IcebergTable, open_table
from headwater.sinks.lake.catalogs import open_catalog
from headwater.sinks.lake.compaction import CompactionSizes
from headwater.stream import sequence

DEVICE, ABSENT = "dev-00042", "dev-00042x"
SHARDS = 2


@dataclass
class Counts:
    """Count the reads of files, and their bytes."""

    reads: int = 0
    bytes: int = 0


class CountingFileSystem(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Serve the local disk as `counted:///path` and count every read."""

    protocol = "counted"
    cachable = False

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("counted://")

    def _open(self, path: str, *_: Any, **__: Any) -> Any:
        return _CountingFile(Path(path), self.counts)


class _CountingFile:
    """A file whose place is each thread's own: DuckDB seeks and reads in two calls, and its threads share the file."""

    def __init__(self, path: Path, counts: Counts) -> None:
        self._file = path.open("rb")
        self._counts, self._own = counts, local()

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        self._own.place = place if whence == os.SEEK_SET else self._file.seek(place, whence)
        return int(self._own.place)

    def tell(self) -> int:
        return getattr(self._own, "place", 0)

    def read(self, size: int = -1) -> bytes:
        place = self.tell()
        body = os.pread(self._file.fileno(), os.fstat(self._file.fileno()).st_size if size < 0 else size, place)
        self._own.place = place + len(body)
        self._counts.reads += 1
        self._counts.bytes += len(body)
        return body

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@dataclass(frozen=True)
class Query:
    """Hold a query and the rows that it wants."""

    title: str
    where: BooleanExpression
    sql: str


QUERIES = (
    Query("all: mean by metric", AlwaysTrue(), "SELECT metric, count(*), avg(value) FROM {} GROUP BY 1 ORDER BY 1"),
    Query(
        "one key's readings",
        EqualTo("device", DEVICE),
        f"SELECT epoch_ms(ts), metric, value FROM {{}} WHERE device = '{DEVICE}' ORDER BY ts, _seq",
    ),
    Query("a key never seen", EqualTo("device", ABSENT), f"SELECT count(*) FROM {{}} WHERE device = '{ABSENT}'"),
)


def services_of(table: str, buckets: int | None, **settings: Any) -> Services:
    """Return the services of a pipeline over the embedded AWS."""
    return Services(Settings(**settings), Pipeline(table, CONTRACT).lake(table, buckets=buckets))


def rows_of(events: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the events as a processor hands them to the lake."""
    n = events.num_rows
    own = {
        "_origin": pa.array(["bench"] * n).dictionary_encode(),
        "_seq": pa.array(np.arange(n)),
        "_arrived_at": events["ts"],
    }
    return pa.table([events[name] if name in events.column_names else own[name] for name in schema.names], schema.names)


def commit(services: Services, shard: int, number: int, table: pa.Table) -> list[PendingFile]:
    """Write the rows' files and name them in the ledger."""
    pipeline = services.pipeline
    buffer, name = LakeBuffer(pipeline.lake_schema, pipeline.lake_partitioning), pipeline.lake_to.table
    buffer.append(table)
    files = []
    for at, file in enumerate(buffer.seal()):
        uri = services.objects.put(f"lake/{name}/data/{shard}-{number:06}-{at:04}.parquet", file.body)
        files.append(PendingFile(name, uri, file.rows, len(file.body)))
    entry = services.ledger.shard(f"shard-{shard}") or services.ledger.claim(f"shard-{shard}", "bench", b"", 0)
    services.ledger.commit(entry, Commit(sequence.pad(str(number + 1)), b"", None, files, {}, None, False, 0))
    return files


def fill(services: Services, events: pa.Table, commits: int) -> None:
    """Publish the events in so many commits of each shard."""
    table = rows_of(events, services.pipeline.lake_schema)
    rows = -(-table.num_rows // (commits * SHARDS))
    for at in range(commits * SHARDS):
        commit(services, at % SHARDS, at // SHARDS, table.slice(at * rows, rows))
    services.publisher("bench").drain()


def measure(services: Services, title: str, folder: Path, repeat: int) -> dict[str, list[Any]]:
    """Run each query over the files that Iceberg plans for it and return the answers."""
    table = open_table(services.settings, services.pipeline.lake_to.table)
    tasks = list(table.scan().plan_files())
    size = sum(task.file.file_size_in_bytes for task in tasks)
    print(f"{title}: {len(tasks):,} files, {size / 1e6:.1f} MB")
    answers = {}
    for query in QUERIES:
        began = time.perf_counter()
        planned = [task.file for task in table.scan(query.where).plan_files()]
        planning = time.perf_counter() - began
        paths = [copied(services, file.file_path, folder) for file in planned]
        best, counts, answers[query.title] = ask(query, paths, repeat)
        size = sum(file.file_size_in_bytes for file in planned)
        print(
            f"  {query.title:20} planned {len(planned):4,} files {size / 1e6:6.2f} MB in {planning * 1000:4.0f} ms;"
            f" read {counts.bytes / 1e6:6.2f} MB in {counts.reads:5,} reads, {best * 1000:6.1f} ms"
        )
    return answers


def copied(services: Services, uri: str, folder: Path) -> Path:
    """Return an object's copy on the local disk."""
    path = folder / uri.removeprefix("s3://").replace("/", "_")
    if not path.exists():
        path.write_bytes(services.objects.get(uri.removeprefix(f"s3://{services.objects.bucket}/")))
    return path


def ask(query: Query, paths: Sequence[Path], repeat: int) -> tuple[float, Counts, list[Any]]:
    """Return the time of the fastest run, what one run read, and the answer."""
    files = ", ".join(f"'counted://{path}'" for path in paths)
    best, counts, rows = float("inf"), Counts(), list[Any]()
    for _ in range(repeat if paths else 0):
        counts = Counts()
        with duckdb.connect() as connection:
            connection.register_filesystem(CountingFileSystem(counts))
            connection.execute("SET threads = 1")
            began = time.perf_counter()
            rows = connection.execute(query.sql.format(f"read_parquet([{files}])")).fetchall()
            best = min(best, time.perf_counter() - began)
    return best, counts, rows


def same(a: dict[str, list[Any]], b: dict[str, list[Any]]) -> bool:
    """Return whether two answers are equal, up to the order in which a mean was added up."""
    return all(
        one == other or (isinstance(one, float) and abs(one - other) <= 1e-9 * abs(one))
        for title in a
        for left, right in zip(a[title], b[title], strict=True)
        for one, other in zip(left, right, strict=True)
    )


def freshness(seconds: float, commits: int, table: pa.Table) -> list[float]:
    """Measure from commits at odd moments to a table that has their files, beside a publisher that steps at times."""
    services = services_of(f"fresh_{round(seconds)}", None, publish_seconds=seconds)
    loop, stop = services.publish_loop("bench", lambda _kind, _body: None), Event()
    loop.prepare()
    port = IcebergTable(open_catalog(services.settings), services.settings.database, services.pipeline.name)
    thread = Thread(target=loop.run, args=(stop,))
    thread.start()
    waits, missing, random = list[float](), dict[str, float](), np.random.default_rng(7)
    next_at, number = time.monotonic(), 0
    while number < commits or missing:
        if number < commits and time.monotonic() >= next_at:
            (file,) = commit(services, 0, number, table)
            missing[file.uri] = time.monotonic()
            number, next_at = number + 1, time.monotonic() + random.uniform(0.1, 0.9) * seconds
        for uri in port.read().files & missing.keys():
            waits.append(time.monotonic() - missing.pop(uri))
        time.sleep(0.1)
    stop.set()
    thread.join()
    return sorted(waits)


def main(arguments: Sequence[str]) -> int:
    """Print the tables."""
    options = argparse.ArgumentParser()
    options.add_argument("--events", type=int, default=4_000_000)
    options.add_argument("--commits", type=int, default=30, help="of each of two shards")
    options.add_argument("--buckets", type=int, default=16)
    options.add_argument("--repeat", type=int, default=5)
    options.add_argument("--fresh-commits", type=int, default=8)
    given = options.parse_args(arguments)
    events = fleet_events(given.events, copies=0)
    answers = []
    with EmbeddedAws() as aws, TemporaryDirectory() as name:
        os.environ.update(aws.environment)
        provision(Settings(), shards=1)
        for table, buckets in (("by_day", None), ("by_bucket", given.buckets)):
            services, title = services_of(table, buckets), "day" + (f" and {buckets} buckets" if buckets else "")
            fill(services, events, given.commits)
            answers.append(measure(services, f"by {title}, as written", Path(name), given.repeat))
            began = time.perf_counter()
            report = services.maintenance(CompactionSizes(fewest=2)).compact()
            seconds = time.perf_counter() - began
            print(f"  compaction: {report.rows:,} rows of {report.files_before:,} files in {seconds:.1f} s")
            answers.append(measure(services, f"by {title}, compacted", Path(name), given.repeat))
        for publish_seconds in (Settings().publish_seconds, 5.0):
            few = rows_of(events.slice(0, 1_000), services.pipeline.lake_schema)
            waits = freshness(publish_seconds, given.fresh_commits, few)
            print(
                f"commit to queryable, a step every {publish_seconds:.0f} s: median {waits[len(waits) // 2]:.1f} s,"
                f" worst {waits[-1]:.1f} s of {len(waits)}"
            )
    equal = all(same(answers[0], other) for other in answers[1:])
    print(f"answers equal: {equal}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
