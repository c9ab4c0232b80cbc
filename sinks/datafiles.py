"""Data files as Iceberg's manifests describe them: statistics from the Parquet footer, under the table's column ids.

pyiceberg's own `add_files` takes a file by the table's present column names only: a file written before a column got
its new name would be refused, or lose it. Here the table's name mapping decides, as it does for readers.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.exceptions import ResolveError
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    pyarrow_to_schema,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema, promote
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.name_mapping import NameMapping
from pyiceberg.transforms import BucketTransform
from pyiceberg.typedef import Record

__all__ = ["BUCKET", "describe"]

BUCKET = b"headwater.bucket"
"""The footer's own metadata: which bucket of the key the file holds, since statistics cannot say."""


def describe(io: FileIO, metadata: TableMetadata, path: str, partition: Record | None = None) -> DataFile:
    """The file as an entry for the table; `partition` where it is known. ValueError when the file does not fit."""
    source = io.new_input(path)
    with source.open() as stream:
        footer = pq.read_metadata(stream)
    schema = metadata.schema()
    ids = _column_ids(footer.schema.to_arrow_schema(), schema, metadata.name_mapping() or schema.name_mapping)
    statistics = data_file_statistics_from_parquet_metadata(
        parquet_metadata=footer,
        stats_columns=compute_statistics_plan(schema, metadata.properties),
        parquet_column_mapping=ids,
    )
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=partition or _partition(statistics, metadata.spec(), schema, footer.metadata or {}),
        file_size_in_bytes=len(source),
        sort_order_id=None,
        spec_id=metadata.default_spec_id,
        equality_ids=None,
        key_metadata=None,
        **statistics.to_serialized_dict(),
    )


def _column_ids(arrow: pa.Schema, schema: Schema, mapping: NameMapping) -> dict[str, int]:
    """Column id by the name in the file, each column checked: known, of a type that widens, required ones there."""
    bare = all(b"PARQUET:field_id" not in (one.metadata or {}) for one in arrow)
    try:
        found = pyarrow_to_schema(arrow, name_mapping=mapping if bare else None)
    except ValueError as error:
        raise ValueError(f"a column that the table does not know: {error}") from error
    for one in found.fields:
        wanted = schema.find_field(one.field_id)
        if one.field_type == wanted.field_type:
            continue
        try:
            promote(one.field_type, wanted.field_type)
        except ResolveError as error:
            raise ValueError(f"column {one.name} is a {one.field_type}, not a {wanted.field_type}") from error
    ids = {one.name: one.field_id for one in found.fields}
    lacking = [one.name for one in schema.fields if one.required and one.field_id not in ids.values()]
    if lacking:
        raise ValueError(f"the file has no column {', '.join(lacking)}")
    return ids


def _partition(statistics: Any, spec: PartitionSpec, schema: Schema, own: Mapping[bytes, bytes]) -> Record:
    """Each field's value: a bucket as the footer says, all else from the columns' bounds."""
    values = []
    for field in spec.fields:
        if not isinstance(field.transform, BucketTransform):
            values += statistics.partition(PartitionSpec(field), schema)._data
        elif BUCKET in own:
            values.append(int(own[BUCKET]))
        else:
            raise ValueError(f"the file does not say which {field.name} it holds")
    return Record(*values)
