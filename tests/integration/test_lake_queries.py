"""SQL over the lake's tables, and what is said where it cannot be answered."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from headwater.aws import Objects, client
from headwater.commands.lake_query import print_answer
from headwater.commands.local.embedded import EmbeddedAws
from headwater.config import Settings
from headwater.errors import HeadwaterError, UsageError
from headwater.sinks.lake.catalog import open_table
from headwater.sinks.lake.query import LakeSession, lake_query
from headwater.sinks.lake.sqltext import METADATA_TABLES
from tests.cli import headwater
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


def test_earlier_states_and_icebergs_own_tables_are_queried(settings: Settings) -> None:
    """By moment, by snapshot, for one table or all; under the columns that the table had then."""
    table, ledger = ensured(settings), new_ledger()
    for at in range(2):
        commit(ledger, "s", at + 1, [upload(settings, f"a{at}", 10 * at, rows=5)])
        publisher(settings, ledger, lease_seconds=0).drain()
    table.refresh()
    with table.update_schema() as update:
        update.rename_column("status", "state")
    first, last = table.snapshots()
    moment = datetime.fromtimestamp(first.timestamp_ms / 1000, UTC).isoformat()
    assert lake_query(settings, "SHOW TABLES").to_pylist() == [{"name": "metric"}]
    for then in (f"TIMESTAMP AS OF '{moment}'", f"VERSION AS OF {first.snapshot_id}"):
        sql = (
            f"SELECT count(old.status) AS n, 'FOR {then[:4]} AS OF' AS t FROM {settings.database}.metric FOR {then} old"
        )
        assert lake_query(settings, sql)["n"].to_pylist() == [5]
    both = f"SELECT count(*) AS n FROM metric ANTI JOIN metric FOR VERSION AS OF {first.snapshot_id} old USING (_seq)"
    assert lake_query(settings, both)["n"].to_pylist() == [5]
    assert lake_query(settings, "SELECT count(status) AS n FROM metric", as_of=moment)["n"].to_pylist() == [5]
    assert lake_query(settings, "SELECT count(state) AS n FROM metric")["n"].to_pylist() == [10]
    sql = 'SELECT snapshot_id FROM "metric$snapshots" ORDER BY committed_at'
    assert lake_query(settings, sql)["snapshot_id"].to_pylist() == [first.snapshot_id, last.snapshot_id]
    for name in METADATA_TABLES:
        assert lake_query(settings, f"SELECT * FROM metric${name}").num_rows


def test_a_plan_shows_which_files_are_read(settings: Settings) -> None:
    """Those whose bounds allow the condition, before it is run and of the run; others are never opened."""
    ensured(settings)
    ledger = new_ledger()
    commit(ledger, "s", 1, [upload(settings, f"a{at}", 10 * at, rows=5) for at in range(6)])
    publisher(settings, ledger).drain()
    sql = "SELECT count(*) FROM metric WHERE _seq BETWEEN 20 AND 31"
    planned = lake_query(settings, f"EXPLAIN {sql}")["plan"].to_pylist()
    assert planned[-1].startswith("metric: 2 of 6 files, 0.0 of 0.0 MB; where")
    run = lake_query(settings, f"explain analyze {sql}")["plan"].to_pylist()
    assert "decoded 10 rows in 2 row groups of 2 files" in run[-1]
    assert lake_query(settings, sql.replace("*", "device")).to_pylist() == [{"count(device)": 7}]
    join = f"EXPLAIN SELECT * FROM metric JOIN ({sql.replace('count(*)', '_seq')}) USING (_seq)"
    assert len([line for line in lake_query(settings, join)["plan"].to_pylist() if "of 6 files" in line]) == 2


ODD = ["INTERVAL 3 DAY", "[INTERVAL 1 DAY]", "{'a': INTERVAL 1 DAY}", "MAP {'k': 1}", "'12:00:00+02'::TIMETZ", "1::BIT"]
ODD += [
    "'infinity'::TIMESTAMP",
    "'-infinity'::DATE",
    "'290000-01-01'::TIMESTAMPTZ",
    "1e30::DOUBLE",
    "170141183460469::HUGEINT",
]
ODD += [
    "'a'::BLOB",
    "uuid()",
    "NULL",
    "[1, NULL]",
    "'x'::ENUM ('x')",
    "TIME '12:00'",
    "TIMESTAMP_NS '2026-01-01'",
    "1.50",
]
ODD += ["'NaN'::FLOAT", "union_value(a := 1)", "'2026-01-01'::TIMESTAMP_S", "'{\"a\": 1}'::JSON"]


@pytest.mark.parametrize("value", ODD)
def test_a_value_of_any_type_is_printed(settings: Settings, aws: EmbeddedAws, value: str) -> None:
    """As a table, JSON and CSV."""
    for options in ([], ["--json"], ["--csv"]):
        found = LakeSession(settings).query(f"SELECT {value} AS v")
        print_answer(found, as_json="--json" in options, as_csv="--csv" in options)


def test_a_file_that_is_gone_is_one_line(settings: Settings) -> None:
    """Not a part of the engine's own error, with the frames of it."""
    ensured(settings)
    ledger = new_ledger()
    commit(ledger, "s", 1, [upload(settings, "a", 0, rows=5)])
    publisher(settings, ledger).drain()
    Objects(client("s3", settings), settings.bucket).delete("lake/metric/data/a.parquet")
    with pytest.raises(HeadwaterError, match=r"a file of the table is gone.*/data/a.parquet") as caught:
        lake_query(settings, "SELECT sum(_seq) FROM metric")
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_tables_are_listed_described_and_sampled(settings: Settings) -> None:
    """A sample decodes a row group of five files at most."""
    ensured(settings)
    ledger = new_ledger()
    commit(ledger, "s", 1, [upload(settings, f"a{at}", 10 * at, rows=5) for at in range(8)])
    publisher(settings, ledger).drain()
    session = LakeSession(settings)
    assert session.tables() == ["metric"]
    about = session.summary("metric")
    assert (about["rows"], about["files"], about["partitions"]) == (40, 8, "day(ts)")
    columns = {one["column"]: one for one in session.columns("metric")}
    assert (columns["ts"]["type"], columns["ts"]["required"]) == ("timestamptz", True)
    sample = session.sample("metric", 12, Random(1))
    assert sample.num_rows == 12
    assert len(set(sample["_seq"].to_pylist())) == 12
    assert session.sample("metric", 1, Random(1)).num_rows == 1
    with pytest.raises(UsageError, match="no lake table 'metrics'"):
        session.sample("metrics", 1, Random(1))


def test_a_shell_takes_statements_and_goes_on_after_a_mistake(settings: Settings, aws: EmbeddedAws) -> None:
    """Over several lines; from a pipe its exit code says that one failed."""
    ensured(settings)
    own = {**aws.environment, "HEADWATER_BUCKET": settings.bucket, "HEADWATER_DATABASE": settings.database}
    told = "SELECT count(*) AS n\nFROM metric;\nSELEC 1;\nDROP VIEW metric;\nSELECT 7 AS m"
    done = headwater("lake", "shell", environment=own, stdin=told)
    assert done.code == 1
    assert [line.split() for line in done.out.splitlines()][:2] == [["n"], ["0"]]
    assert [line.split() for line in done.out.splitlines()][-2:] == [["m"], ["7"]]
    assert "syntax error" in done.err
    assert "Traceback" not in done.err


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
