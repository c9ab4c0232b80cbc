"""The audit's inputs, read: ledger entries, committed states, the identities in the lake."""

from processors.audit import AuditReport, audit
from processors.services import Services
from processors.worker import StateStore
from sinks.query import lake_identities

__all__ = ["run_audit"]


def run_audit(services: Services) -> AuditReport:
    """Read every hop and compare. Exact for what is committed; what is pending is said in the report."""
    pipeline = services.pipeline
    entries = services.ledger.shards()
    store = StateStore(pipeline, services.objects)
    states = [store.load(entry) for entry in entries]
    return audit(pipeline.name, entries, states, lake_identities(services.settings, pipeline.lake_to.table))
