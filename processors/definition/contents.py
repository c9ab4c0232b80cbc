"""Hold what a pipeline consists of, and what follows from it: columns, tables, references.

`Pipeline` says how it is put together.
"""

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from headwater.arguments import check_arguments
from headwater.codec import Decoder
from headwater.contract import Contract
from headwater.errors import UsageError
from headwater.processors.alerts import Rule
from headwater.processors.definition.parts import IDENTITY, Enrich, Lake, Map, Reference, Step, ToStream, View
from headwater.sinks.lake.partitioning import Partitioning

__all__ = ["PipelineContents"]


@dataclass(frozen=True, init=False)
class PipelineContents:
    """Hold the parts of a pipeline."""

    name: str
    contract: Contract
    lateness_ms: int
    max_future_ms: int
    steps: tuple[Step, ...]
    views: tuple[View, ...]
    newer: tuple[View, ...]
    """Further versions of views that are in `views`: see `headwater view rebuild`."""
    alerts: tuple[Rule, ...]
    streams: tuple[ToStream, ...]
    lake_table: Lake | None
    decoder: Decoder | None
    """Reads what others write on the stream; None for JSON. Batches of headwater's own are read in any case."""

    @property
    def lake_to(self) -> Lake:
        """Return the lake table; raise UsageError for a pipeline without one.

        >>> from headwater import Pipeline
        >>> Pipeline("plant", contract="telemetry").lake("plant").lake_to.table
        'plant'
        """
        if self.lake_table is None:
            raise UsageError(f"pipeline {self.name} writes to no lake table: add .lake('NAME')")
        return self.lake_table

    @property
    def lake_partitioning(self) -> Partitioning:
        """Return how the lake table is partitioned, by the contract's time and key."""
        return Partitioning(self.contract.time, self.contract.key, self.lake_to.partition, self.lake_to.buckets)

    @cached_property
    def added(self) -> pa.Schema:
        """Return the columns that enrichments and functions add, in order.

        >>> from headwater import Pipeline
        >>> Pipeline("plant", contract="telemetry").map(lambda events: events, adds={"rank": "int"}).added.names
        ['rank']
        """
        return pa.schema([field for step in self.steps for field in step.adds()])

    @cached_property
    def schema(self) -> pa.Schema:
        """Return the contract's columns and the added ones, as views and functions see them.

        >>> from headwater import Pipeline
        >>> Pipeline("plant", contract="telemetry").map(lambda events: events, adds={"rank": "int"}).schema.names[-1]
        'rank'
        """
        return pa.schema([*self.contract.arrow_schema, *self.added])

    @cached_property
    def lake_schema(self) -> pa.Schema:
        """Return the lake table's columns: those of `schema`, required ones not nullable, and the identity.

        >>> from headwater import Pipeline
        >>> Pipeline("plant", contract="telemetry").lake("plant").lake_schema.names[-3:]
        ['_origin', '_seq', '_arrived_at']
        """
        own = [pa.field(one.name, one.arrow_type, nullable=not one.required) for one in self.contract.fields]
        return pa.schema([*own, *self.added, *IDENTITY])

    @property
    def references(self) -> tuple[Reference, ...]:
        """Return the reference tables that steps join with, each once.

        >>> from headwater import Pipeline
        >>> devices = Reference("devices", "devices.csv", key="device", columns={"site": "string"})
        >>> [one.name for one in Pipeline("plant", contract="telemetry").enrich(devices, on="device").references]
        ['devices']
        """
        return tuple({step.reference.name: step.reference for step in self.steps if isinstance(step, Enrich)}.values())

    @property
    def pure(self) -> bool:
        """Return True when no function is declared impure: then views may be written ahead of the commit.

        >>> from headwater import Pipeline
        >>> Pipeline("plant", contract="telemetry").map(lambda events: events, adds={"rank": "int"}, pure=False).pure
        False
        """
        return all(step.pure for step in self.steps if isinstance(step, Map))

    @property
    def definitions(self) -> tuple[View, ...]:
        """Return the views in all their versions."""
        return (*self.views, *self.newer)

    def definition(self, name: str, version: int) -> View | None:
        """Return a view in a version; None when the pipeline does not have it.

        >>> from headwater import Pipeline
        >>> from headwater.aggregates import count
        >>> plant = Pipeline("plant", contract="telemetry").view("devices", by=["device"], events=count())
        >>> plant.definition("devices", 1).by
        ('device',)
        >>> plant.definition("devices", 2) is None
        True
        """
        check_arguments(PipelineContents.definition, locals())
        return next((view for view in self.definitions if (view.name, view.version) == (name, version)), None)
