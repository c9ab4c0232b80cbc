"""Divide rows held in DuckDB into the partitions of an Iceberg table, by Iceberg's own transforms."""

from typing import Any

import duckdb
import pyarrow as pa
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import BucketTransform, IdentityTransform, TimeTransform, TruncateTransform
from pyiceberg.typedef import Record
from pyiceberg.types import BooleanType, IntegerType, LongType, StringType

from headwater.errors import HeadwaterError

__all__ = ["partition_conditions", "quoted"]


def partition_conditions(
    db: duckdb.DuckDBPyConnection, relation: str, spec: PartitionSpec, schema: Schema
) -> list[tuple[Record, str]]:
    """Return each partition that rows of the relation lie in, with the SQL condition that selects those rows.

    Raise HeadwaterError for a partitioning that is not made of time, buckets, values and beginnings.
    """
    sources = [_source(field, schema) for field in spec.fields]
    joins, known = [], []
    for at, (field, source) in enumerate(zip(spec.fields, sources, strict=True)):
        values = [value for (value,) in db.execute(f"SELECT DISTINCT {source} FROM {relation}").fetchall()]
        transform: Any = field.transform.transform(schema.find_type(field.source_id))
        parts = [transform(value) for value in values]
        known.append(list(dict.fromkeys(parts)))
        numbers = {part: number for number, part in enumerate(known[at])}
        # names with spaces, which no column of a contract has
        db.register(f"part{at}", pa.table({"a value": values, "its part": [numbers[part] for part in parts]}))
        joins.append(f'JOIN part{at} ON part{at}."a value" IS NOT DISTINCT FROM {source}')
    if not spec.fields:
        return [(Record(), "TRUE")]
    columns = ", ".join(f'part{at}."its part"' for at in range(len(sources)))
    found = db.execute(f"SELECT DISTINCT {columns} FROM {relation} {' '.join(joins)} ORDER BY ALL").fetchall()
    return [
        (
            Record(*(parts[number] for parts, number in zip(known, numbers, strict=True))),
            " AND ".join(
                _within(source, at, number, null=known[at][number] is None)
                for at, (source, number) in enumerate(zip(sources, numbers, strict=True))
            ),
        )
        for numbers in found
    ]


def _within(source: str, at: int, number: int, *, null: bool) -> str:
    found = f'{source} IN (SELECT "a value" FROM part{at} WHERE "its part" = {number})'
    return f"({found} OR {source} IS NULL)" if null else found


def _source(field: PartitionField, schema: Schema) -> str:
    """Return the SQL expression that decides the partition: the whole hour of a time, as it has fewer values than the
    time.
    """
    column = quoted(str(schema.find_column_name(field.source_id)))
    if isinstance(field.transform, TimeTransform):
        return f"epoch_us(date_trunc('hour', {column}))"
    plain = isinstance(schema.find_type(field.source_id), StringType | IntegerType | LongType | BooleanType)
    if isinstance(field.transform, BucketTransform) or (
        plain and isinstance(field.transform, IdentityTransform | TruncateTransform)
    ):
        return column
    raise HeadwaterError(f"the table is partitioned by {field}: its older files cannot be divided so")


def quoted(name: str) -> str:
    """Return the name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
