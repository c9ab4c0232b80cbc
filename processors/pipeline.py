"""The pipeline definition: one readable object that a user writes in one file.

    pipeline = (
        Pipeline("telemetry", contract="telemetry", allowed_lateness="2m")
        .enrich(Reference("devices", "devices.csv", key="device", columns={"site": "string"}), on="device")
        .map(fahrenheit, adds={"value_f": "double"})
        .view("device_1m", by=["device"], window=tumbling("1m"), events=count(), mean=mean("value"))
        .alert("hot", on="device_1m", when=above("mean", 30, clear=28), for_="2m")
        .lake("telemetry", partition="day")
    )

It says what, never where: streams, tables and buckets come from the settings, threads and clocks from the runner.
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from headwater.aggregates import Aggregate
from headwater.contract import Contract, load_contract
from headwater.contract.definition import TYPES
from headwater.errors import HeadwaterError, UsageError
from processors.alerts import Condition, Rule
from processors.windows import Window, duration_ms
from sinks.partitioning import Partitioning
from sinks.viewitems import ViewSpec

__all__ = ["Enrich", "Lake", "Map", "Pipeline", "Reference", "Step", "View", "Where", "load"]

JUDGED_WITHIN_MS = 600_000
"""How much longer than the allowed lateness and what a rule looks back at an alert's view keeps its rows at least: for
commits, turns and short pauses."""
_NOT_IN_NAMES = frozenset("@/{}?#")
IDENTITY = pa.schema(
    [
        pa.field("_origin", pa.string(), nullable=False),
        pa.field("_seq", pa.int64(), nullable=False),
        pa.field("_arrived_at", pa.timestamp("ms", "UTC"), nullable=False),
    ]
)


@dataclass(frozen=True)
class Reference:
    """A table to join with: its first source (CSV or Parquet, a path or s3://, or `dynamodb://TABLE`), key and columns.

    The source is read once, when the pipeline first starts, and copied to the lake bucket; a later version is
    published with `headwater reference publish` and takes effect by a control record in the stream.
    """

    name: str
    source: str
    key: str
    columns: Mapping[str, str]
    """The columns to take, by name, and their types as in a contract."""


@dataclass(frozen=True)
class Enrich:
    """Left join: an event without a match gets nulls."""

    reference: Reference
    on: str
    prefix: str = ""

    def adds(self) -> list[pa.Field]:
        return [pa.field(self.prefix + name, TYPES[kind]) for name, kind in self.reference.columns.items()]


@dataclass(frozen=True)
class Map:
    """A function of the user's over an Arrow table (or a DataFrame): row by row, pure, adding columns."""

    function: Callable[[Any], Any]
    columns: Mapping[str, str]
    pandas: bool = False
    pure: bool = True

    def adds(self) -> list[pa.Field]:
        return [pa.field(name, TYPES[kind]) for name, kind in self.columns.items()]


@dataclass(frozen=True)
class Where:
    """Keeps the events for which the function says true; the others are counted as filtered."""

    function: Callable[[pa.Table], Any]

    def adds(self) -> list[pa.Field]:
        return []


@dataclass(frozen=True)
class View:
    """A materialized view: aggregates per key (and window of event time)."""

    name: str
    by: tuple[str, ...]
    aggregates: tuple[Aggregate, ...]
    window: Window | None
    keep_ms: int | None = None
    """How long after its window's end a row is kept; None is for good."""
    version: int = 1
    """Of the definition."""
    spread: int = 1
    """Partitions of the views table that a row's slots are spread over."""

    @property
    def spec(self) -> ViewSpec:
        """What the sink has to know of it."""
        return ViewSpec(self.name, self.by, self.aggregates, self.keep_ms, self.spread)


@dataclass(frozen=True)
class Lake:
    """The Iceberg table that every kept event goes into, partitioned by event time and by bucket of the key."""

    table: str
    partition: str | None = "day"
    buckets: int | None = None


Step = Enrich | Map | Where


@dataclass(frozen=True)
class Pipeline:
    """See the module. Immutable: every method returns a new pipeline."""

    name: str
    contract_source: Contract | str
    steps: tuple[Step, ...] = ()
    views: tuple[View, ...] = ()
    alerts: tuple[Rule, ...] = ()
    lake_table: Lake | None = None
    newer: tuple[View, ...] = ()
    """Views of the same names in further versions: see `headwater view rebuild`."""
    lateness_ms: int = 120_000
    max_future_ms: int = 3_600_000
    """An event time further than this ahead of its arrival does not move the watermark beyond it."""

    def __init__(self, name: str, contract: Contract | str, allowed_lateness: str = "2m", **fields: Any) -> None:
        values = {"name": name, "contract_source": contract, "lateness_ms": duration_ms(allowed_lateness)} | fields
        for field in ("steps", "views", "alerts", "newer"):
            values.setdefault(field, ())
        values.setdefault("lake_table", None)
        values.setdefault("max_future_ms", 3_600_000)
        for field, value in values.items():
            object.__setattr__(self, field, value)

    def _with(self, **changes: Any) -> "Pipeline":
        fields = ("steps", "views", "alerts", "lake_table", "newer", "lateness_ms", "max_future_ms")
        kept = {field: getattr(self, field) for field in fields}
        return Pipeline(self.name, self.contract_source, **(kept | changes))

    @cached_property
    def contract(self) -> Contract:
        source = self.contract_source
        return source if isinstance(source, Contract) else load_contract(source)

    @property
    def lake_to(self) -> Lake:
        if self.lake_table is None:
            raise UsageError(f"pipeline {self.name} writes to no lake table: add .lake('NAME')")
        return self.lake_table

    @property
    def lake_partitioning(self) -> Partitioning:
        return Partitioning(self.contract.time, self.contract.key, self.lake_to.partition, self.lake_to.buckets)

    @cached_property
    def added(self) -> pa.Schema:
        """The columns that enrichments and functions add, in order."""
        return pa.schema([field for step in self.steps for field in step.adds()])

    @cached_property
    def schema(self) -> pa.Schema:
        """The contract's columns and the added ones: what views and functions see."""
        return pa.schema([*self.contract.arrow_schema, *self.added])

    @cached_property
    def lake_schema(self) -> pa.Schema:
        """`schema` and the identity columns, required ones not nullable: what the lake holds."""
        own = [pa.field(one.name, one.arrow_type, nullable=not one.required) for one in self.contract.fields]
        return pa.schema([*own, *self.added, *IDENTITY])

    @property
    def references(self) -> tuple[Reference, ...]:
        return tuple({step.reference.name: step.reference for step in self.steps if isinstance(step, Enrich)}.values())

    @property
    def pure(self) -> bool:
        """Whether views may be written ahead of the commit."""
        return all(step.pure for step in self.steps if isinstance(step, Map))

    def enrich(self, reference: Reference, *, on: str, prefix: str = "") -> "Pipeline":
        self._known(on, f"enrich from {reference.name}")
        return self._adding(Enrich(reference, on, prefix))

    def map(
        self, function: Callable[[Any], Any], *, adds: Mapping[str, str], pandas: bool = False, pure: bool = True
    ) -> "Pipeline":
        if pandas and importlib.util.find_spec("pandas") is None:
            raise UsageError("map: a function of DataFrames needs pandas: pip install 'headwater[pandas]'")
        return self._adding(Map(function, dict(adds), pandas, pure))

    def where(self, function: Callable[[pa.Table], Any]) -> "Pipeline":
        return self._adding(Where(function))

    def view(
        self,
        name: str,
        *,
        by: Sequence[str],
        window: Window | None = None,
        keep: str | None = None,
        version: int = 1,
        spread: int = 1,
        **aggregates: Aggregate,
    ) -> "Pipeline":
        """A materialized view. The same name again, in a higher `version`, is the definition that is to follow it:
        processors keep it, too, once `headwater view rebuild` begins. `spread`, 1 to 100, is for rows that many shards
        feed: see "Hot rows" in docs/views.md.
        """
        before = [view for view in self.definitions if view.name == name]
        if before and version <= before[-1].version:
            raise UsageError(
                f"pipeline {self.name} has two views named {name}: one that is to follow it needs a version above "
                f"{before[-1].version}"
            )
        _check_names(name, [*by, *aggregates])
        if not aggregates:
            raise UsageError(f"view {name} has no aggregate: add one, as in events=count()")
        for column in [*by, *(a.field for a in aggregates.values() if a.field)]:
            self._known(column, f"view {name}")
        named = tuple(replace(aggregate, name=output) for output, aggregate in aggregates.items())
        keep_ms = None if keep is None else duration_ms(keep)
        if keep_ms is not None and window is None:
            raise UsageError(f"view {name} has no window, so its rows have no end to count keep={keep!r} from")
        if keep_ms is not None and keep_ms < self.lateness_ms:
            raise UsageError(f"view {name}: keep={keep!r} is less than the lateness that the pipeline allows")
        view = View(name, tuple(by), named, window, keep_ms, version, spread)
        for rule in (rule for rule in self.alerts if rule.view == name):
            if view.window != rule.window:
                raise UsageError(f"view {name}: version {version} needs the window that alert {rule.name} is over")
            self._check_alert(rule, view)
        return self._with(newer=(*self.newer, view)) if before else self._with(views=(*self.views, view))

    @property
    def definitions(self) -> tuple[View, ...]:
        """The views in all their versions."""
        return (*self.views, *self.newer)

    def definition(self, name: str, version: int) -> View | None:
        """A view in a version."""
        return next((view for view in self.definitions if (view.name, view.version) == (name, version)), None)

    def having(self, views: Sequence[View]) -> "Pipeline":
        """The same pipeline with these views."""
        return self._with(views=tuple(views), newer=())

    def alert(self, name: str, *, on: str, when: Condition, for_: str | None = None, summary: str = "") -> "Pipeline":
        """A rule over the final windows of the view `on`, which has to be there by now."""
        views = [view for view in self.definitions if view.name == on]
        if not views or views[0].window is None:
            raise UsageError(f"alert {name}: {on!r} is no view with windows of pipeline {self.name}")
        if any(view.window != views[0].window for view in views):
            raise UsageError(f"alert {name}: the versions of view {on} have different windows")
        if any(rule.name == name for rule in self.alerts):
            raise UsageError(f"pipeline {self.name} has two alerts named {name}")
        rule = Rule(name, on, views[0].window, when, 0 if for_ is None else duration_ms(for_), summary)
        for view in views:
            self._check_alert(rule, view)
        return self._with(alerts=(*self.alerts, rule))

    def _check_alert(self, rule: Rule, view: View) -> None:
        numbers = [one.name for one in view.aggregates if self._is_number(one)]
        if rule.when.kind != "absent" and rule.when.column not in numbers:
            raise UsageError(
                f"alert {rule.name}: {rule.when.column!r} is no number in view {view.name}; it has {numbers}"
            )
        needed = self.lateness_ms + rule.lookback_ms + JUDGED_WITHIN_MS
        if view.keep_ms is not None and view.keep_ms < needed:
            raise UsageError(
                f"alert {rule.name}: view {view.name} keeps rows for {view.keep_ms / 1000:g} s, and to be judged they "
                f"have to be there for {needed / 1000:g} s: give it a longer keep"
            )

    def _is_number(self, aggregate: Aggregate) -> bool:
        """Whether its values are; of the others (least, most, first, last) the field's type decides."""
        if aggregate.field is None or aggregate.function not in ("min", "max", "first", "last"):
            return True
        kind = self.schema.field(aggregate.field).type
        return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))

    def lake(self, table: str, *, partition: str | None = "day", buckets: int | None = None) -> "Pipeline":
        made = self._with(lake_table=Lake(table, partition, buckets))
        made.lake_partitioning.check(self.schema.field(self.contract.key).type)
        return made

    def _adding(self, step: Step) -> "Pipeline":
        kinds = step.columns if isinstance(step, Map) else step.reference.columns if isinstance(step, Enrich) else {}
        for column, kind in kinds.items():
            if kind not in TYPES:
                raise UsageError(f"pipeline {self.name}: column {column} has no type {kind!r}; use one of {[*TYPES]}")
        for field in step.adds():
            if field.name in self.schema.names:
                raise UsageError(f"pipeline {self.name}: column {field.name} is there already; give a prefix")
        return self._with(steps=(*self.steps, step))

    def _known(self, column: str, where: str) -> None:
        if column not in self.schema.names:
            raise UsageError(f"{where}: no column {column!r} in pipeline {self.name}; it has {self.schema.names}")


def _check_names(view: str, columns: Sequence[str]) -> None:
    """A view's name is a part of a URL's path; rows say beside their columns whether they are final."""
    refused = sorted(_NOT_IN_NAMES & set(view))
    if refused or view != view.strip():
        why = repr(refused[0]) if refused else "blanks at its ends"
        raise UsageError(f"a view cannot be named {view!r}: a name has no {why}")
    if "final" in columns:
        raise UsageError(f"view {view}: 'final' is what rows say of their windows; give the column another name")


def load(spec: str) -> Pipeline:
    """The pipeline named by `module:object` or `path/to/file.py:object`."""
    where, _, name = spec.partition(":")
    name = name or "pipeline"
    try:
        if where.endswith(".py"):
            if not Path(where).is_file():
                raise UsageError(f"no pipeline file {where}")
            found = importlib.util.spec_from_file_location("headwater_user_pipeline", where)
            assert found is not None
            assert found.loader is not None
            module = importlib.util.module_from_spec(found)
            found.loader.exec_module(module)
        else:
            module = importlib.import_module(where)
    except HeadwaterError:
        raise
    except Exception as error:
        raise UsageError(f"pipeline {spec} cannot be loaded: {type(error).__name__}: {error}") from error
    pipeline = getattr(module, name, None)
    if not isinstance(pipeline, Pipeline):
        raise UsageError(f"{where} has no pipeline named {name!r}")
    return pipeline
