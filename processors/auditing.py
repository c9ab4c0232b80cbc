"""The audit's inputs, read: ledger entries, committed states, the identities in the lake."""

from collections.abc import Mapping, Sequence

from botocore.exceptions import ClientError

from headwater.ledger import ShardEntry
from processors.audit import AuditReport, audit
from processors.runners.embedded import list_shards
from processors.services import Services
from processors.state import ShardState
from processors.worker import StateStore
from sinks.catalog import open_table
from sinks.lakehealth import Freshness, freshness
from sinks.query import file_identities, lake_identities

__all__ = ["lake_freshness", "run_audit"]


def run_audit(services: Services) -> AuditReport:
    """Read every hop and compare: exact for what is committed, while the pipeline runs as well."""
    pipeline = services.pipeline
    entries = services.ledger.shards()
    listed = _listed(services)
    table = open_table(services.settings, pipeline.lake_to.table)
    return audit(
        pipeline.name,
        entries,
        _states(services, entries),
        lake_identities(table),
        file_identities(table, [file.uri for entry in entries for file in entry.pending]),
        later=lambda: _states(services, services.ledger.shards()),
        listed=listed,
    )


def _listed(services: Services) -> Mapping[str, Sequence[str]]:
    """The shards and their parents; none of a stream that is gone, of which nothing more can be read."""
    try:
        return {one.shard_id: one.parents for one in list_shards(services.kinesis, services.settings.stream)}
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        return {}


def _states(services: Services, entries: Sequence[ShardEntry]) -> list[ShardState]:
    store = StateStore(services.pipeline, services.objects)
    return [store.load(entry) for entry in entries]


def lake_freshness(services: Services) -> list[Freshness]:
    """Per shard of the pipeline, how long its files take to be queryable, and what waits."""
    name = services.pipeline.lake_to.table
    entries = services.ledger.shards()
    objects = services.objects
    dated = ((objects.uri(key), at) for key, _, at in objects.dated(f"lake/{name}/data/"))
    return freshness(open_table(services.settings, name), entries, dated, services.clock.now_ms())
