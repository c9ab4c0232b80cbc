"""The audit's inputs, read: ledger entries, committed states, the identities in the lake."""

from processors.audit import AuditReport, audit
from processors.services import Services
from processors.worker import StateStore
from sinks.catalog import open_table
from sinks.lakehealth import Freshness, freshness
from sinks.query import lake_identities

__all__ = ["lake_freshness", "run_audit"]


def run_audit(services: Services) -> AuditReport:
    """Read every hop and compare. Exact for what is committed; what is pending is said in the report."""
    pipeline = services.pipeline
    entries = services.ledger.shards()
    store = StateStore(pipeline, services.objects)
    states = [store.load(entry) for entry in entries]
    return audit(pipeline.name, entries, states, lake_identities(services.settings, pipeline.lake_to.table))


def lake_freshness(services: Services) -> list[Freshness]:
    """Per shard of the pipeline, how long its files take to be queryable, and what waits."""
    name = services.pipeline.lake_to.table
    entries = services.ledger.shards()
    objects = services.objects
    dated = ((objects.uri(key), at) for key, _, at in objects.dated(f"lake/{name}/data/"))
    return freshness(open_table(services.settings, name), entries, dated, services.clock.now_ms())
