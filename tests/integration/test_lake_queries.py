"""SQL over the lake's tables, and what is said where it cannot be answered."""

from collections import Counter
from pathlib import Path

import pytest

from headwater.config import Settings
from headwater.errors import UsageError
from headwater.sinks.lake.catalog import open_table
from headwater.sinks.lake.query import lake_query
from tests.lake import NOON, aws, commit, ensured, new_ledger, publisher, seqs, settings, upload

__all__ = ["aws", "settings"]
"""Fixtures."""


def test_queries_name_tables_with_and_without_the_database(settings: Settings) -> None:
    """Columns and times as in the table."""
    ensured(settings)
    ledger = new_ledger()
    commit(ledger, "s", 1, [upload(settings, "a", 0, rows=5)])
    publisher(settings, ledger).drain()
    join = f"metric a JOIN {settings.database}.METRIC b USING (_seq)"
    sql = f"SELECT a.device, count(*) AS n FROM {join} GROUP BY 1 ORDER BY 1"
    assert lake_query(settings, sql).to_pylist() == [{"device": "d0", "n": 3}, {"device": "d1", "n": 2}]
    (row,) = lake_query(settings, "SELECT epoch_ms(min(ts)) AS first FROM metric WHERE ts >= '2026-01-01'").to_pylist()
    assert row == {"first": NOON}
    assert lake_query(settings, "SELECT 1 AS one").to_pylist() == [{"one": 1}]


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM metrics", "no table metrics, did you mean metric.; the lake has metric$"),
        ("SELECT * FROM elsewhere", "no table elsewhere; the lake has metric$"),
        ("SELECT * FROM '/etc/passwd.csv'", "disabled by configuration"),
        ("SELECT * FROM read_text('/etc/passwd')", "disabled by configuration"),
        ("SELECT * FROM read_parquet('s3://bucket/key')", "disabled by configuration"),
        ("COPY metric TO '/tmp/metric.csv'", "disabled by configuration"),
        ("ATTACH '/tmp/other.db'", "disabled by configuration"),
        ("SET enable_external_access = true", "the configuration has been locked"),
        ("SELECT * FROM sql", "no table sql"),
        ("SELECT nothing FROM metric", 'column "nothing" not found'),
        ("", "give one statement"),
        ("SELECT 1; SELECT 2", "give one statement"),
    ],
)
def test_sql_that_cannot_be_answered_is_one_line(settings: Settings, sql: str, reason: str) -> None:
    """And says what is wrong with it."""
    ensured(settings)
    with pytest.raises(UsageError, match=reason) as caught:
        lake_query(settings, sql)
    assert "\n" not in str(caught.value)


def test_files_are_read_where_that_is_asked_for(settings: Settings, tmp_path: Path) -> None:
    """A table of the analyst's own beside the lake's."""
    ensured(settings)
    (tmp_path / "own.csv").write_text("a\n7\n")
    sql = f"SELECT a FROM '{tmp_path / 'own.csv'}'"
    assert lake_query(settings, sql, external=True).to_pylist() == [{"a": 7}]


def test_an_empty_lake_says_so(settings: Settings) -> None:
    """No database yet, no table yet, no row yet."""
    with pytest.raises(UsageError, match="the lake has no tables"):
        lake_query(settings, "SELECT * FROM metric")
    with pytest.raises(UsageError, match="no lake table 'metric'"):
        open_table(settings, "metric")
    ensured(settings)
    assert lake_query(settings, "SELECT count(*) AS n FROM metric").to_pylist() == [{"n": 0}]
    assert seqs(settings) == Counter()


def test_a_renamed_column_is_read_by_its_id(settings: Settings) -> None:
    """Its name in older files means nothing any more: Iceberg's own reader does it."""
    table = ensured(settings)
    ledger = new_ledger()
    commit(ledger, "s", 1, [upload(settings, "a", 0)])
    publisher(settings, ledger).drain()
    table.refresh()
    with table.update_schema() as update:
        update.rename_column("status", "state")
    assert lake_query(settings, "SELECT state FROM metric ORDER BY 1")["state"].to_pylist() == [0, 1, 2]
