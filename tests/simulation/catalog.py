"""A real Iceberg table in a catalog that lies as real ones were seen to: commits acknowledged and lost, or undone."""

from collections.abc import Sequence
from typing import Any

from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.metadata import TableMetadata, new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.table.update import AddSnapshotUpdate, update_table_metadata

from headwater.contract.iceberg import iceberg_schema
from headwater.processors.definition.pipeline import Pipeline
from headwater.sinks.lake.catalog import PROPERTIES
from headwater.sinks.lake.rewrite import data_files
from headwater.sinks.lake.specs import partition_spec
from tests.simulation.bucket import BucketIO, SimulatedObjects
from tests.simulation.world import World

__all__ = ["CatalogSession", "SimulatedTable"]

OVERTAKES_MS = 900
"""How long after a commit another writer's, begun before it, may still land on top and undo it."""


class SimulatedTable:
    """The table's metadata. A commit may be acknowledged and not be there, at once or for so long after."""

    def __init__(self, world: World, objects: SimulatedObjects, pipeline: Pipeline) -> None:
        self._world = world
        self.io = BucketIO(objects)
        self.name = pipeline.lake_to.table
        schema = iceberg_schema(pipeline.contract, pipeline.added)
        spec: PartitionSpec = partition_spec(pipeline.lake_partitioning, schema)
        location = f"{objects.uri('lake')}/{self.name}"
        made = new_table_metadata(schema, spec, UNSORTED_SORT_ORDER, location, dict(PROPERTIES))
        self._states: list[tuple[TableMetadata, bool]] = [(made, True)]
        """States of the table, the present last, each with True when it is firm: no later commit undoes it."""
        self.added_ms: dict[str, int] = {}
        """When each of our files was added first, by the digest of its path."""
        self._doomed: list[tuple[int, TableMetadata]] = []

    @property
    def metadata(self) -> TableMetadata:
        """What the table is."""
        for at, one in [doomed for doomed in self._doomed if doomed[0] <= self._world.now]:
            self._doomed.remove((at, one))
            place = next((place for place, (state, _) in enumerate(self._states) if state is one), 0)
            # what a firm commit stands on is not undone by one that was begun before
            if place and not any(firm for _, firm in self._states[place:]):
                del self._states[place:]
        return self._states[-1][0]

    @property
    def files(self) -> list[str]:
        """The current snapshot's data files, one that is named twice twice."""
        return [file.file_path for file in self.data_files()]

    def data_files(self) -> list[DataFile]:
        return data_files(CatalogSession(self).load_table())

    def commit(self, requirements: Sequence[Any], updates: Sequence[Any], firm: bool) -> CommitTableResponse:
        """Commit on top of the state that the requirements name, or raise CommitFailedException."""
        base = self.metadata
        for requirement in requirements:
            requirement.validate(base)
        for one in [update.snapshot for update in updates if isinstance(update, AddSnapshotUpdate)]:
            for digest in str((one.summary or {}).get("headwater.files", "")).split():
                self.added_ms.setdefault(digest, self._world.now)
        where = f"{base.location}/metadata/{len(self._states):05d}.metadata.json"
        made = update_table_metadata(base, tuple(updates), metadata_location=where)
        if not firm and self._world.chance("catalog loses"):
            return CommitTableResponse(metadata=made, metadata_location=where)
        self._states.append((made, firm))
        if not firm and self._world.chance("catalog drops foreign"):
            self._doomed.append((self._world.now + self._world.random.randint(1, OVERTAKES_MS), made))
        return CommitTableResponse(metadata=made, metadata_location=where)


class CatalogSession:
    """What one process has of the catalog. With a world, its calls go wrong; without, they are firm."""

    def __init__(self, table: SimulatedTable, world: World | None = None) -> None:
        self._table, self._world = table, world

    def load_table(self, _identifier: Any = None) -> Table:
        """The table as it is."""
        metadata = self._call("load_table", lambda: self._table.metadata)
        where = f"{metadata.location}/metadata/current"
        return Table(("db", self._table.name), metadata, where, self._table.io, self)

    def commit_table(self, _table: Table, requirements: Sequence[Any], updates: Sequence[Any]) -> CommitTableResponse:
        """Commit, and never twice: `headwater.sinks.lake.catalog` has Glue's update sent once."""
        answers: list[CommitTableResponse] = []

        def once() -> CommitTableResponse:
            if not answers:
                answers.append(self._table.commit(requirements, updates, self._world is None))
            return answers[0]

        return self._call("commit_table", once)

    def _call(self, operation: str, target: Any) -> Any:
        return target() if self._world is None else self._world.call("catalog", operation, target, {}, ())

    def supports_server_side_planning(self) -> bool:
        """It plans nothing."""
        return False

    def _delete_old_metadata(self, *_: Any) -> None:
        """Nothing: metadata lies in no object here."""
