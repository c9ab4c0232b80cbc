"""Tables by time and bucket of the key: what a query plans to read, and partitionings that change under a table."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from pyiceberg.expressions import EqualTo
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table
from pyiceberg.transforms import BucketTransform
from pyiceberg.types import StringType

from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.config import Settings
from headwater.errors import Retryable
from headwater.ledger import Ledger
from headwater.processors.audit.run import run_audit
from headwater.processors.definition.loading import load
from headwater.processors.erasure.forget import forget
from headwater.processors.references import ensure_initial
from headwater.processors.services import Services
from headwater.sinks.lake.catalog import open_table
from headwater.sinks.lake.health import health
from headwater.sinks.lake.partitioning import Partitioning
from headwater.sinks.lake.query import lake_query
from headwater.sinks.lake.rewrite import data_files
from tests.integration.test_lake_users import SETTINGS, names, process, produce
from tests.integration.test_maintenance import care
from tests.lake import DAY, aws, commit, ensured, new_ledger, publisher, seqs, settings, uploads

__all__ = ["aws", "settings"]

DEVICES = 12
BUCKETED = Partitioning("ts", "device", "day", 4)


def published(settings: Settings, ledger: Ledger, first: int, *writers: Partitioning) -> int:
    """One more commit, of 12 rows of each writer's, which has that partitioning; the number that follows the last."""
    files = []
    for writer in writers:
        files += uploads(settings, f"rows-{first}", first, DEVICES, partitioning=writer, devices=DEVICES)
        first += DEVICES
    commit(ledger, "s", first, files)
    publisher(settings, ledger, lease_seconds=0).drain()
    return first


def planned(table: Table, device: str) -> set[str]:
    return {task.file.file_path for task in table.scan(EqualTo("device", device)).plan_files()}


def bucket(device: str, buckets: int) -> int | None:
    found: int | None = BucketTransform(buckets).transform(StringType())(device)
    return found


def test_a_query_for_a_key_plans_its_bucket_s_files_only(settings: Settings) -> None:
    """By Iceberg's own rules: a reader knows nothing of the writer; another bucket's files have not the key."""
    ensured(settings, partitioning=BUCKETED)
    rows = published(settings, new_ledger(), 0, BUCKETED, BUCKETED)
    table = open_table(settings, "metric")
    by_path = {file.file_path: file.partition[1] for file in data_files(table)}
    assert len(by_path) == 8
    for device in (f"d{n}" for n in range(DEVICES)):
        assert {by_path[path] for path in planned(table, device)} == {bucket(device, 4)}
        assert len(planned(table, device)) == 2
    assert table.scan(EqualTo("device", "d3")).to_arrow().num_rows == rows // DEVICES


def test_a_table_s_partitioning_follows_its_pipeline(settings: Settings) -> None:
    """Files written by processors that have not heard of it yet go under what they were written for."""
    ensured(settings)
    ledger = new_ledger()
    published(settings, ledger, 0, DAY)
    old = {file.file_path for file in data_files(open_table(settings, "metric"))}
    ensured(settings, partitioning=BUCKETED)
    snapshots = len(open_table(settings, "metric").snapshots())
    rows = published(settings, ledger, DEVICES, DAY, BUCKETED)
    table = open_table(settings, "metric")
    assert len(table.snapshots()) == snapshots + 2
    assert str(table.spec().fields[1].transform) == "bucket[4]"
    assert Counter(file.spec_id for file in data_files(table)) == {0: 2, 1: 4}
    assert health(table)["old_partitionings"] == 2
    assert seqs(settings) == Counter(range(rows))
    for device in (f"d{n}" for n in range(DEVICES)):
        assert len(planned(table, device)) == 3
        assert planned(table, device) >= old
    everything_is_read_by_others(settings, rows)


def everything_is_read_by_others(settings: Settings, rows: int) -> None:
    """polars over Iceberg's metadata, and DuckDB over the files; a key by itself too."""
    frame = pl.scan_iceberg(open_table(settings, "metric"))
    assert sorted(frame.collect()["_seq"].to_list()) == list(range(rows))
    assert frame.filter(pl.col("device") == "d3").collect().height == rows // DEVICES
    sql = "SELECT count(*) AS n, count(DISTINCT _seq) AS d FROM metric"
    assert lake_query(settings, sql).to_pylist() == [{"n": rows, "d": rows}]
    assert lake_query(settings, f"{sql} WHERE device = 'd3'")["n"].to_pylist() == [rows // DEVICES]


CHANGES = [Partitioning("ts", "device", "month", 3), Partitioning("ts", "device", None, None), BUCKETED]


def test_any_partitioning_follows_any_other(settings: Settings) -> None:
    """Rows are the same after each change, and after all small files are rewritten into the present partitioning."""
    ensured(settings)
    ledger, before, number = new_ledger(), DAY, 0
    for partitioning in CHANGES:
        ensured(settings, partitioning=partitioning)
        number = published(settings, ledger, number, before, partitioning)
        before = partitioning
        assert seqs(settings) == Counter(range(number))
    assert len({file.spec_id for file in data_files(open_table(settings, "metric"))}) == len(CHANGES) + 1
    report = care(settings, ledger).compact()
    assert (report.rows, report.overtaken) == (number - DEVICES, 0)  # what came last is in its place
    table = open_table(settings, "metric")
    assert {file.spec_id for file in data_files(table)} == {table.metadata.default_spec_id}
    assert isinstance(table.io, PyArrowFileIO)
    for file in data_files(table):
        store = table.io.fs_by_scheme("s3", settings.bucket)
        keys = pq.read_table(file.file_path.removeprefix("s3://"), filesystem=store)["device"].to_pylist()
        assert {bucket(key, 4) for key in keys} == {file.partition[1]}
    everything_is_read_by_others(settings, number)


def test_a_partitioning_comes_back_with_its_number(settings: Settings) -> None:
    """And one that stays is no new metadata."""
    first = ensured(settings)
    changed = ensured(settings, partitioning=BUCKETED)
    again = ensured(settings)
    assert (first.spec().spec_id, changed.spec().spec_id, again.spec().spec_id) == (0, 1, 0)
    assert ensured(settings).metadata_location == again.metadata_location
    assert len(again.specs()) == 2


def test_a_compaction_is_given_up_when_the_partitioning_changes_under_it(
    settings: Settings,
) -> None:
    """Its file belongs nowhere in the new one. The next compaction makes others."""
    ensured(settings)
    ledger, first = new_ledger(), 0
    for _ in range(2):
        first = published(settings, ledger, first, DAY)
    patch = pytest.MonkeyPatch()

    def overtaken(*arguments: Any) -> None:
        patch.undo()
        ensured(settings, partitioning=BUCKETED)
        raise Retryable("another writer was faster")

    patch.setattr("headwater.sinks.lake.maintenance.replace_files", overtaken)
    report = care(settings, ledger).compact()
    assert (report.groups, report.overtaken) == (0, 1)
    assert {file.spec_id for file in data_files(open_table(settings, "metric"))} == {0}
    assert care(settings, ledger).compact().files_after == 4
    everything_is_read_by_others(settings, first)


@pytest.fixture
def pipelines(aws: EmbeddedAws) -> Iterator[tuple[Services, Services]]:
    """One pipeline before and after its table's partitioning is changed, over a provisioned stream."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in aws.environment.items():
            patch.setenv(name, value)
        provision(SETTINGS, shards=2)
        before = Services(SETTINGS, load(SETTINGS.pipeline))
        after = Services(SETTINGS, before.pipeline.lake("telemetry", partition="hour", buckets=4))
        ensure_initial(before.pipeline, before.ledger, before.objects, before.client)
        yield before, after


def test_a_pipeline_goes_on_in_another_partitioning_and_forgets_exactly(pipelines: tuple[Services, Services]) -> None:
    """A key's rows go from files of both; what else these hold lies in the present one, and the audit is exact."""
    before, after = pipelines
    produce(before, 400, start_ms=1_790_000_000_000)
    process(before, 400)
    before.publisher("test").drain()
    produce(after, 400, start_ms=1_790_000_000_000)
    process(after, 400)
    after.publisher("test").drain()
    assert run_audit(after.reader).exact
    table = open_table(SETTINGS, "telemetry")
    assert {file.spec_id for file in data_files(table)} == {0, 1}
    gone = names(after)[3]
    rows = table.scan(EqualTo("device", gone)).to_arrow().num_rows
    found = forget(after.erasure_ports, gone, "test", lambda: None)
    assert (found.left, found.rows) == ((), rows)
    report = run_audit(after.reader)
    assert report.exact, report
    assert report.in_lake == 800 - rows
    table = open_table(SETTINGS, "telemetry")
    assert gone not in names(after)
    assert {file.spec_id for file in data_files(table)} == {1}
    other = names(after)[0]
    assert {bucket(other, 4)} == {task.file.partition[1] for task in table.scan(EqualTo("device", other)).plan_files()}


def test_a_commit_of_many_days_makes_few_files_which_compaction_divides(settings: Settings) -> None:
    """The days beyond the bound share one file, of no partition; each row is read once before and after."""
    ensured(settings, partitioning=BUCKETED)
    ledger = new_ledger()
    files = uploads(settings, "late", 0, 240, partitioning=BUCKETED, devices=DEVICES, days=40, max_files=6)
    assert (len(files), sum(file.rows for file in files)) == (7, 240)
    commit(ledger, "s", 1, files)
    publisher(settings, ledger).drain()
    assert len(data_files(open_table(settings, "metric"))) == 7
    everything_is_read_by_others(settings, 240)
    care(settings, ledger).compact()
    everything_is_read_by_others(settings, 240)
    table = open_table(settings, "metric")
    assert {file.spec_id for file in data_files(table)} == {table.metadata.default_spec_id} == {0}
