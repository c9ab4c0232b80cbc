"""Open, create and evolve Iceberg tables in a catalog, and append files to them, through pyiceberg.

Of the sinks, only this module and `rewrite` change a table. What to append is decided by the publisher.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NoSuchNamespaceError,
    NoSuchTableError,
    ResolveError,
    ValidationError,
)
from pyiceberg.manifest import DataFile, ManifestContent
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table, TableProperties
from pyiceberg.table.snapshots import ancestors_of

from headwater.config import Settings
from headwater.errors import Retryable, UsageError
from headwater.sinks.lake.ancestry import Ancestry, named_files
from headwater.sinks.lake.catalogs import open_catalog
from headwater.sinks.lake.columns import put_back
from headwater.sinks.lake.committing import begin
from headwater.sinks.lake.datafiles import UNPARTITIONED, describe
from headwater.sinks.lake.expiry import MAX_SNAPSHOTS, expire_oldest, oldest_beyond
from headwater.sinks.lake.partitioning import Partitioning
from headwater.sinks.lake.specs import evolve_partitioning, partition_spec
from headwater.sinks.lake.standing import Paths, TableState

__all__ = ["IcebergTable", "append_files", "drop_table", "ensure_table", "open_table", "table_names"]

PROPERTIES = {
    "write.parquet.compression-codec": "zstd",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    "commit.manifest-merge.enabled": "true",
    # Spark's own default fails beside every append that came meanwhile, and there is one every few seconds.
    **{f"write.{change}.isolation-level": "snapshot" for change in ("delete", "update", "merge")},
}
log = logging.getLogger("headwater.lake")

_ATTEMPTS = 5
_RACES = 10
"""Times that files are added anew after a commit of somebody else, before all is looked at again."""
_FOOTERS = 8
"""Files whose footers are read at a time."""
_UNREAD = 5
"""Times that a file is tried whose object gives an error, before it is refused."""
_UNFIT = (ValueError, TypeError, NotImplementedError, ArithmeticError, KeyError, ResolveError)
"""Errors of pyarrow and pyiceberg for a file that they cannot read or enter."""


def ensure_table(
    catalog: Catalog,
    settings: Settings,
    name: str,
    schema: Schema,
    partitioning: Partitioning,
    was: Mapping[str, Sequence[str]] | None = None,
) -> Table:
    """Return the table, created when it is not there, and grown to what the schema has and it lacks.

    `was` has the earlier names of columns: a column of the table by such a name gets the new one, and files that have
    the old one go on being read. A table that is partitioned otherwise is partitioned so from now on; its files stay
    as they are. Several may call it at a time.
    A column that others have dropped is put back. Raise UsageError when the table that is there cannot grow so, and
    Retryable when others keep changing it.
    """
    catalog.create_namespace_if_not_exists(settings.database)
    spec = partition_spec(partitioning, schema)
    table = catalog.create_table_if_not_exists(
        (settings.database, name),
        schema,
        location=f"s3://{settings.bucket}/lake/{name}",
        partition_spec=spec,
        properties=PROPERTIES,
    )
    for _ in range(_ATTEMPTS):
        try:
            put_back(table, name, schema, was or {})
            _grow(table, name, schema, spec, was or {})
            return table
        except CommitFailedException:
            table = catalog.load_table((settings.database, name))
    raise Retryable(f"lake table {name}: others keep changing it")


def open_table(settings: Settings, name: str, catalog: Catalog | None = None) -> Table:
    """Return a table that is there already; raise UsageError when it is not.

    Opening the catalog takes half a second: give one that is open.
    """
    catalog = catalog or open_catalog(settings)
    try:
        return catalog.load_table((settings.database, name))
    except NoSuchTableError as error:
        known = table_names(catalog, settings)
        raise UsageError(f"no lake table {name!r} in database {settings.database}; it has {known}") from error


def drop_table(settings: Settings, name: str) -> None:
    """Take a table out of the catalog, when it is there; its objects stay."""
    with suppress(NoSuchTableError):
        open_catalog(settings).drop_table((settings.database, name))


def table_names(catalog: Catalog, settings: Settings) -> list[str]:
    """Return the names of the Iceberg tables in the lake's database; none when there is no such database."""
    try:
        return sorted(table for _, table in catalog.list_tables(settings.database))
    except NoSuchNamespaceError:
        return []


def _grow(table: Table, name: str, schema: Schema, spec: PartitionSpec, was: Mapping[str, Sequence[str]]) -> None:
    """Rename and add columns, widen types, lift `required`, partition by `spec`, and set what the publisher relies on.

    The source ids of `spec` are those of `schema`.
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
            evolve_partitioning(change, spec, schema)
    except (ValidationError, ValueError, TypeError) as error:
        raise UsageError(f"lake table {name} cannot take the contract's columns: {_one_line(error)}") from error


def _say_docs(update: Any, there: Schema, wanted: Schema) -> None:
    """Set the contract's description on each column that the table has."""
    known = {one.name: one.doc for one in there.fields}
    for one in wanted.fields:
        if one.name in known and one.doc and one.doc != known[one.name]:
            update.update_column(one.name, doc=one.doc)


@dataclass(frozen=True)
class _CatalogState(TableState):
    """Look at the table's history only as far back as it is asked for: other engines' snapshots cost requests."""

    table: Table | None = None
    ancestry: Ancestry = field(default_factory=Ancestry)

    def history(self, before: int) -> tuple[Paths, int]:
        assert self.table is not None
        lineage = self.ancestry.lineage(self.table, before)
        return lineage, lineage.visible_from


class IcebergTable:
    """Read one table for a publisher, and add files on top of exactly the state that was read.

    Its history is bounded to about `keep` snapshots; those that `pinned` returns stay, and all after them.
    """

    def __init__(
        self,
        catalog: Catalog,
        database: str,
        name: str,
        pinned: Callable[[], Collection[int]] = tuple,
        keep: int = MAX_SNAPSHOTS,
    ) -> None:
        self._pinned, self._keep = pinned, keep
        self._catalog = catalog
        self._identifier = (database, name)
        self._manifests: dict[str, frozenset[str]] = {}
        self._ancestry = Ancestry()
        self._unread: Counter[str] = Counter()
        self._table: Table | None = None

    def read(self) -> TableState:
        """Return the table's state now; raise Retryable when there is no table. Each manifest is read once."""
        before = self._table
        try:
            self._table = table = self._catalog.load_table(self._identifier)
        except NoSuchTableError as error:
            raise Retryable(
                f"table {self._name} is not in the catalog. Register its newest metadata.json there, and it goes on; "
                f"a publisher that starts anew makes an empty one: {_one_line(error)}"
            ) from error
        snapshot = table.current_snapshot()
        manifests = snapshot.manifests(table.io) if snapshot else []
        known = {}
        for manifest in manifests:
            path = manifest.manifest_path
            if manifest.content == ManifestContent.DATA:
                known[path] = self._manifests[path] if path in self._manifests else _data_files(manifest, table.io)
        self._manifests = known
        _warn_of_replacement(self._name, before, table)
        sequence = table.metadata.last_sequence_number if table.metadata.format_version > 1 else 0
        return _CatalogState(set().union(*known.values()), sequence=sequence, table=table, ancestry=self._ancestry)

    def add(self, paths: Sequence[str]) -> dict[str, str]:
        """Add the files on top of the state that `read` has returned last; return those it cannot take, with reasons.

        When others have only put snapshots on top of it, which have none of the files, they are added on top of those:
        who looks anew at everything each time loses every race against a writer that never pauses.
        Raise Retryable when that state is gone. An error of botocore says nothing about whether the commit got through:
        call `read` again. A file that cannot be read now is left out the first times; when none can, its error is
        raised.
        """
        assert self._table is not None, "call read first"
        files, refused = _described(self._table, paths, self._unread)
        races = 0
        while True:
            try:
                for some in self._commit(files):
                    refused |= some
                break
            except CommitFailedException as error:
                races += 1
                if races > _RACES or not self._moves_on([one.file_path for one in files]):
                    raise Retryable(f"table {self._name}: another writer was faster: {_one_line(error)}") from error
        self._bound_history()
        return refused

    def _moves_on(self, paths: Sequence[str]) -> bool:
        """Take the table as it is now for the one to add to, if it is the one that was read with snapshots on top of it
        that have added none of these files; else return False.
        """
        old, new = self._table, self._catalog.load_table(self._identifier)
        assert old is not None
        if _shape(old) != _shape(new) or new.metadata.format_version < 2:
            return False
        was, now = old.current_snapshot(), ancestors_of(new.current_snapshot(), new.metadata)
        if was is not None and was.snapshot_id not in {one.snapshot_id for one in now}:
            return False
        before = old.metadata.last_sequence_number
        since = self._ancestry.lineage(new, before)
        if since.visible_from > before + 1 or any(one in since for one in paths):
            return False
        self._table = new
        return True

    def _bound_history(self) -> None:
        """Forget the oldest snapshots where there are too many, with their manifests. What fails is done next time."""
        assert self._table is not None
        if len(self._table.snapshots()) <= self._keep:
            return
        gone = oldest_beyond(self._table, self._keep, self._pinned())
        if not gone:
            return
        try:
            objects = expire_oldest(self._table, gone)
        except (CommitFailedException, FileNotFoundError, ValueError) as error:  # ValueError: another was faster
            log.warning("old snapshots are not forgotten", extra={"table": self._name, "reason": _one_line(error)})
            return
        # a catalog may acknowledge a commit and lose it
        now = self._catalog.load_table(self._identifier)
        if not {one.snapshot_id for one in now.snapshots()} & set(gone):
            for path in objects:
                now.io.delete(path)

    def _commit(self, files: Sequence[DataFile]) -> Iterator[dict[str, str]]:
        """Commit the files together; where that cannot be, in halves, so that one that does not fit stands alone."""
        assert self._table is not None
        if not files:
            return
        try:
            append_files(self._table, files)
        except _UNFIT as error:
            if len(files) == 1:
                yield {files[0].file_path: _one_line(error)}
                return
            half = len(files) // 2
            yield from self._commit(files[:half])
            yield from self._commit(files[half:])

    @property
    def _name(self) -> str:
        return ".".join(self._identifier)


def _shape(table: Table) -> tuple[object, ...]:
    """Return what the description of a file depends on."""
    known = table.metadata
    return known.table_uuid, known.location, known.current_schema_id, known.default_spec_id, known.format_version


def _described(table: Table, paths: Sequence[str], unread: Counter[str]) -> tuple[list[DataFile], dict[str, str]]:
    """Return the entries of the files for the table, and the reasons for those that have none.

    An error of the store may pass, or be the file's own: after a few times it counts as the file's. Until then the file
    is in neither; raise the error when no file could be read. `unread` counts such errors by path.
    """

    def described(path: str) -> DataFile | Exception:
        try:
            return describe(table.io, table.metadata, path)
        except (*_UNFIT, OSError) as error:
            return error

    files: list[DataFile] = []
    refused: dict[str, str] = {}
    passing: OSError | None = None
    with ThreadPoolExecutor(_FOOTERS) as pool:
        for path, found in zip(paths, pool.map(described, paths), strict=True):
            if isinstance(found, DataFile):
                files.append(found)
                unread.pop(path, None)
            elif isinstance(found, FileNotFoundError):
                refused[path] = "there is no such object"
            elif isinstance(found, OSError) and unread[path] < _UNREAD:
                unread[path] += 1
                log.warning("a file cannot be read now", extra={"uri": path, "reason": _one_line(found)})
                passing = found
            else:
                refused[path] = f"{type(found).__name__}: {_one_line(found)}"
    if passing is not None and not files and not refused:
        raise passing
    return files, refused


def append_files(table: Table, files: Sequence[DataFile], properties: Mapping[str, str] | None = None) -> None:
    """Append described files in one commit, which sets the table's `properties` too; without files it is empty.

    Raise CommitFailedException when overtaken, ValueError for one not fit.
    """
    with begin(table) as change:
        if properties:
            change.set_properties(dict(properties))
        if change.table_metadata.name_mapping() is None:
            mapping = table.schema().name_mapping.model_dump_json()
            change.set_properties({TableProperties.DEFAULT_NAME_MAPPING: mapping})
        specs, present = dict(change.table_metadata.specs()), change.table_metadata.default_spec_id
        specs[UNPARTITIONED] = PartitionSpec()
        # pyiceberg writes a snapshot's files in the present partitioning: those of earlier ones get snapshots before it
        for number in [*sorted({file.spec_id for file in files} - {present}), present]:
            evolve_partitioning(change, specs[number], table.schema())
            some = [file for file in files if file.spec_id == number]
            # an empty snapshot, too, is refused on top of another state: properties alone would not be
            if some or not files:
                names = named_files([file.file_path for file in some])
                with change.update_snapshot(snapshot_properties=names).merge_append() as append:
                    for file in some:
                        append.append_data_file(file)


def _warn_of_replacement(name: str, before: Table | None, now: Table) -> None:
    """Say so when the state read before is none of the present one's ancestors, though the table still has it, and when
    it was of another table.
    """
    if before is not None and before.metadata.table_uuid != now.metadata.table_uuid:
        log.warning(
            "a table was dropped and made again: what was published before is not in it, and the audit names it",
            extra={"table": name, "from_metadata": before.metadata_location},
        )
        return
    last = before.current_snapshot() if before is not None else None
    if last is None or now.snapshot_by_id(last.snapshot_id) is None:
        return
    if all(one.snapshot_id != last.snapshot_id for one in ancestors_of(now.current_snapshot(), now.metadata)):
        log.warning(
            "a table was rolled back: what was published since is not in it, and the audit names it",
            extra={"table": name, "from_snapshot": last.snapshot_id, "to_snapshot": now.metadata.current_snapshot_id},
        )


def _data_files(manifest: Any, io: Any) -> frozenset[str]:
    return frozenset(entry.data_file.file_path for entry in manifest.fetch_manifest_entry(io))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
