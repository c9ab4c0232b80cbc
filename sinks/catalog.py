"""Iceberg tables in the Glue Data Catalog, through pyiceberg. The only module that changes a table."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import boto3
from pyiceberg.catalog.glue import GlueCatalog
from pyiceberg.exceptions import CommitFailedException, NoSuchNamespaceError, NoSuchTableError, ValidationError
from pyiceberg.manifest import ManifestContent
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table, TableProperties

from headwater.aws import client
from headwater.config import Settings
from headwater.errors import HeadwaterError, Retryable, UsageError
from sinks.datafiles import describe
from sinks.partitioning import Partitioning
from sinks.specs import partition_by, spec_of

__all__ = ["IcebergTable", "add_files", "ensure_table", "open_catalog", "open_table", "table_names"]

PROPERTIES = {
    "write.parquet.compression-codec": "zstd",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    "commit.manifest-merge.enabled": "true",
    # A commit overtaken by another must fail and be decided anew, never be sent again on top: see sinks.publisher.
    "commit.retry.num-retries": "0",
}
_ATTEMPTS = 5
_FOOTERS = 8
"""How many files' footers are read at a time."""


class _Glue:
    """A Glue client that sends UpdateTable once.

    When an answer is lost and botocore sends the update again, Glue refuses the second (the version has moved on by
    the first), and pyiceberg takes that for a failed commit and deletes the manifests that the first one made current.
    """

    def __init__(self, settings: Settings) -> None:
        self._glue = client("glue", settings)
        self._once = client("glue", settings, retries={"mode": "standard", "total_max_attempts": 1})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._once if name == "update_table" else self._glue, name)


class _Catalog(GlueCatalog):  # type: ignore[misc]  # pyiceberg is not looked into
    """Gives pyarrow boto3's credentials of the moment: it knows fewer sources of them, and cannot renew any."""

    def _load_file_io(self, properties: Any = None, location: str | None = None) -> Any:
        found = boto3.session.Session().get_credentials()
        now = found.get_frozen_credentials() if found else None
        keys = {} if now is None else {"s3.access-key-id": now.access_key, "s3.secret-access-key": now.secret_key}
        if now is not None and now.token:
            keys["s3.session-token"] = now.token
        return super()._load_file_io({**(properties or {}), **keys}, location)


def open_catalog(settings: Settings) -> GlueCatalog:
    """The catalog where boto3 finds Glue; files through pyarrow at the endpoint where boto3 finds S3."""
    s3 = client("s3", settings)
    properties = {"py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO", "s3.region": s3.meta.region_name}
    if "amazonaws.com" not in s3.meta.endpoint_url:
        properties["s3.endpoint"] = s3.meta.endpoint_url
    return _Catalog("headwater", client=_Glue(settings), **properties)


def ensure_table(
    catalog: GlueCatalog,
    settings: Settings,
    name: str,
    schema: Schema,
    partitioning: Partitioning,
    was: Mapping[str, Sequence[str]] | None = None,
) -> Table:
    """The table, made when it is not there, and grown to what the schema has and it has not.

    `was` has the earlier names of columns: a column of the table by such a name gets the new one, and files that have
    the old one go on being read. A table that is partitioned otherwise is partitioned so from now on; its files stay
    as they are. Several may call it at a time. UsageError when the table that is there cannot grow so.
    """
    catalog.create_namespace_if_not_exists(settings.database)
    spec = spec_of(partitioning, schema)
    table = catalog.create_table_if_not_exists(
        (settings.database, name),
        schema,
        location=f"s3://{settings.bucket}/lake/{name}",
        partition_spec=spec,
        properties=PROPERTIES,
    )
    for _ in range(_ATTEMPTS):
        try:
            _grow(table, name, schema, spec, was or {})
            return table
        except CommitFailedException:
            table = catalog.load_table((settings.database, name))
    raise Retryable(f"lake table {name}: others keep changing it")


def open_table(settings: Settings, name: str, catalog: GlueCatalog | None = None) -> Table:
    """A table that is there already; UsageError when it is not. Opening the catalog takes half a second: give it."""
    catalog = catalog or open_catalog(settings)
    try:
        return catalog.load_table((settings.database, name))
    except NoSuchTableError as error:
        known = table_names(catalog, settings)
        raise UsageError(f"no lake table {name!r} in database {settings.database}; it has {known}") from error


def table_names(catalog: GlueCatalog, settings: Settings) -> list[str]:
    """The Iceberg tables of the lake's database; none when there is no such database."""
    try:
        return sorted(table for _, table in catalog.list_tables(settings.database))
    except NoSuchNamespaceError:
        return []


def _grow(table: Table, name: str, schema: Schema, spec: PartitionSpec, was: Mapping[str, Sequence[str]]) -> None:
    """Rename and add columns, widen types, lift `required`, partition by `spec`, of `schema`'s ids; and set the
    properties that the publisher relies on.
    """
    try:
        with table.transaction() as change:
            if any(table.properties.get(key) != value for key, value in PROPERTIES.items()):
                change.set_properties(PROPERTIES)
            there = set(table.schema().column_names)
            renamed = {old: new for new, names in was.items() for old in names if old in there and new not in there}
            if renamed:
                with change.update_schema() as update:
                    for old, new in renamed.items():
                        update.rename_column(old, new)
            with change.update_schema() as update:
                update.union_by_name(schema)
                _say_docs(update, change.table_metadata.schema(), schema)
            partition_by(change, spec, schema)
    except (ValidationError, ValueError, TypeError) as error:
        raise UsageError(f"lake table {name} cannot take the contract's columns: {_one_line(error)}") from error


def _say_docs(update: Any, there: Schema, wanted: Schema) -> None:
    """The contract's words on each column that the table has."""
    known = {one.name: one.doc for one in there.fields}
    for one in wanted.fields:
        if one.name in known and one.doc and one.doc != known[one.name]:
            update.update_column(one.name, doc=one.doc)


class IcebergTable:
    """A publisher's view of one table: which data files it has, and adding more on top of exactly that state."""

    def __init__(self, catalog: GlueCatalog, database: str, name: str) -> None:
        self._catalog = catalog
        self._identifier = (database, name)
        self._manifests: dict[str, frozenset[str]] = {}
        self._table: Table | None = None

    def paths(self) -> set[str]:
        """The data files of the current snapshot. A manifest never changes, so each is read once."""
        try:
            self._table = table = self._catalog.load_table(self._identifier)
        except NoSuchTableError as error:
            raise Retryable(f"table {self._name} is not in the catalog: {_one_line(error)}") from error
        snapshot = table.current_snapshot()
        manifests = snapshot.manifests(table.io) if snapshot else []
        known = {}
        for manifest in manifests:
            path = manifest.manifest_path
            if manifest.content == ManifestContent.DATA:
                known[path] = self._manifests[path] if path in self._manifests else _data_files(manifest, table.io)
        self._manifests = known
        return set().union(*known.values())

    def add(self, paths: Sequence[str]) -> None:
        """One commit on top of the state that `paths` has returned last; Retryable when that state is gone.

        An error of botocore says nothing about whether the commit got through: call `paths` again.
        """
        assert self._table is not None, "call paths first"
        try:
            add_files(self._table, paths)
        except CommitFailedException as error:
            raise Retryable(f"table {self._name}: another writer was faster: {_one_line(error)}") from error
        except (ValueError, TypeError, NotImplementedError) as error:
            raise HeadwaterError(f"table {self._name} refuses a file of {list(paths)}: {_one_line(error)}") from error

    @property
    def _name(self) -> str:
        return ".".join(self._identifier)


def add_files(table: Table, paths: Sequence[str]) -> None:
    """Append the files in one commit; ValueError for one that does not fit, CommitFailedException when overtaken."""
    with table.transaction() as change:
        if change.table_metadata.name_mapping() is None:
            mapping = table.schema().name_mapping.model_dump_json()
            change.set_properties({TableProperties.DEFAULT_NAME_MAPPING: mapping})
        with ThreadPoolExecutor(_FOOTERS) as pool:
            described = list(pool.map(partial(describe, table.io, change.table_metadata), paths))
        specs, present = change.table_metadata.specs(), change.table_metadata.default_spec_id
        # pyiceberg writes a snapshot's files in the present partitioning: those of earlier ones get snapshots before it
        for number in [*sorted({file.spec_id for file in described} - {present}), present]:
            partition_by(change, specs[number], table.schema())
            files = [file for file in described if file.spec_id == number]
            if files:
                with change.update_snapshot().merge_append() as append:
                    for file in files:
                        append.append_data_file(file)


def _data_files(manifest: Any, io: Any) -> frozenset[str]:
    return frozenset(entry.data_file.file_path for entry in manifest.fetch_manifest_entry(io))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
