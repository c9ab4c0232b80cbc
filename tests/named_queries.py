"""Athena's named queries where there is no Athena: filled in, and translated for DuckDB."""

from collections.abc import Sequence

import sqlglot

__all__ = ["TRINO_ONLY", "UNBOUNDED", "local_sql", "parameters"]

TRINO_ONLY = {"as of", "files", "snapshots"}
"""Time travel and Iceberg's own tables: nothing that DuckDB over the current files could answer."""
UNBOUNDED = TRINO_ONLY | {"events twice", "gaps"}
"""Queries that have no times: a part of the identities would show neither copies nor gaps."""


def local_sql(sql: str, values: Sequence[str] = ()) -> str:
    """The query in DuckDB's dialect, with the values for its parameters."""
    for value in values:
        sql = sql.replace("?", value, 1)
    (translated,) = sqlglot.transpile(sql, read="athena", write="duckdb")
    return translated


def parameters(name: str, key: str, start: str, end: str) -> list[str]:
    """SQL literals for the parameters of a named query."""
    span = [f"'{start}'", f"'{end}'"]
    special = {
        "one key": [f"'{key}'", *span],
        "keys gone silent": [span[0], span[1], span[1], "'9999-01-01T00:00:00Z'"],
    }
    return special.get(name, [] if name in UNBOUNDED else span)
