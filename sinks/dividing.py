"""Rows in DuckDB by the partitions of a table, as Iceberg's own transforms say."""

from typing import Any

import duckdb
import pyarrow as pa
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import BucketTransform, TimeTransform
from pyiceberg.typedef import Record

from headwater.errors import HeadwaterError

__all__ = ["divided", "quoted"]


def divided(
    db: duckdb.DuckDBPyConnection, relation: str, spec: PartitionSpec, schema: Schema
) -> list[tuple[Record, str]]:
    """The partitions that rows of the relation lie in, each with the condition of these rows.

    HeadwaterError for a spec that has more in it than time and bucket.
    """
    sources = [_source(field, schema) for field in spec.fields]
    joins = []
    for at, (field, source) in enumerate(zip(spec.fields, sources, strict=True)):
        values = [value for (value,) in db.execute(f"SELECT DISTINCT {source} FROM {relation}").fetchall()]
        transform: Any = field.transform.transform(schema.find_type(field.source_id))
        db.register(f"part{at}", pa.table({"value": values, "number": pa.array(map(transform, values), pa.int64())}))
        joins.append(f"JOIN part{at} ON part{at}.value = {source}")
    if not spec.fields:
        return [(Record(), "TRUE")]
    columns = ", ".join(f"part{at}.number" for at in range(len(sources)))
    found = db.execute(f"SELECT DISTINCT {columns} FROM {relation} {' '.join(joins)} ORDER BY ALL").fetchall()
    return [
        (
            Record(*numbers),
            " AND ".join(
                f"{source} IN (SELECT value FROM part{at} WHERE number = {number})"
                for at, (source, number) in enumerate(zip(sources, numbers, strict=True))
            ),
        )
        for numbers in found
    ]


def _source(field: PartitionField, schema: Schema) -> str:
    """What the partition is a function of: the whole hour where that is time, which has fewer values."""
    column = quoted(str(schema.find_column_name(field.source_id)))
    if isinstance(field.transform, TimeTransform):
        return f"epoch_us(date_trunc('hour', {column}))"
    if isinstance(field.transform, BucketTransform):
        return column
    raise HeadwaterError(f"the table is partitioned by {field}: its older files cannot be divided so")


def quoted(name: str) -> str:
    """An identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'
