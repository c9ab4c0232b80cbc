"""Describe data files as Iceberg's manifests do: statistics from the Parquet footer, under the table's column ids.

pyiceberg's own `add_files` matches columns by the table's present names only: a file written before a column was
renamed would be refused, or lose the column. Here the table's name mapping decides, as it does for readers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.exceptions import ResolveError
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
    pyarrow_to_schema,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema, promote
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.name_mapping import NameMapping
from pyiceberg.transforms import BucketTransform
from pyiceberg.typedef import Record
from pyiceberg.types import IcebergType, ListType, MapType, NestedField, StructType

from headwater.sinks.lake.bounds import bounds
from headwater.sinks.lake.fieldids import FieldIds
from headwater.sinks.lake.partitioning import BUCKET_METADATA, MIXED_METADATA, KeyBucket

__all__ = ["UNPARTITIONED", "describe", "field_ids"]

UNPARTITIONED = -1
"""The spec id of a file of no partition, in a table that has had a partitioning at all times so far."""


def field_ids(table: Table) -> FieldIds:
    """Return the numbers that the table has for its columns now, by their names now."""
    found: FieldIds = table.schema().name_mapping.model_dump(by_alias=True)
    return found


def describe(io: FileIO, metadata: TableMetadata, path: str, partition: Record | None = None) -> DataFile:
    """Return the manifest entry of the file at `path`, read from its footer.

    `partition`, of the table's present partitioning, is given where it is known. A file that was written under an
    earlier partitioning and lies across partitions of the present one is entered under the earlier. Raise ValueError
    when the file fits none of them, or has columns that the table does not know.
    """
    source = io.new_input(path)
    with source.open() as stream:
        file = pq.ParquetFile(stream, arrow_extensions_enabled=True)  # without, a UUID is 16 bytes like any
        footer, columns = file.metadata, file.schema_arrow
    schema = metadata.schema()
    ids = _column_ids(columns, schema, metadata.name_mapping() or schema.name_mapping)
    statistics = data_file_statistics_from_parquet_metadata(
        parquet_metadata=footer,
        # whatever others set in `write.metadata.metrics`: partitions are told by the bounds, and queries prune by them
        stats_columns=compute_statistics_plan(schema, {}),
        parquet_column_mapping=ids,
    )
    spec_id = metadata.default_spec_id
    if partition is None:
        spec_id, partition = _partition(statistics, metadata, ids, footer.metadata or {})
    # pyiceberg would write the bounds itself, and refuse the file for one that it cannot write
    lower, upper = bounds(statistics.column_aggregates)
    bare = replace(statistics, column_aggregates={}).to_serialized_dict()
    del bare["lower_bounds"], bare["upper_bounds"]
    described = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=partition,
        file_size_in_bytes=len(source),
        sort_order_id=None,
        equality_ids=None,
        key_metadata=None,
        lower_bounds=lower,
        upper_bounds=upper,
        **bare,
    )
    described.spec_id = spec_id
    return described


def _column_ids(arrow: pa.Schema, schema: Schema, mapping: NameMapping) -> dict[str, int]:
    """Return column ids by the names in the file, each checked: known, of a type that widens, required ones present."""
    bare = all(b"PARQUET:field_id" not in (one.metadata or {}) for one in arrow)
    try:
        found = pyarrow_to_schema(arrow, name_mapping=mapping if bare else None)
    except ValueError as error:
        raise ValueError(f"a column that the table does not know: {error}") from error
    for one in found.fields:
        if not bare:
            _check_number(one, mapping)
        wanted = next((column for column in schema.fields if column.field_id == one.field_id), None)
        if wanted is None:
            raise ValueError(f"column {one.name} (number {one.field_id}) is not in the table: was it dropped?")
        if not _fits(one.field_type, wanted.field_type):
            raise ValueError(f"column {one.name} is a {one.field_type}, not a {wanted.field_type}")
    there = {one.field_id for one in found.fields}
    lacking = [one.name for one in schema.fields if one.required and one.field_id not in there]
    if lacking:
        raise ValueError(f"the file has no column {', '.join(lacking)}")
    ids: dict[str, int] = parquet_path_to_id_mapping(found)
    return ids


def _check_number(column: NestedField, mapping: NameMapping) -> None:
    """Raise ValueError for a column whose name is another's in the table: the file was made for one before this.

    A name that the table does not know is one that the column had, or has got from another engine.
    """
    known = {name: one.field_id for one in mapping.root for name in one.names}.get(column.name, column.field_id)
    if known != column.field_id:
        raise ValueError(f"column {column.name} is number {column.field_id} in the file, and {known} in the table")


def _fits(one: IcebergType, wanted: IcebergType) -> bool:
    """Tell whether values of a type are read as the wanted one: the same, one that widens, or made of such."""
    if one == wanted:
        return True
    there = {part.field_id: part for part in _parts(one)}
    if not there or type(one) is not type(wanted):
        try:
            return bool(promote(one, wanted) == wanted)
        except ResolveError:
            return False
    known = {part.field_id for part in _parts(wanted)}
    return there.keys() <= known and all(_fits_part(there.get(part.field_id), part) for part in _parts(wanted))


def _fits_part(one: NestedField | None, wanted: NestedField) -> bool:
    if one is None:
        return not wanted.required
    return (one.required or not wanted.required) and _fits(one.field_type, wanted.field_type)


def _parts(kind: IcebergType) -> Sequence[NestedField]:
    if isinstance(kind, ListType):
        return [kind.element_field]
    if isinstance(kind, MapType):
        return [kind.key_field, kind.value_field]
    return kind.fields if isinstance(kind, StructType) else ()


def _own_bucket(own: Mapping[bytes, bytes], ids: Mapping[str, int]) -> tuple[int, KeyBucket] | None:
    """Return the field id of the column that the file's bucket is of, and the bucket; None when the file names none."""
    if BUCKET_METADATA not in own:
        return None
    bucket = KeyBucket.loads(own[BUCKET_METADATA])
    return ids[bucket.column], bucket


def _partition(
    statistics: Any, metadata: TableMetadata, ids: Mapping[str, int], notes: Mapping[bytes, bytes]
) -> tuple[int, Record]:
    """Return the newest partitioning that the file fits, the present one first, and the file's partition in it.

    `notes` is the file's own metadata.
    """
    if MIXED_METADATA in notes:
        return next((one.spec_id for one in metadata.partition_specs if not one.fields), UNPARTITIONED), Record()
    own = _own_bucket(notes, ids)
    present = metadata.spec()
    older = sorted((one for one in metadata.partition_specs if one != present), key=lambda one: -one.spec_id)
    reason: ValueError | None = None
    for spec in [present, *older]:
        try:
            values = [_value(statistics, field, metadata.schema(), own) for field in spec.fields]
            return spec.spec_id, Record(*values)
        except ValueError as error:
            reason = reason or error
    assert reason is not None
    raise reason


def _value(statistics: Any, field: PartitionField, schema: Schema, own: tuple[int, KeyBucket] | None) -> object:
    """Return the file's value of one partition field: a bucket as the footer says it, all else from the column's
    bounds.

    Raise ValueError when the file has several values of it.
    """
    if not isinstance(field.transform, BucketTransform):
        return statistics.partition(PartitionSpec(field), schema)[0]
    of, bucket = own or (None, None)
    found = bucket.among(field.transform.num_buckets) if bucket is not None and of == field.source_id else None
    if found is None:
        raise ValueError(f"the file does not say which {field.name} it holds")
    return found
