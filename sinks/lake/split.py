"""Divide rows held in DuckDB into the partitions of an Iceberg table, by Iceberg's own transforms."""

from typing import Any

import duckdb
import pyarrow as pa
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import BucketTransform, TimeTransform
from pyiceberg.typedef import Record

from headwater.errors import HeadwaterError

__all__ = ["partition_conditions", "quoted"]


def partition_conditions(
    db: duckdb.DuckDBPyConnection, relation: str, spec: PartitionSpec, schema: Schema
) -> list[tuple[Record, str]]:
    """Return each partition that rows of the relation lie in, with the SQL condition that selects those rows.

    Raise HeadwaterError for a partitioning that has transforms other than time and bucket.
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
    """Return the SQL expression that decides the partition: the whole hour of a time, as it has fewer values than the
    time.
    """
    column = quoted(str(schema.find_column_name(field.source_id)))
    if isinstance(field.transform, TimeTransform):
        return f"epoch_us(date_trunc('hour', {column}))"
    if isinstance(field.transform, BucketTransform):
        return column
    raise HeadwaterError(f"the table is partitioned by {field}: its older files cannot be divided so")


def quoted(name: str) -> str:
    """Return the name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
