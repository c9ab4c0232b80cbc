"""Hold what a rebuild is given in place of the whole wiring."""

from dataclasses import dataclass

from headwater.processors.ports import ClaimShard, PipelineStores
from headwater.sinks.views.store import ViewStore

__all__ = ["RebuildPorts"]


@dataclass(frozen=True)
class RebuildPorts:
    """Hold the pipeline's stores, its views, and how to take a shard over.

    `commit_seconds` is how often processors commit: so long after a switch they may still write what serves no more.
    """

    stores: PipelineStores
    views: ViewStore
    commit_seconds: float
    claim: ClaimShard
