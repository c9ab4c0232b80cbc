"""Wiring: the ports of a worker and the publisher's parts from settings. The only place that joins them to boto3."""

import socket
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from headwater.aws import Objects, client
from headwater.clock import Clock, SystemClock
from headwater.config import Settings
from headwater.ledger import Ledger
from processors.alerts.store import AlertStore
from processors.generations import DOCUMENT, Serving, keeping, pinned_snapshots
from processors.pipeline import Pipeline
from processors.references import ReferenceLoader
from processors.worker import Ports
from sinks.deadletter import DeadLetters
from sinks.views import ViewSpec, ViewStore

if TYPE_CHECKING:
    from sinks.compaction import Sizes
    from sinks.maintenance import Maintenance
    from sinks.publisher import Publisher

__all__ = ["Services", "new_owner"]


def new_owner() -> str:
    """A name that no other process has: host and a random part."""
    return f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True)
class Services:
    """What the settings name, opened when first used."""

    settings: Settings
    pipeline: Pipeline
    clock: Clock = SystemClock()  # noqa: RUF009 (it has no state)

    def client(self, service: str) -> Any:
        return client(service, self.settings)

    @cached_property
    def kinesis(self) -> Any:
        return self.client("kinesis")

    @cached_property
    def objects(self) -> Objects:
        return Objects(self.client("s3"), self.settings.bucket)

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.client("dynamodb"), self.settings.ledger_table, self.pipeline.name)

    @cached_property
    def views(self) -> ViewStore:
        pool = ThreadPoolExecutor(self.settings.view_writers, thread_name_prefix="views")
        return ViewStore(self.client("dynamodb"), self.settings.views_table, pool=pool, clock=self.clock)

    @cached_property
    def alerts(self) -> AlertStore:
        return AlertStore(self.client("dynamodb"), self.settings.ledger_table, self.pipeline.name)

    @cached_property
    def letters(self) -> DeadLetters:
        return DeadLetters(self.objects)

    @cached_property
    def serving(self) -> Serving:
        """What of the views serves, for readers."""
        return Serving(self.ledger, self.pipeline, self.clock)

    @property
    def view_specs(self) -> dict[str, ViewSpec]:
        """Of what serves, by the view's name; at most a second old."""
        return {name: view.spec for name, view in self.serving.views().items()}

    def kept(self) -> Pipeline:
        """The pipeline with all that processors keep of its views, by stored name, as of now."""
        return keeping(self.pipeline, self.ledger.document(DOCUMENT)[0])

    def publisher(self, owner: str) -> "Publisher":
        """Over the lake's table, which is made when it is not there."""
        # here, so that a processor starts without pyiceberg, and a Lambda function is deployed without it
        from headwater.contract.iceberg import iceberg_schema
        from sinks.catalog import IcebergTable, ensure_table, open_catalog
        from sinks.publisher import Publisher

        pipeline, settings = self.pipeline, self.settings
        catalog, lake = open_catalog(settings), pipeline.lake_to
        schema = iceberg_schema(pipeline.contract, pipeline.added)
        was = {field.name: field.was for field in pipeline.contract.fields if field.was}
        ensure_table(catalog, settings, lake.table, schema, pipeline.lake_partitioning, was)
        lease_seconds = max(1.0, 2 * settings.publish_seconds)  # two steps missed, and another takes over
        tables = partial(IcebergTable, catalog, settings.database)
        return Publisher(self.ledger, tables, self.clock, owner, lease_seconds)

    def maintenance(self, sizes: "Sizes | None" = None) -> "Maintenance":
        """Of the lake's table, which has to be there: UsageError when it is not."""
        from sinks.catalog import open_catalog, open_table
        from sinks.compaction import Sizes
        from sinks.maintenance import Maintenance
        from sinks.rewriting import Order

        name, contract = self.pipeline.lake_to.table, self.pipeline.contract
        reload = partial(open_table, self.settings, name, open_catalog(self.settings))
        order = Order(contract.key, contract.time)
        pinned = partial(pinned_snapshots, self.ledger, self.pipeline)
        return Maintenance(name, reload, self.ledger, self.objects, self.clock, order, sizes or Sizes(), pinned=pinned)

    @cached_property
    def ports(self) -> Ports:
        return Ports(
            ledger=self.ledger,
            objects=self.objects,
            views=self.views,
            letters=self.letters,
            references=ReferenceLoader(self.pipeline, self.objects),
        )
