"""Wire the parts together from the settings: the only place that joins them to boto3 clients.

For entry points: commands, the runners' mains, Lambda handlers. All other code is given what it needs, as plain
parameters or as the ports of `headwater.processors.ports`; an import contract sees to that.
"""

import random
import socket
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from headwater.aws import Objects, client
from headwater.clock import Clock, SystemClock
from headwater.config import Settings
from headwater.controlkeys import ensure_control_key, streams
from headwater.errors import UsageError
from headwater.ledger import Ledger
from headwater.processors.alerts.store import AlertStore
from headwater.processors.controls import ControlCheck
from headwater.processors.definition.claims import REGISTRY, claim_names, claimed_names
from headwater.processors.definition.parts import View
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.generations import Serving, pinned_snapshots
from headwater.processors.lakecolumns import SaidColumns, say_columns
from headwater.processors.ports import PipelineReader, PipelineStores, StreamClient
from headwater.processors.references import Announce, ReferenceLoader, ensure_initial, publish_all
from headwater.processors.shard.context import Ports, WorkerContext
from headwater.processors.shard.worker import ShardWorker
from headwater.sinks.deadletter import DeadLetters
from headwater.sinks.streams import KinesisStreams
from headwater.sinks.views.items import ViewSpec
from headwater.sinks.views.store import ViewStore

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headwater.processors.alerts.service import AlertPorts
    from headwater.processors.erasure.ports import ErasurePorts
    from headwater.processors.publishing import PublishLoop
    from headwater.processors.rebuild.ports import RebuildPorts
    from headwater.processors.viewtables.following import ViewTablePorts
    from headwater.sinks.lake.compaction import CompactionSizes
    from headwater.sinks.lake.maintenance import Maintenance
    from headwater.sinks.lake.publisher import Publisher

__all__ = ["Services", "new_owner"]


def new_owner() -> str:
    """Return a name that no other process has: the host and a random part."""
    return f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True)
class Services:
    """Open what the settings name, each part when it is first used."""

    settings: Settings
    pipeline: Pipeline
    clock: Clock = SystemClock()  # noqa: RUF009 (it has no state)

    def client(self, service: str) -> Any:
        """Return a new boto3 client, by the service's name in boto3."""
        return client(service, self.settings)

    @cached_property
    def kinesis(self) -> Any:
        """Return the one Kinesis client that all parts share."""
        return self.client("kinesis")

    @cached_property
    def stream_client(self) -> StreamClient:
        """Return the stream that the settings name, with its client."""
        return StreamClient(self.kinesis, self.settings.stream)

    @cached_property
    def stores(self) -> PipelineStores:
        """Return the pipeline with its ledger, its objects and the clock."""
        return PipelineStores(self.pipeline, self.ledger, self.objects, self.clock)

    def open_lake_table(self) -> "Table":
        """Load the lake's table in its newest state. Raises UsageError when it is not there."""
        from headwater.sinks.lake.catalog import open_table

        return open_table(self.settings, self.pipeline.lake_to.table)

    @property
    def reader(self) -> PipelineReader:
        """Return what audit and replay read the pipeline with."""
        return PipelineReader(self.stores, self.stream_client, self.open_lake_table)

    @property
    def alert_ports(self) -> "AlertPorts":
        """Return what alerts judge by, and where they keep what they found."""
        from headwater.processors.alerts.service import AlertPorts

        return AlertPorts(
            self.stores,
            self.stream_client,
            self.views,
            self.serving,
            self.alerts,
            self.settings.idle_seconds,
            self.settings.view_writers,
        )

    @property
    def rebuild_ports(self) -> "RebuildPorts":
        """Return what a rebuild of a view works on."""
        from headwater.processors.rebuild.ports import RebuildPorts

        return RebuildPorts(self.stores, self.views, self.settings.commit_seconds, self.claim_shard)

    @property
    def erasure_ports(self) -> "ErasurePorts":
        """Return all the places that keep something of a key."""
        from headwater.processors.erasure.ports import ErasurePorts
        from headwater.processors.viewtables.following import is_of_others
        from headwater.sinks.lake.catalog import drop_table

        own, database = self.pipeline.lake_to.table, self.settings.database

        def view_tables() -> list[str]:
            mine = [one for one in claimed_names(self.registry) if one.pipeline == self.pipeline.name]
            place = "view table", database
            names = [one.name for one in mine if (one.kind, one.place) == place and one.name != own]
            found = [(name, self._lake_table(name)) for name in names]
            return [name for name, table in found if table is None or not is_of_others(table)]

        return ErasurePorts(
            self.stores,
            self.open_lake_table,
            self.views,
            self.alerts,
            self.letters,
            self.maintenance,
            view_tables,
            partial(drop_table, self.settings),
        )

    def _lake_table(self, name: str, catalog: "Catalog | None" = None) -> "Table | None":
        """Return a table of the lake's database; None when there is none."""
        from headwater.sinks.lake.catalog import open_table

        with suppress(UsageError):
            return open_table(self.settings, name, catalog)
        return None

    def claim_shard(self, shard_id: str, owner: str) -> ShardWorker:
        """Take a shard of the pipeline in the name of an owner: its processor is fenced."""
        return ShardWorker.claim(WorkerContext(self.pipeline, self.ports, self.settings, self.clock, owner), shard_id)

    @cached_property
    def objects(self) -> Objects:
        """Return the bucket of the settings."""
        return Objects(self.client("s3"), self.settings.bucket)

    @cached_property
    def ledger(self) -> Ledger:
        """Return the ledger of the pipeline."""
        return Ledger(self.client("dynamodb"), self.settings.ledger_table, self.pipeline.name)

    @cached_property
    def registry(self) -> Ledger:
        """Return the part of the ledger's table that says which pipeline owns which lake table and view."""
        return Ledger(self.client("dynamodb"), self.settings.ledger_table, REGISTRY)

    def control_key(self, stream: str) -> bytes:
        """Return the key that a stream's control records are signed with, made where there is none."""
        return ensure_control_key(stream, streams(self.client("dynamodb"), self.settings.ledger_table))

    @cached_property
    def check_control(self) -> ControlCheck:
        """Return what tells the stream's true control records from forged ones."""
        return ControlCheck(self.control_key(self.settings.stream), self.pipeline.name, self.ledger)

    def prepare(self) -> None:
        """Do what comes before a pipeline reads or writes: claim its names, fix its reference tables' first versions.

        Raises UsageError for a pipeline without a lake table, and when another pipeline owns one of the names.
        """
        claim_names(self.pipeline, self.settings, self.settings.bucket, self.registry)
        ensure_initial(self.pipeline, self.ledger, self.objects, self.client)

    @cached_property
    def views(self) -> ViewStore:
        """Return the store of the pipelines' views, with a pool of threads that write."""
        pool = ThreadPoolExecutor(self.settings.view_writers, thread_name_prefix="views")
        return ViewStore(self.client("dynamodb"), self.settings.views_table, pool=pool, clock=self.clock)

    @cached_property
    def alerts(self) -> AlertStore:
        """Return the store of what the alerts service has found."""
        return AlertStore(self.client("dynamodb"), self.settings.ledger_table, self.pipeline.name)

    @cached_property
    def letters(self) -> DeadLetters:
        """Return the store of dead letters."""
        return DeadLetters(self.objects)

    @cached_property
    def serving(self) -> Serving:
        """Return the lookup of the generation of each view that readers are to read."""
        return Serving(self.ledger, self.pipeline, self.clock)

    @property
    def view_specs(self) -> dict[str, ViewSpec]:
        """Return how to read the generation of each view that serves, by the view's name; at most a second old."""
        return {name: view.spec for name, view in self.serving.views().items()}

    def publisher(self, owner: str) -> "Publisher":
        """Return a publisher over the lake's table, which is made when it is not there."""
        # here, so that a processor starts without pyiceberg, and a Lambda function is deployed without it
        from headwater.contract.iceberg import iceberg_schema
        from headwater.sinks.lake.catalog import IcebergTable, ensure_table
        from headwater.sinks.lake.catalogs import open_catalog
        from headwater.sinks.lake.datafiles import field_ids
        from headwater.sinks.lake.publisher import Publisher

        pipeline, settings = self.pipeline, self.settings
        claim_names(pipeline, settings, settings.bucket, self.registry)  # before a table is made in another's place
        catalog, lake = open_catalog(settings), pipeline.lake_to
        schema = iceberg_schema(pipeline.contract, pipeline.added)
        was = {field.name: field.was for field in pipeline.contract.fields if field.was}
        table = ensure_table(catalog, settings, lake.table, schema, pipeline.lake_partitioning, was)
        say_columns(self.ledger, field_ids(table))
        lease_seconds = max(1.0, 5 * settings.publish_seconds)  # five steps missed, and another takes over
        pinned = partial(pinned_snapshots, self.ledger, pipeline)
        tables = partial(IcebergTable, catalog, settings.database, pinned=pinned)
        return Publisher(self.ledger, tables, self.clock, owner, lease_seconds)

    def publish_loop(self, owner: str, announce: Announce) -> "PublishLoop":
        """Return the publisher as a service. `announce` puts a control record on every open shard of the stream."""
        from headwater.processors.publishing import PublishLoop

        references = partial(publish_all, self.pipeline, self.ledger, self.objects, self.client, announce)
        return PublishLoop(partial(self.publisher, owner), references, self.settings, self.clock)

    def view_tables(self, wait: Callable[[], object]) -> "ViewTablePorts":
        """Return what the tables of views are written with; `wait` is called while files wait for the publisher."""
        from headwater.contract.iceberg import plain_columns
        from headwater.processors.viewtables.following import PARTITIONING, ViewTablePorts, check_ours
        from headwater.processors.viewtables.rows import column_docs, table_columns
        from headwater.sinks.lake.catalog import ensure_table
        from headwater.sinks.lake.catalogs import open_catalog

        pipeline, settings = self.pipeline, self.settings
        claim_names(pipeline, settings, settings.bucket, self.registry)  # before a table is made in another's place
        catalog = open_catalog(settings)

        def open_view_table(view: View) -> "Table":
            schema = plain_columns(table_columns(view, pipeline.schema), column_docs(view))
            there = self._lake_table(str(view.table), catalog)
            if there is not None:
                check_ours(there)  # before it gets the columns
            return ensure_table(catalog, settings, str(view.table), schema, PARTITIONING)

        return ViewTablePorts(self.reader, open_view_table, wait, settings.idle_seconds)

    def maintenance(self, sizes: "CompactionSizes | None" = None, view: View | None = None) -> "Maintenance":
        """Return the upkeep of the lake's table, or of a view's. Raises UsageError when there is no such table."""
        from headwater.processors.viewtables.rows import sort_order
        from headwater.sinks.lake.catalog import open_table
        from headwater.sinks.lake.catalogs import open_catalog
        from headwater.sinks.lake.compaction import CompactionSizes
        from headwater.sinks.lake.maintenance import Maintenance, MaintenanceSettings
        from headwater.sinks.lake.rewrite import SortOrder

        contract = self.pipeline.contract
        name, order = self.pipeline.lake_to.table, SortOrder(contract.key, contract.time)
        if view is not None:
            name, order = str(view.table), sort_order(view)
        reload = partial(open_table, self.settings, name, open_catalog(self.settings))
        how = MaintenanceSettings(order, sizes or CompactionSizes())
        pinned = partial(pinned_snapshots, self.ledger, self.pipeline) if view is None else tuple
        return Maintenance(name, reload, self.ledger, self.objects, self.clock, how, pinned)

    @cached_property
    def ports(self) -> Ports:
        """Return what a shard's worker writes to and reads from."""
        return Ports(
            ledger=self.ledger,
            objects=self.objects,
            views=self.views,
            letters=self.letters,
            references=ReferenceLoader(self.pipeline, self.objects),
            check_control=self.check_control,
            streams=KinesisStreams(self.kinesis, self.control_key, self.clock, random.random),
            lake_columns=SaidColumns(self.ledger),
        )
