"""Iceberg tables in the Glue Data Catalog, through pyiceberg. The only module that changes a table."""

from collections.abc import Sequence
from typing import Any

from pyiceberg.catalog.glue import GlueCatalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.manifest import ManifestContent
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import DayTransform, HourTransform, MonthTransform

from headwater.aws import client
from headwater.config import Settings
from headwater.errors import Retryable, UsageError

__all__ = ["IcebergTable", "ensure_table", "open_catalog", "open_table"]

_TRANSFORMS: dict[str, Any] = {"hour": HourTransform(), "day": DayTransform(), "month": MonthTransform()}
PROPERTIES = {
    "write.parquet.compression-codec": "zstd",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    "commit.manifest-merge.enabled": "true",
    # A commit overtaken by another must fail and be decided anew, never be sent again on top: see sinks.publisher.
    "commit.retry.num-retries": "0",
}


def open_catalog(settings: Settings) -> GlueCatalog:
    """The catalog where boto3 finds Glue; files through pyarrow at the endpoint where boto3 finds S3."""
    glue, s3 = client("glue", settings), client("s3", settings)
    properties = {"py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO", "s3.region": s3.meta.region_name}
    if "amazonaws.com" not in s3.meta.endpoint_url:
        properties["s3.endpoint"] = s3.meta.endpoint_url
    return GlueCatalog("headwater", client=glue, **properties)


def ensure_table(
    catalog: GlueCatalog, settings: Settings, name: str, schema: Schema, partition: str | None, time_field: str
) -> Table:
    """The table, made when it is not there, and with columns added that the schema has and it has not."""
    identifier = (settings.database, name)
    catalog.create_namespace_if_not_exists(settings.database)
    spec = PartitionSpec()
    if partition is not None:
        source = schema.find_field(time_field).field_id
        spec = PartitionSpec(PartitionField(source, 1000, _TRANSFORMS[partition], f"{time_field}_{partition}"))
    table = catalog.create_table_if_not_exists(
        identifier,
        schema,
        location=f"s3://{settings.bucket}/lake/{name}",
        partition_spec=spec,
        properties=PROPERTIES,
    )
    known = set(table.schema().column_names)
    if any(field.name not in known for field in schema.fields):
        with table.update_schema() as update:
            update.union_by_name(schema)
    return table


def open_table(settings: Settings, name: str) -> Table:
    """A table that is there already; UsageError when it is not."""
    catalog = open_catalog(settings)
    try:
        return catalog.load_table((settings.database, name))
    except NoSuchTableError as error:
        known = sorted(table for _, table in catalog.list_tables(settings.database))
        raise UsageError(f"no lake table {name!r} in database {settings.database}; it has {known}") from error


class IcebergTable:
    """A publisher's view of one table: which data files it has, and adding more on top of exactly that state."""

    def __init__(self, catalog: GlueCatalog, database: str, name: str) -> None:
        self._catalog = catalog
        self._identifier = (database, name)
        self._manifests: dict[str, frozenset[str]] = {}
        self._table: Table | None = None

    def paths(self) -> set[str]:
        """The data files of the current snapshot. A manifest never changes, so each is read once."""
        self._table = table = self._catalog.load_table(self._identifier)
        snapshot = table.current_snapshot()
        manifests = snapshot.manifests(table.io) if snapshot else []
        known = {}
        for manifest in manifests:
            if manifest.content == ManifestContent.DATA:
                known[manifest.manifest_path] = self._manifests.get(manifest.manifest_path) or frozenset(
                    entry.data_file.file_path for entry in manifest.fetch_manifest_entry(table.io)
                )
        self._manifests = known
        return set().union(*known.values())

    def add(self, paths: Sequence[str]) -> None:
        """One commit on top of the state that `paths` has returned last; Retryable when that state is gone."""
        assert self._table is not None, "call paths first"
        try:
            self._table.add_files(list(paths), check_duplicate_files=False)
        except CommitFailedException as error:
            raise Retryable(f"table {'.'.join(self._identifier)}: another writer was faster: {error}") from error
