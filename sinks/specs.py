"""A table's partitioning in Iceberg's terms, and how a table comes by another: it evolves, and no file is touched."""

from typing import Any

from pyiceberg.partitioning import PARTITION_FIELD_ID_START, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Transaction
from pyiceberg.transforms import BucketTransform, DayTransform, HourTransform, MonthTransform

from sinks.partitioning import Partitioning

__all__ = ["partition_by", "same_parts", "spec_of"]

_TRANSFORMS: dict[str, Any] = {"hour": HourTransform(), "day": DayTransform(), "month": MonthTransform()}


def spec_of(partitioning: Partitioning, schema: Schema) -> PartitionSpec:
    """By time, then by bucket of the key; columns by the schema's ids."""
    parts: list[tuple[str, Any, str]] = []
    if partitioning.unit is not None:
        name = f"{partitioning.time}_{partitioning.unit}"
        parts.append((partitioning.time, _TRANSFORMS[partitioning.unit], name))
    if partitioning.buckets is not None:
        name = f"{partitioning.key}_bucket_{partitioning.buckets}"
        parts.append((partitioning.key, BucketTransform(partitioning.buckets), name))
    fields = [
        PartitionField(schema.find_field(column).field_id, number, transform, name)
        for number, (column, transform, name) in enumerate(parts, PARTITION_FIELD_ID_START)
    ]
    return PartitionSpec(*fields)


def same_parts(a: PartitionSpec, a_schema: Schema, b: PartitionSpec, b_schema: Schema) -> bool:
    """Whether two specs, each of a schema with ids of its own, divide alike."""
    return _parts(a, a_schema) == _parts(b, b_schema)


def _parts(spec: PartitionSpec, schema: Schema) -> list[tuple[str | None, str]]:
    return [(schema.find_column_name(field.source_id), str(field.transform)) for field in spec.fields]


def partition_by(change: Transaction, spec: PartitionSpec, schema: Schema) -> None:
    """Partition what is added from here on so. A partitioning that the table has had comes back with its number."""
    metadata = change.table_metadata
    if same_parts(metadata.spec(), metadata.schema(), spec, schema):
        return
    with change.update_spec() as update:
        # all off and all on: the order of the fields is part of a partitioning
        for field in metadata.spec().fields:
            update.remove_field(field.name)
        for field in spec.fields:
            update.add_field(schema.find_column_name(field.source_id), field.transform, field.name)
