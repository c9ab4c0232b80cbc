"""Hold the small bundles of ports that processors' code is given in place of the whole wiring.

A port here is a value with a few plain fields: no settings, no client factory, nothing that is opened when it is first
used. What only one function needs is a parameter of that function, not a field here.
`headwater.processors.services` fills these in for the entry points; nothing here may import it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwater.aws import Objects
from headwater.clock import Clock, SystemClock
from headwater.ledger import Ledger
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.generations import DOCUMENT, keeping

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from headwater.processors.shard.worker import ShardWorker

__all__ = ["ClaimShard", "ClientFactory", "OpenTable", "PipelineReader", "PipelineStores", "StreamClient"]

ClientFactory = Callable[[str], Any]
"""Makes a boto3 client by the name of the service, such as `s3`."""
OpenTable = Callable[[], "Table"]
"""Loads the pipeline's Iceberg table in its newest state; UsageError when there is no such table."""

ClaimShard = Callable[[str, str], "ShardWorker"]
"""Takes a shard, by id, in the name of an owner: its processor is fenced."""


@dataclass(frozen=True)
class StreamClient:
    """Hold a Kinesis client and the name of the stream to use it on."""

    kinesis: Any
    stream: str


@dataclass(frozen=True)
class PipelineStores:
    """Hold one pipeline and what it keeps: its items in the ledger's table, its objects in the bucket."""

    pipeline: Pipeline
    ledger: Ledger
    objects: Objects
    clock: Clock = SystemClock()  # noqa: RUF009 (it has no state)

    def kept_pipeline(self) -> Pipeline:
        """Return the pipeline with every view that processors write as of now, by stored name.

        Raises UsageError for a view that serves in a version that the pipeline does not have.
        """
        return keeping(self.pipeline, self.ledger.document(DOCUMENT)[0])


@dataclass(frozen=True)
class PipelineReader:
    """Hold what reads a pipeline from outside of its processors: its stores, its stream and its table in the lake."""

    stores: PipelineStores
    stream: StreamClient
    open_table: OpenTable
