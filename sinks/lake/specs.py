"""Express a table's partitioning in Iceberg's terms, and evolve a table to another one without touching its files."""

from typing import Any

from pyiceberg.partitioning import PARTITION_FIELD_ID_START, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Transaction
from pyiceberg.transforms import BucketTransform, DayTransform, HourTransform, MonthTransform

from headwater.sinks.lake.partitioning import Partitioning

__all__ = ["evolve_partitioning", "partition_spec", "same_partitioning"]

_TRANSFORMS: dict[str, Any] = {"hour": HourTransform(), "day": DayTransform(), "month": MonthTransform()}


def partition_spec(partitioning: Partitioning, schema: Schema) -> PartitionSpec:
    """Return the Iceberg spec that partitions by time, then by bucket of the key; columns by the schema's field ids."""
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


def same_partitioning(a: PartitionSpec, a_schema: Schema, b: PartitionSpec, b_schema: Schema) -> bool:
    """Return whether two specs, each with the schema that its field ids belong to, partition rows alike."""
    return _parts(a, a_schema) == _parts(b, b_schema)


def _parts(spec: PartitionSpec, schema: Schema) -> list[tuple[str | None, str]]:
    return [(schema.find_column_name(field.source_id), str(field.transform)) for field in spec.fields]


def evolve_partitioning(change: Transaction, spec: PartitionSpec, schema: Schema) -> None:
    """Partition by `spec` whatever is added from here on.

    A partitioning that the table has had before comes back under its old spec id.
    """
    metadata = change.table_metadata
    if same_partitioning(metadata.spec(), metadata.schema(), spec, schema):
        return
    with change.update_spec() as update:
        # all off and all on: the order of the fields is part of a partitioning
        for field in metadata.spec().fields:
            update.remove_field(field.name)
        for field in spec.fields:
            update.add_field(schema.find_column_name(field.source_id), field.transform, field.name)
