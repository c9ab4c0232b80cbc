"""Name the modules that exactly-once rests on, and for each the tests that are to kill its mutants."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["CORE", "SELECTIONS", "Selection"]


@dataclass(frozen=True)
class Selection:
    """Name the tests that are to kill a module's mutants."""

    module: str
    tests: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Return the module's file."""
        return Path(*self.module.split(".")).with_suffix(".py")


def _unit(module: str, names: str) -> Selection:
    return Selection(f"headwater.{module}", tuple(f"tests/unit/test_{name}.py" for name in names.split()))


_PUBLISHER = "publisher publisher_leading publisher_strangers publisher_quarantine"
_SHARD = "embedded to_stream view_orphans view_versions forged_controls upstream commit_bounds totality"
_PRODUCER = "producer producer_identity producer_outbox producer_async producer_backpressure writer told"
_VIEWS = "views view_spread view_expiry view_keys view_throttling"

CORE = (
    # what was seen, and the only commit point
    _unit("lineage.intervals", "lineage"),
    _unit("lineage.members", "members"),
    _unit("lineage.origins", "origins_model"),
    _unit("ledger", "ledger ledger_reads upstream forged_controls publisher"),
    # the pure step
    _unit("processors.engine.engine", "engine_effects"),
    _unit("processors.engine.state", "shard_state"),
    _unit("processors.operators.dedupe", "identities own_ids redrive"),
    _unit("processors.operators.conflicts", "conflicts own_ids"),
    _unit("processors.operators.misplaced", "misplaced"),
    # one shard: carried out, committed
    _unit("processors.shard.flushes", "flush_journal"),
    _unit("processors.shard.outgoing", "outgoing"),
    _unit("processors.shard.worker", _SHARD),
    # the table of the lake
    _unit("sinks.lake.publisher", _PUBLISHER),
    _unit("sinks.lake.standing", "standing"),
    # views
    _unit("sinks.views.store", f"{_VIEWS} view_interleavings view_hot_row"),
    # from an application to the stream
    _unit("producers.outbox", "outbox_file outbox_model producer_identity"),
    _unit("producers.sealing", "sealing record_sizes batch_digest"),
    _unit("producers.writer", "writer"),
    _unit("producers.receipts", "receipts"),
)
"""Where one mistake alone would lose an event or count it twice: the score is of these."""

FURTHER = (
    # the pure step
    _unit("processors.engine.controls", "engine forged_controls horizon told audit reference_versions"),
    _unit("processors.engine.isolation", "totality"),
    _unit("processors.operators.aggregate", "engine eviction rollups view_state own_ids filtered_aggregates"),
    _unit("processors.controls", "forged_controls engine"),
    _unit("processors.watermark", "watermark ticks"),
    # one shard: claimed, carried out, committed
    _unit("processors.shard.claiming", _SHARD),
    _unit("processors.shard.letters", "totality embedded misplaced deadletter_bulk"),
    _unit("processors.shard.slots", "view_orphans view_versions"),
    _unit("processors.shard.snapshots", "embedded upstream"),
    _unit("processors.runners.retention", "retention"),
    _unit("processors.runners.shardreader", "retention embedded upstream tip_rounds"),
    _unit("processors.runners.tipnotes", "tip_rounds retention"),
    _unit("processors.runners.upstream", "upstream retention embedded"),
    _unit("processors.definition.claims", "pipeline_names to_stream_definition"),
    # the table of the lake
    _unit("sinks.lake.catalog", _PUBLISHER),
    _unit("sinks.lake.ancestry", _PUBLISHER),
    _unit("sinks.lake.quarantine", "publisher_quarantine publisher_strangers publisher"),
    _unit("sinks.lake.history", _PUBLISHER),
    # views
    _unit("sinks.views.slots", f"{_VIEWS} view_versions"),
    _unit("processors.viewtables.following", "view_table_rows"),
    # from an application to the stream
    _unit("producers.sender", _PRODUCER),
    _unit("producers.tracking", _PRODUCER),
    _unit("producers.restores", "producer_identity producer_processes"),
)
"""Around it: what claims, reads, decides on the catalog's files, sends. A mistake there mostly shows in the core."""

SELECTIONS = CORE + FURTHER
