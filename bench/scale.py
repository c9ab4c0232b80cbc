"""Measure queries over a large table: the lake as written and compacted, beside what DuckDB and Spark write by default.

A day of readings at a time. The lake's table is written by the project's own buffer, publisher and compaction, on the
embedded AWS; DuckDB and Spark write the same rows as Parquet with their default settings. DuckDB answers over local
copies of all with one thread, every read counted: on S3 each is a request of 20 to 50 ms. What Iceberg plans is counted
with it; without a table, the answer opens every file. Spark is left out, with a line, where it has not been fetched by
`make test-spark`.
Run: python -m bench.scale --rows 100000000
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue, And, EqualTo, GreaterThanOrEqual, LessThan

from bench.lake import Query, ask, commit, copied, rows_of
from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.config import Settings
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.services import Services
from headwater.sinks.lake.catalog import open_table
from headwater.sinks.lake.compaction import CompactionSizes
from headwater.testing.fleet import Fleet
from tests.spark.server import VERSIONS

DAY_MS, START_MS, DEVICES, DAYS = 86_400_000, 1_761_955_200_000, 5_000, 20
COMMITS = 10
"""Commits of a day."""
_FROM, _TO = "2025-11-03 10:00:00+00", "2025-11-03 11:00:00+00"
_HOUR = And(GreaterThanOrEqual("ts", _FROM.replace(" ", "T") + ":00"), LessThan("ts", _TO.replace(" ", "T") + ":00"))
QUERIES = (
    Query("all: mean by metric", AlwaysTrue(), "SELECT metric, count(*), avg(value) FROM {} GROUP BY 1 ORDER BY 1"),
    Query(
        "an hour, all keys",
        _HOUR,
        f"SELECT metric, count(*) FROM {{}} WHERE ts >= '{_FROM}' AND ts < '{_TO}' GROUP BY 1 ORDER BY 1",
    ),
    Query(
        "a key, all days",
        EqualTo("device", "dev-00042"),
        "SELECT metric, count(*), avg(value) FROM {} WHERE device = 'dev-00042' GROUP BY 1 ORDER BY 1",
    ),
    Query(
        "a key, an hour",
        And(EqualTo("device", "dev-00042"), _HOUR),
        f"SELECT metric, count(*) FROM {{}} WHERE device = 'dev-00042' AND ts >= '{_FROM}' AND ts < '{_TO}'"
        " GROUP BY 1 ORDER BY 1",
    ),
)
_SPARK = """
import sys
from pyspark.sql import SparkSession
build = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").config("spark.driver.memory", "3g")
build = build.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
spark = build.getOrCreate()
spark.read.parquet(sys.argv[1]).write.parquet(sys.argv[2])
"""


def days(rows: int) -> Iterator[Iterator[pa.Table]]:
    """Yield each day's readings, in a table a commit."""
    a_day = rows // DAYS
    for day in range(DAYS):
        start_ms = START_MS + day * DAY_MS
        fleet = Fleet(devices=DEVICES, seed=7, start_ms=start_ms, report_seconds=DAY_MS / 1000 * DEVICES * 8 / a_day)
        yield fleet.batches(a_day, a_day // COMMITS)


def fill(services: Services, rows: int, folder: Path) -> None:
    """Publish the readings, and have DuckDB write each day as it writes a table."""
    (folder / "duckdb").mkdir()
    for number, day in enumerate(days(rows)):
        kept = []
        for at, events in enumerate(day):
            table = rows_of(events, services.pipeline.lake_schema)
            commit(services, at % 2, number * COMMITS + at, table)
            kept.append(table)
        services.publisher("bench").drain()
        whole = pa.concat_tables(kept)
        with duckdb.connect() as connection:
            connection.register("whole", whole)
            connection.execute(f"COPY whole TO '{folder}/duckdb/{number:02}.parquet'")
        print(f"  day {number + 1} of {DAYS}", end="\r", file=sys.stderr, flush=True)


def show(title: str, query: Query, paths: Sequence[Path], planning: float | None) -> list[object]:
    """Print what the query read of the files; return the answer."""
    began = time.process_time()
    _, counts, rows = ask(query, paths, 1)
    spent = time.process_time() - began
    planned = "          " if planning is None else f"{planning * 1000:7.0f} ms"
    print(
        f"  {title:22} {query.title:20} {planned} {len(paths):5,} files {counts.bytes / 1e6:8.1f} MB in"
        f" {counts.reads:6,} reads, {spent:6.2f} s of CPU"
    )
    return [[value if isinstance(value, str) else round(value, 6) for value in row] for row in rows]


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    options = argparse.ArgumentParser()
    options.add_argument("--rows", type=int, default=10_000_000)
    given = options.parse_args(arguments)
    answers: dict[str, list[list[object]]] = {query.title: [] for query in QUERIES}
    with EmbeddedAws() as aws, TemporaryDirectory() as name:
        os.environ.update(aws.environment)
        provision(Settings(), shards=1)
        services, folder = Services(Settings(), Pipeline("scale", contract="telemetry").lake("scale")), Path(name)
        fill(services, given.rows, folder)

        def ours(title: str) -> None:
            table = open_table(services.settings, services.pipeline.lake_to.table)
            sizes = [task.file.file_size_in_bytes for task in table.scan().plan_files()]
            print(f"{title}: {len(sizes):,} files, {sum(sizes) / 1e6:,.0f} MB")
            for query in QUERIES:
                began = time.process_time()
                planned = [task.file for task in table.scan(query.where).plan_files()]
                planning = time.process_time() - began
                paths = [copied(services, file.file_path, folder) for file in planned]
                answers[query.title].append(show(title, query, paths, planning))

        def theirs(title: str, paths: Sequence[Path]) -> None:
            print(f"{title}: {len(paths):,} files, {sum(path.stat().st_size for path in paths) / 1e6:,.0f} MB")
            for query in QUERIES:
                answers[query.title].append(show(title, query, paths, None))

        ours("lake, as written")
        services.maintenance(CompactionSizes(fewest=2)).compact()
        ours("lake, compacted")
        theirs("DuckDB's default", sorted((folder / "duckdb").iterdir()))
        spark = VERSIONS["4.0-iceberg-1.10"].python
        if spark.exists():
            subprocess.run([spark, "-c", _SPARK, folder / "duckdb", folder / "spark"], check=True, capture_output=True)
            theirs("Spark's default", sorted((folder / "spark").glob("*.parquet")))
        else:
            print("Spark's default: left out, make test-spark fetches Spark")
    equal = all(answer == found[0] for found in answers.values() for answer in found)
    print(f"answers equal: {equal}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
