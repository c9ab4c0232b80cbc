"""Athena's named queries where there is no Athena: filled in, and translated for DuckDB."""

from collections.abc import Sequence

import sqlglot

__all__ = ["TRINO_ONLY", "local_sql", "parameters"]

TRINO_ONLY = {"as of", "files", "snapshots"}
"""Time travel and Iceberg's own tables: nothing that DuckDB over the current files could answer."""


def local_sql(sql: str, values: Sequence[str] = ()) -> str:
    """The query in DuckDB's dialect, with the values for its parameters."""
    for value in values:
        sql = sql.replace("?", value, 1)
    (translated,) = sqlglot.transpile(sql, read="athena", write="duckdb")
    return translated


def parameters(name: str, key: str, start: str, end: str) -> list[str]:
    """SQL literals for the parameters of a named query."""
    return {"one key": [f"'{key}'", f"'{start}'", f"'{end}'"]}.get(name, [])
