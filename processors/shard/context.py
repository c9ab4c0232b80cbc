"""Name what a worker needs from outside: where its effects go, and what all workers of a process share.

Protocols and frozen values alone; `services` joins them to AWS, tests to memory.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from headwater.clock import Clock
from headwater.config import Settings
from headwater.ledger import Commit, ShardEntry
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.engine import CheckControl, LoadReference
from headwater.sinks.deadletter import DeadLetter
from headwater.sinks.lake.fieldids import FieldIds
from headwater.sinks.streams import StreamBatch
from headwater.sinks.views.items import ViewSpec
from headwater.sinks.views.slots import Upsert
from headwater.sinks.views.writing import WriteReport
from headwater.stores import DocumentStore, ObjectStore

__all__ = ["Ports", "StreamWriter", "WorkerContext"]


class _ShardLedger(DocumentStore, Protocol):
    pipeline: str

    def shard(self, shard_id: str) -> ShardEntry | None: ...

    def shards(self) -> list[ShardEntry]: ...

    def claim(self, shard_id: str, owner: str, initial: bytes | None, now_ms: int) -> ShardEntry: ...

    def commit(self, entry: ShardEntry, change: Commit) -> ShardEntry: ...


class _Views(Protocol):
    def write(self, view: ViewSpec, upserts: Sequence[Upsert]) -> WriteReport: ...


class LetterWriter(Protocol):
    def write(self, pipeline: str, letters: Sequence[DeadLetter]) -> object: ...


class StreamWriter(Protocol):
    """Put on other streams: `headwater.sinks.streams.KinesisStreams` does."""

    def send(self, stream: str, batches: Sequence[StreamBatch]) -> None: ...

    def announce(self, stream: str, receipt: Mapping[str, object]) -> None: ...


@dataclass(frozen=True)
class Ports:
    """Hold where a worker's effects go."""

    ledger: _ShardLedger
    objects: ObjectStore
    views: _Views
    letters: LetterWriter
    references: LoadReference
    check_control: CheckControl | None = None
    streams: StreamWriter | None = None
    """None where the pipeline has no streams that events go on to."""
    lake_columns: Callable[[], FieldIds] = tuple
    """Returns the lake table's numbers of its columns; none while they are not known."""


@dataclass(frozen=True)
class WorkerContext:
    """Hold what all workers of a process share. `owner` is the name by which they claim shards in the ledger."""

    pipeline: Pipeline
    ports: Ports
    settings: Settings
    clock: Clock
    owner: str
