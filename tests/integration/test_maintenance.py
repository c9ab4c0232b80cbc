"""Maintenance of real Iceberg tables beside the publisher: rows stay the very same, and crashes harm nothing."""

from contextlib import suppress
from dataclasses import replace
from functools import partial
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.table import snapshots as iceberg_snapshots

from headwater.aws import Objects, client
from headwater.clock import ManualClock, SystemClock
from headwater.config import Settings
from headwater.errors import HeadwaterError, Retryable, UsageError
from headwater.ledger import Ledger
from headwater.sinks.lake import maintenance
from headwater.sinks.lake import rewrite as rewriting
from headwater.sinks.lake.catalog import IcebergTable, open_table
from headwater.sinks.lake.catalogs import open_catalog
from headwater.sinks.lake.compaction import CompactionSizes
from headwater.sinks.lake.health import freshness, health
from headwater.sinks.lake.maintenance import LEAST_AGE_MS, Maintenance, MaintenanceSettings, live_objects
from headwater.sinks.lake.rewrite import SortOrder, data_files
from tests.lake import aws, commit, ensured, new_ledger, publisher, settings, upload

__all__ = ["aws", "settings"]

SMALL = CompactionSizes(target=8 << 20, small=4 << 20, fewest=2)


def care(settings: Settings, ledger: Ledger, clock: Any = None) -> Maintenance:
    objects = Objects(client("s3", settings), settings.bucket)
    how, catalog = MaintenanceSettings(SortOrder("device", "ts"), SMALL), open_catalog(settings)
    reload = partial(open_table, settings, "metric", catalog)
    return Maintenance("metric", reload, ledger, objects, clock or SystemClock(), how)


def rows(settings: Settings) -> list[dict[str, Any]]:
    found: pa.Table = open_table(settings, "metric").scan().to_arrow()
    return sorted(found.to_pylist(), key=lambda row: (row["_origin"], row["_seq"]))


def filled(settings: Settings, files: int = 6) -> Ledger:
    """Published files of one day, out of the ledger."""
    ensured(settings)
    ledger = new_ledger()
    commit(ledger, "s", 1, [upload(settings, f"shard-1/00000001-{n}", 3 * n) for n in range(files)])
    publisher(settings, ledger, lease_seconds=0).drain()
    return ledger


def test_commits_rewrite_the_manifests_of_those_before_them(settings: Settings) -> None:
    """So their number is bounded however many commits there are; here from three on, where tables have a hundred."""
    with ensured(settings).transaction() as change:
        change.set_properties({"commit.manifest.min-count-to-merge": "3"})
    ledger, most = new_ledger(), 0
    for n in range(6):
        commit(ledger, "s", n + 1, [upload(settings, f"shard-1/{n + 1:08d}", 3 * n)])
        publisher(settings, ledger, lease_seconds=0).drain()
        most = max(most, int(health(open_table(settings, "metric"))["manifests"]))
    assert len(rows(settings)) == 18
    assert most <= 3


def test_history_is_bounded_by_those_who_write_it(settings: Settings) -> None:
    """Snapshots, metadata and manifests stay few while nobody maintains it; rows and kept snapshots are whole."""
    with ensured(settings).transaction() as change:
        change.set_properties({"commit.manifest.min-count-to-merge": "3", "write.metadata.previous-versions-max": "3"})
    catalog, pinned = open_catalog(settings), [1]
    table = IcebergTable(catalog, settings.database, "metric", lambda: pinned, keep=4)
    most = 0
    for n in range(14):
        table.read()
        assert table.add([upload(settings, f"s/{n}", 3 * n).uri]) == {}
        there = open_table(settings, "metric")
        assert all(there.scan(snapshot_id=one.snapshot_id).to_arrow().num_rows for one in there.snapshots())
        if n > 6:
            objects = list(Objects(client("s3", settings), settings.bucket).list("lake/metric/metadata/"))
            most = max(most, len(there.snapshots()))
            assert len(objects) <= 4 + 2 * 5 + 4 + 3, objects
    assert most == 4
    assert len(rows(settings)) == 3 * 14
    assert live_objects(there) <= {f"s3://{settings.bucket}/{key}" for key in everything(settings)}
    pinned[:] = [there.snapshots()[0].snapshot_id]
    for n in range(14, 17):
        table.read()
        table.add([upload(settings, f"s/{n}", 3 * n).uri])
    assert len(open_table(settings, "metric").snapshots()) == 7


def test_snapshots_are_kept_in_their_order_whatever_clocks_they_were_made_by(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The publisher's clock is an hour ahead: its snapshot is not the newest for that."""
    ledger, now = filled(settings), SystemClock().now_ms()
    ahead = SimpleNamespace(time=lambda: now / 1000 + 3_600)
    with monkeypatch.context() as patch:
        patch.setattr(iceberg_snapshots, "time", ahead)
        commit(ledger, "s", 2, [upload(settings, "shard-1/00000002-0", 100)])
        publisher(settings, ledger, lease_seconds=0).drain()
    keeper = care(settings, ledger)
    assert keeper.compact().files_after == 1
    assert keeper.expire(1, now + 7_200_000).kept == 1
    table = open_table(settings, "metric")
    assert [one.snapshot_id for one in table.snapshots()] == [table.metadata.current_snapshot_id]


def everything(settings: Settings) -> list[str]:
    return list(Objects(client("s3", settings), settings.bucket).list("lake/metric/"))


def test_a_table_has_no_archive_of_its_versions_in_glue(settings: Settings) -> None:
    """Glue keeps each version else, up to a limit at which it refuses commits."""
    ensured(settings)
    catalog, asked = open_catalog(settings), list[bool]()
    send = catalog.glue.update_table

    def noted(**request: Any) -> Any:
        asked.append(request["SkipArchive"])
        return send(**request)

    catalog.glue.update_table = noted
    table = IcebergTable(catalog, settings.database, "metric")
    table.read()
    table.add([upload(settings, "s/0", 0).uri])
    assert asked == [True]


def test_small_files_become_one_sorted_file_of_the_same_rows(settings: Settings) -> None:
    """Then there is nothing left to do; the old files are still there for time travel until their snapshot expires."""
    ledger = filled(settings)
    before, snapshot = rows(settings), open_table(settings, "metric").current_snapshot()
    assert snapshot is not None
    report = care(settings, ledger).compact()
    assert (report.files_before, report.files_after, report.rows, report.overtaken) == (6, 1, 18, 0)
    table = open_table(settings, "metric")
    assert rows(settings) == before
    (task,) = table.scan().plan_files()
    assert task.file.file_path.startswith(f"s3://{settings.bucket}/lake/metric/data/compacted/")
    read = table.scan().to_arrow().to_pylist()
    assert read == sorted(read, key=lambda row: (row["device"], row["ts"]))
    assert table.scan(snapshot_id=snapshot.snapshot_id).to_arrow().num_rows == 18
    assert care(settings, ledger).compact().groups == 0
    figures = health(table)
    assert (figures["files"], figures["rows"], figures["partitions"]) == (1, 18, 1)


def test_rows_that_do_not_fit_are_joined_with_more_memory(settings: Settings) -> None:
    """A limit below what DuckDB needs for any sort at all is as rows that are too wide."""
    ledger = filled(settings, 2)
    before, keeper = rows(settings), care(settings, ledger)
    tight = replace(keeper, settings=replace(keeper.settings, memory="100KB"))
    assert tight.compact().files_after == 1
    assert rows(settings) == before


def test_pending_files_are_left_alone(settings: Settings) -> None:
    """The publisher goes by path: what compaction had replaced, it would add again."""
    ledger = filled(settings, 3)
    pending = [upload(settings, f"late-{n}", 100 + 3 * n) for n in range(4)]
    commit(ledger, "s", 2, pending)
    steps = publisher(settings, ledger, lease_seconds=0)
    steps.step()
    assert {file.uri for file in pending} <= {
        t.file.file_path for t in open_table(settings, "metric").scan().plan_files()
    }
    report = care(settings, ledger).compact()
    assert report.files_before == 3
    steps.drain()
    assert len(rows(settings)) == 9 + 12
    assert care(settings, ledger).compact().files_before == 5
    assert len(rows(settings)) == 9 + 12
    assert [entry.pending for entry in ledger.shards()] == [()]


def test_rows_are_the_same_while_a_publisher_writes_on(settings: Settings) -> None:
    """On a catalog that checks no version: either may be overtaken and lose, and comes again."""
    ledger, stop, errors = filled(settings, 2), Event(), list[BaseException]()
    keeper = care(settings, ledger)

    def compacting() -> None:
        try:
            while not stop.is_set():
                with suppress(Retryable):
                    keeper.compact()
        except BaseException as error:
            errors.append(error)

    thread = Thread(target=compacting)
    thread.start()
    steps = publisher(settings, ledger, lease_seconds=0)
    try:
        for position in range(2, 10):
            commit(
                ledger, "s", position, [upload(settings, f"{position}-{n}", 1000 * position + 3 * n) for n in range(3)]
            )
            with suppress(Retryable):
                steps.step()
        steps.drain()
    finally:
        stop.set()
        thread.join()
    assert errors == []
    wanted = [*range(6), *(1000 * p + n for p in range(2, 10) for n in range(9))]
    assert [row["_seq"] for row in rows(settings)] == wanted
    keeper.compact()
    assert [row["_seq"] for row in rows(settings)] == wanted


class Crash(BaseException):
    """The process is gone."""


STEPS = [
    "rewriting.describe",
    "maintenance.replace_files before",
    "maintenance.replace_files after",
    "objects.put",
]


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step_leaves_the_rows(settings: Settings, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it left behind is an orphan as soon as it is old; no earlier, and with nothing else."""
    ledger = filled(settings)
    before, keeper = rows(settings), care(settings, ledger)
    with monkeypatch.context() as patch:
        _break(patch, keeper, step)
        with pytest.raises(Crash):
            keeper.compact()
    assert rows(settings) == before
    later = ManualClock(SystemClock().now_ms() + 2 * LEAST_AGE_MS)
    assert not care(settings, ledger).orphans(SystemClock().now_ms() - LEAST_AGE_MS, remove=True).objects
    removed = care(settings, ledger, later).orphans(later.now_ms() - LEAST_AGE_MS, remove=True)
    left = [uri for uri in removed.objects if uri.endswith(".parquet")]
    assert len(left) == (0 if step in ("maintenance.replace_files after", "objects.put") else 1)
    assert rows(settings) == before
    assert care(settings, ledger).compact().groups == (0 if step == "maintenance.replace_files after" else 1)
    assert rows(settings) == before


def _break(patch: pytest.MonkeyPatch, keeper: Maintenance, step: str) -> None:
    def crash(*_: Any, **__: Any) -> Any:
        raise Crash

    def then_crash(*arguments: Any, **options: Any) -> Any:
        rewriting.replace_files(*arguments, **options)
        raise Crash

    if step == "objects.put":
        patch.setattr(keeper.objects, "put_file", crash)
    elif step == "rewriting.describe":
        patch.setattr(rewriting, "describe", crash)
    else:
        patch.setattr(maintenance, "replace_files", crash if step.endswith("before") else then_crash)


def test_a_file_with_other_rows_is_not_put_in_place(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check reads the file that was written."""
    ledger = filled(settings)
    before = rows(settings)
    monkeypatch.setattr(rewriting.Rewriter, "_sorted", _one_row_less)
    with pytest.raises(HeadwaterError, match="other rows than were read"):
        care(settings, ledger).compact()
    assert rows(settings) == before


def _one_row_less(self: Any, db: Any, where: str, body: Any, told: Any) -> int:
    db.execute(f"COPY (SELECT * FROM read LIMIT 17) TO '{body}'")
    return 18


def test_progress_is_told_within_a_group_and_ends_it_by_what_it_raises(settings: Settings) -> None:
    """One group may be all there is; ended in the middle of it, nothing has changed."""
    ledger, told = filled(settings), list[int]()
    before, keeper = rows(settings), care(settings, ledger)
    (group,) = keeper.groups(open_table(settings, "metric"))

    def cancelled(_rows: int, done: int) -> None:
        told.append(done)
        if done > group.bytes / 3:
            raise HeadwaterError("enough")

    with pytest.raises(HeadwaterError, match="enough"):
        keeper.compact(cancelled)
    assert len(told) > 2
    assert told[-1] < group.bytes
    assert (rows(settings), len(data_files(open_table(settings, "metric")))) == (before, 6)
    told.clear()
    assert keeper.compact(lambda _rows, done: told.append(done)).groups == 1
    assert told == sorted(told)
    assert told[-1] == group.bytes
    looked = list[tuple[int, int]]()
    later = keeper.clock.now_ms() - LEAST_AGE_MS
    assert keeper.orphans(later, remove=False, advance=lambda *some: looked.append(some)).looked_at == len(looked)


def test_snapshots_expire_and_their_files_go(settings: Settings) -> None:
    """The newest stay, their files too; metadata files are bounded by the table's own properties."""
    ledger = filled(settings)
    keeper = care(settings, ledger)
    keeper.compact()
    for n in range(4):
        commit(ledger, "s", 10 + n, [upload(settings, f"more-{n}", 500 + 3 * n)])
        publisher(settings, ledger, lease_seconds=0).drain()
    before, now = rows(settings), SystemClock().now_ms()
    assert keeper.expire(3, 0).expired == 0
    report = keeper.expire(3, now)
    assert (report.kept, len(open_table(settings, "metric").snapshots())) == (3, 3)
    later = ManualClock(now + 3 * LEAST_AGE_MS)
    listed = care(settings, ledger, later).orphans(now + LEAST_AGE_MS, remove=False)
    assert listed.objects
    removed = care(settings, ledger, later).orphans(now + LEAST_AGE_MS, remove=True)
    assert removed.objects == listed.objects
    assert sum("shard-1/00000001" in uri for uri in removed.objects) == 6
    assert rows(settings) == before
    assert open_table(settings, "metric").properties["write.metadata.previous-versions-max"] == "20"
    with pytest.raises(UsageError, match="older than"):
        keeper.orphans(now, remove=True)


def test_freshness_is_per_shard(settings: Settings) -> None:
    """From the writing of a file to the snapshot that has it, and what waits."""
    ensured(settings)
    ledger = new_ledger()
    start = "0" * 56
    name = f"shardId-7/00000001-{start}-{'1'.zfill(56)}-0000"
    commit(ledger, "shardId-7", 1, [upload(settings, name, 0)])
    publisher(settings, ledger, lease_seconds=0).drain()
    waiting = upload(settings, f"shardId-7/00000001-{'1'.zfill(56)}-{'2'.zfill(56)}-0000", 3)
    commit(ledger, "shardId-7", 2, [waiting])
    objects = Objects(client("s3", settings), settings.bucket)
    dated = [(objects.uri(key), at) for key, _, at in objects.dated("lake/metric/data/")]
    (one,) = freshness(open_table(settings, "metric"), ledger.shards(), dated, SystemClock().now_ms() + 5000)
    assert (one.shard_id, one.files, one.waiting_files, one.waiting_rows) == ("shardId-7", 1, 1, 3)
    assert one.median_ms is not None
    assert 0 <= one.median_ms < 60_000
    assert one.waiting_ms >= 4000
