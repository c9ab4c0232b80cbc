"""Rows read file by file are Iceberg's: renamed, added and widened columns, deleted rows, any condition."""

from collections import Counter
from typing import Any

import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as options
from hypothesis import strategies as st
from pyiceberg.table import Table
from pyiceberg.types import LongType, StringType

from headwater.config import Settings
from headwater.processors.audit.lake import LakeFiles
from headwater.sinks.lake.catalog import open_table
from headwater.sinks.lake.query import lake_query
from headwater.sinks.lake.reading import TableReader, plan, prune
from tests.integration.test_maintenance import care
from tests.lake import aws, commit, delete_rows, ensured, new_ledger, publisher, settings, uploads

__all__ = ["aws", "settings"]
"""Fixtures."""


def grown(settings: Settings) -> Table:
    """Six files of two days: one column renamed and widened, two that files lack; rows gone."""
    table = ensured(settings)
    ledger = new_ledger()
    for at in range(3):
        commit(ledger, "s", at + 1, uploads(settings, f"s/00000001-{at}-{at + 1}-0", 20 * at, 20, devices=5, days=2))
        publisher(settings, ledger, lease_seconds=0).drain()
        table.refresh()
        if at == 0:
            with table.update_schema() as change:
                change.update_column("status", LongType())
                change.add_column("note", StringType())
    with table.update_schema() as change:
        change.rename_column("status", "state")
    with table.update_schema() as change:
        change.add_column("later", StringType())
    first, second = sorted(task.file.file_path for task in plan(table))[:2]
    delete_rows(table, first, [0, 3])
    delete_rows(table, first, [4])
    delete_rows(table, second, [1])
    return table


def rows(found: list[dict[str, Any]]) -> Counter[str]:
    return Counter(str(sorted(one.items())) for one in found)


CONDITIONS = [
    st.builds(lambda n: pc.field("state") >= n, st.integers(-1, 61)),
    st.builds(lambda n: pc.field("device") == f"d{n}", st.integers(0, 6)),
    st.just(pc.field("note").is_null()),
    st.just(pc.field("later").is_valid()),
]


def test_rows_are_those_of_icebergs_own_reader(settings: Settings) -> None:
    """In any columns, under any condition; what pruning leaves out has no row for it."""
    table = grown(settings)
    whole = table.scan().to_arrow()
    assert whole.num_rows == 60 - 4
    tasks = plan(table)

    @options(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        columns=st.lists(st.sampled_from(whole.column_names), unique=True, min_size=1),
        conditions=st.lists(st.one_of(CONDITIONS), max_size=2),
    )
    def check(columns: list[str], conditions: list[pc.Expression]) -> None:
        where = None
        for one in conditions:
            where = one if where is None else where & one
        wanted = (whole if where is None else whole.filter(where)).select(columns)
        reader = TableReader(table)
        found = [
            row
            for task in prune(tasks, table.schema(), where)
            for batch in reader.batches(task, columns, where)
            for row in batch.to_pylist()
        ]
        assert rows(found) == rows(wanted.to_pylist())

    check()


def test_a_reader_decodes_what_is_asked_for_only(settings: Settings) -> None:
    """Files and row groups that the statistics rule out are not opened; a key has one file in two days of three."""
    table = grown(settings)
    where = (pc.field("state") >= 20) & (pc.field("state") < 40)
    assert len(plan(table)) == 6
    assert len(prune(plan(table), table.schema(), where)) == 2
    reader = TableReader(table)
    assert [row for task in plan(table) for row in reader.batches(task, ["device"], pc.field("state") > 1000)] == []
    assert (reader.counts.files, reader.counts.groups, reader.counts.rows) == (6, 0, 0)


def test_an_audit_reads_a_table_with_renamed_columns_and_deleted_rows_in_parts(settings: Settings) -> None:
    """Each file once, by the number of its columns, whatever their names are by now."""
    table = grown(settings)
    with table.update_schema() as change:
        change.rename_column("_seq", "number")
    with table.update_schema() as change:
        change.rename_column("number", "_seq")
    files = LakeFiles(table)
    found = [row["_seq"] for batch in files.live(files.tasks()) for row in batch.to_pylist()]
    assert Counter(found) == Counter(table.scan().to_arrow()["_seq"].to_pylist())
    assert files.unreadable == []


@pytest.mark.parametrize("fewest", [2])
def test_what_others_have_deleted_stays_deleted_when_files_are_joined(settings: Settings, fewest: int) -> None:
    """A delete file names places in a file; in the one that takes its place nobody would know them."""
    table = grown(settings)
    before = rows(table.scan().to_arrow().to_pylist())
    report = care(settings, new_ledger()).compact()
    assert (report.files_before, report.files_after, report.rows) == (6, 2, 56)
    table = open_table(settings, "metric")
    assert rows(table.scan().to_arrow().to_pylist()) == before
    assert not any(task.delete_files for task in plan(table))
    assert lake_query(settings, "SELECT count(*) AS n FROM metric").to_pylist() == [{"n": 56}]
