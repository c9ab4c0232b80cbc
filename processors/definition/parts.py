"""Define what a pipeline consists of: reference tables, steps, views, streams and the lake table.

Frozen values without behaviour. What checks them against each other is in `checks`, what runs them in `operators`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from headwater.aggregates import Aggregate
from headwater.arguments import check_fields
from headwater.contract import Contract
from headwater.contract.types import TYPES
from headwater.errors import UsageError
from headwater.processors.definition.beside import beside_definition
from headwater.processors.definition.naming import check_column_types, check_name
from headwater.processors.definition.windows import Window
from headwater.sinks.views.items import ViewSpec

__all__ = ["IDENTITY", "Enrich", "Lake", "Map", "Reference", "Step", "ToStream", "View", "Where"]


IDENTITY = pa.schema(
    [
        pa.field("_origin", pa.string(), nullable=False),
        pa.field("_seq", pa.int64(), nullable=False),
        pa.field("_arrived_at", pa.timestamp("ms", "UTC"), nullable=False),
    ]
)
"""The columns of a lake table that say which event a row is."""


@dataclass(frozen=True)
class Reference:
    """Hold the description of a table to join events with.

    `source` is where the first version is read from: a CSV or Parquet file, as `s3://…` or a path relative to the file
    that defines the table, or `dynamodb://TABLE`. `key` is its column that `Pipeline.enrich` looks events up by; of
    rows with an equal key the last counts. `columns` are the columns to take and their types, named as in a contract:
    string, boolean, int, long, float, double, timestamp, timestamp_us, date.

    The source is read once, when the pipeline starts for the first time, and copied to the lake bucket. A later version
    is published with `headwater reference publish` and takes effect by a control record in the stream, so that a replay
    joins each event with the version that the first pass did.

    >>> devices = Reference("devices", "devices.csv", key="device", columns={"site": "string", "limit": "double"})
    >>> devices.key
    'device'
    """

    name: str
    source: str
    key: str
    columns: Mapping[str, str]

    def __post_init__(self) -> None:
        check_fields(self, columns="a mapping of columns to types, such as {'site': 'string'}")
        check_name("reference table", self.name)
        for name in ("source", "key"):
            if not getattr(self, name):
                raise UsageError(f"reference table {self.name}: its {name} is empty")
        check_column_types(f"reference table {self.name}", self.columns)
        object.__setattr__(self, "source", beside_definition(self.source))


@dataclass(frozen=True)
class Enrich:
    """Join with a reference table: a left join, so an event without a match gets nulls."""

    reference: Reference
    on: str
    prefix: str = ""

    def adds(self) -> list[pa.Field]:
        """Return the columns that the step appends."""
        return [pa.field(self.prefix + name, TYPES[kind]) for name, kind in self.reference.columns.items()]


@dataclass(frozen=True)
class Map:
    """Append columns that a user's function computes, from an Arrow table or a DataFrame."""

    function: Callable[[Any], Any]
    columns: Mapping[str, str]
    pandas: bool = False
    pure: bool = True
    reads: tuple[str, ...] | None = None
    """The columns that the function gets, as they are encoded; None for all, with plain strings."""

    def adds(self) -> list[pa.Field]:
        """Return the columns that the step appends."""
        return [pa.field(name, TYPES[kind]) for name, kind in self.columns.items()]


@dataclass(frozen=True)
class Where:
    """Keep the events for which a user's function says true; the others are counted as filtered."""

    function: Callable[[pa.Table], Any]
    reads: tuple[str, ...] | None = None
    """The columns that the function gets, as they are encoded; None for all, with plain strings."""

    def adds(self) -> list[pa.Field]:
        """Return the columns that the step appends: none."""
        return []


Step = Enrich | Map | Where


@dataclass(frozen=True)
class View:
    """Define a materialized view: aggregates per key and, with a window, per window of event time."""

    name: str
    by: tuple[str, ...]
    aggregates: tuple[Aggregate, ...]
    window: Window | None
    keep_ms: int | None = None
    """For how long after its window's end a row is kept; None is for good."""
    version: int = 1
    """The version of the definition."""
    spread: int = 1
    """The number of DynamoDB partitions that the slots of a row are written to."""
    table: str | None = None
    """The Iceberg table that gets the rows of final windows; None for none."""

    @property
    def spec(self) -> ViewSpec:
        """Return the part of the definition that the sink needs."""
        return ViewSpec(self.name, self.by, self.aggregates, self.keep_ms, self.spread)


@dataclass(frozen=True)
class ToStream:
    """Name a stream that kept events go on to, and the contract that they have there."""

    stream: str
    contract: Contract
    where: Where | None = None
    """The events that go; None for all."""


@dataclass(frozen=True)
class Lake:
    """Name the Iceberg table that every kept event goes to, and how it is partitioned."""

    table: str
    partition: str | None = "day"
    """The unit of event time, hour, day or month; None for no partition by time."""
    buckets: int | None = None
    """The number of buckets by the key's hash; None for no buckets."""
