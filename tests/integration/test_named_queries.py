"""Athena's SQL, that of the named queries and of the notebooks, is read as Athena's and answers rightly in DuckDB."""

import ast
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pandas as pd
import pyarrow as pa
import pytest
import sqlglot

from headwater.processors.services import Services
from headwater.sinks.lake.catalog import open_table
from headwater.sinks.lake.queries import named_queries
from headwater.sinks.lake.query import lake_query
from tests.integration.test_lake_users import SETTINGS, aws, services
from tests.named_queries import TRINO_ONLY, UNBOUNDED, local_sql, parameters

__all__ = ["aws", "services"]

START, END = "2026-09-21T14:00:00Z", "2026-09-21T15:00:00Z"
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def notebook_sql() -> Iterator[str]:
    """The text of every `lake.sql(...)`."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for node in ast.walk(ast.parse(cell.source)) if cell.cell_type == "code" else ():
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "sql":
                    assert isinstance(node.args[0], ast.Constant)
                    yield str(node.args[0].value)


def test_notebooks_speak_athena() -> None:
    """That they run is shown by tests/notebooks."""
    found = list(notebook_sql())
    assert len(found) > 5
    for sql in found:
        assert len(sqlglot.parse(sql, read="athena")) == 1


@pytest.fixture(scope="module")
def rows(services: Services) -> pd.DataFrame:
    frame: pd.DataFrame = open_table(SETTINGS, "telemetry").scan().to_pandas()
    return frame


def test_named_queries_answer_as_pandas_does(services: Services, rows: pd.DataFrame) -> None:
    device = rows["device"].min()
    queries = named_queries(services.pipeline.lake_to.table, services.pipeline.contract)
    assert {name for name, query in queries.items() if "?" not in query.sql} == UNBOUNDED
    assert set(queries) > TRINO_ONLY
    answers: dict[str, pa.Table] = {}
    for name, query in queries.items():
        assert len(sqlglot.parse(query.sql, read="athena")) == 1
        if name not in TRINO_ONLY:
            answers[name] = lake_query(SETTINGS, local_sql(query.sql, parameters(name, device, START, END)))
    found = {name: answer.to_pandas() for name, answer in answers.items()}
    assert found["events twice"].empty
    spanned = rows[(rows["ts"] >= START) & (rows["ts"] < END)]
    assert 0 < len(spanned) < len(rows)
    days = spanned.groupby(spanned["ts"].dt.floor("D"))["device"].agg(["size", "nunique"])
    assert found["events per day"][["events", "keys"]].to_numpy().tolist() == days.to_numpy().tolist()
    assert dict(found["keys by events"].itertuples(index=False)) == spanned["device"].value_counts().to_dict()
    assert found["latest arrivals"]["_arrived_at"].min() == spanned["_arrived_at"].nlargest(100).min()
    newest = spanned.groupby("device")["ts"].max()
    assert found["latest per key"].set_index("device")["ts"].to_dict() == newest.to_dict()
    delay = (spanned["_arrived_at"] - spanned["ts"]).dt.total_seconds()
    assert found["late events"]["events"].sum() == (delay > 3600).sum()
    assert 0 < len(found["one key"]) == (spanned["device"] == device).sum() < (rows["device"] == device).sum()
    pauses = spanned.sort_values("ts").groupby("device")["ts"].diff().dt.total_seconds()
    silence = found["silence per key"].set_index("device")
    assert silence["longest"].to_dict() == pytest.approx(pauses.groupby(spanned["device"]).max().to_dict(), nan_ok=True)
    assert silence["newest"].to_dict() == newest.to_dict()
    gone = set(spanned["device"]) - set(rows[rows["ts"] >= END]["device"])
    assert set(found["keys gone silent"]["device"]) == gone != set()
    gaps = rows.sort_values("_seq").groupby("_origin")["_seq"].diff().dropna() - 1
    assert found["gaps"]["missing"].sum() == gaps.sum()
    means = spanned.groupby([spanned["ts"].dt.floor("h"), "region", "metric"], dropna=False)["value"].mean()
    assert sorted(found["hourly by region"]["mean"]) == pytest.approx(sorted(means))
