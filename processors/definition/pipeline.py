"""Define a pipeline: one readable object that a user writes in one file.

    pipeline = (
        Pipeline("telemetry", contract="telemetry", allowed_lateness="2m")
        .enrich(Reference("devices", "devices.csv", key="device", columns={"site": "string"}), on="device")
        .map(fahrenheit, adds={"value_f": "double"})
        .view("device_1m", by=["device"], window=tumbling("1m"), events=count(), mean=mean("value"))
        .alert("hot", on="device_1m", when=above("mean", 30, clear=28), for_="2m")
        .lake("telemetry", partition="day")
    )

The definition says what is computed, never where: streams, tables and buckets come from the settings, threads and
clocks from the runner.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Never

import pyarrow as pa

from headwater.aggregates import Aggregate
from headwater.arguments import check_arguments, duration_ms, shown
from headwater.codec import Decoder
from headwater.contract import Contract, load_contract
from headwater.errors import UsageError
from headwater.processors.alerts import Condition, Rule
from headwater.processors.definition.beside import contract_beside
from headwater.processors.definition.checks import (
    check_aggregates,
    check_alert,
    check_columns,
    check_keep,
    check_keys,
    check_names,
    check_stream,
    check_table,
    refuse_unknown,
)
from headwater.processors.definition.contents import PipelineContents
from headwater.processors.definition.naming import check_name, check_table_name
from headwater.processors.definition.parts import Enrich, Lake, Reference, Step, ToStream, View
from headwater.processors.definition.steps import map_step, where_step
from headwater.processors.definition.windows import Window

__all__ = ["Pipeline"]

_OPTIONS = ("name", "contract", "allowed_lateness", "max_future")
_WINDOW = "a window, such as tumbling('1m')"
_VIEW_OPTIONS = ("by", "window", "keep", "version", "spread", "table")


@dataclass(frozen=True, init=False)
class Pipeline(PipelineContents):
    """Define a pipeline. It is immutable: every method returns a new pipeline.

    `name` is the pipeline's name in the ledger, in S3 keys and in metrics. `contract` is a contract, the path of a
    contract file, relative to the file that defines the pipeline, or the name of a shipped one. `allowed_lateness` is
    how far the watermark stays behind the highest event time: an event counts as late for a window that ended before
    the watermark, and amends it. `max_future` bounds how far an event time ahead of its record's arrival moves the
    watermark. Both are durations such as `"90s"`, `"2m"`, `"1h"`.

    Raises UsageError for an option that there is not, and for a duration or a contract that cannot be read.

    >>> from headwater.aggregates import count, mean
    >>> from headwater.processors.definition.windows import tumbling
    >>> pipeline = (
    ...     Pipeline("plant", contract="telemetry", allowed_lateness="2m")
    ...     .view("device_1m", by=["device"], window=tumbling("1m"), events=count(), mean=mean("value"))
    ...     .lake("plant", partition="day")
    ... )
    >>> [view.name for view in pipeline.views]
    ['device_1m']
    """

    def __init__(
        self,
        name: str,
        contract: Contract | str | Path,
        allowed_lateness: str = "2m",
        max_future: str = "1h",
        **unknown: Never,  # a type checker refuses any; at run time the refusal names the nearest known option
    ) -> None:
        check_arguments(Pipeline.__init__, locals(), contract="a Contract, the name of a shipped one or a path")
        check_name("pipeline", name)
        refuse_unknown(f"pipeline {name}", unknown, _OPTIONS)
        self._set(
            name=name,
            contract=contract if isinstance(contract, Contract) else load_contract(contract_beside(contract)),
            lateness_ms=duration_ms(allowed_lateness),
            max_future_ms=duration_ms(max_future),
            steps=(),
            views=(),
            newer=(),
            alerts=(),
            streams=(),
            lake_table=None,
            decoder=None,
        )

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _with(self, **changes: Any) -> "Pipeline":
        made = object.__new__(Pipeline)
        made._set(**({one.name: getattr(self, one.name) for one in fields(self)} | changes))
        return made

    def decode(self, decoder: Decoder) -> "Pipeline":
        """Read the records that others write by a decoder instead of as JSON.

        `decoder` is one of `headwater.formats`, or a function that takes the bytes of a record, or of one user record
        of a KPL aggregate, without gzip, zlib or zstd, and returns its events: a `pyarrow.Table` with the contract's
        columns, or mappings (a list, or yielded) that the contract's `from` paths are looked up in. It must be pure.
        What it raises makes the record a dead letter with that reason; events that break the contract are dead letters
        by themselves. Raise UsageError when the decoder cannot be called.

        >>> import pyarrow as pa
        >>> def readings(data):
        ...     device, ts, value = data.decode().split()
        ...     return [{"device": device, "metric": "m", "ts": int(ts), "value": float(value)}]
        >>> Pipeline("plant", contract="telemetry").decode(readings).decoder(b"a 1772366400000 1.5")[0]["value"]
        1.5
        """
        if not callable(decoder):
            raise UsageError(f"pipeline {self.name}: {shown(decoder)} is no function of bytes")
        for_contract = getattr(decoder, "for_contract", None)  # of CSV, whose text has no types of its own
        return self._with(decoder=for_contract(self.contract) if for_contract else decoder)

    def enrich(self, reference: Reference, *, on: str, prefix: str = "") -> "Pipeline":
        """Join each event with the row of a reference table whose key equals the event's column `on`.

        The reference's columns are appended, named with `prefix` in front, and null where no row matches. Raises
        UsageError for a column that there is not, or that there would be twice.

        >>> devices = Reference("devices", "devices.csv", key="device", columns={"site": "string"})
        >>> Pipeline("plant", contract="telemetry").enrich(devices, on="device").schema.names[-1]
        'site'
        """
        check_arguments(Pipeline.enrich, locals())
        check_columns(f"pipeline {self.name}, enrich from {reference.name},", [on], self.schema)
        check_keys(f"pipeline {self.name}, enrich from {reference.name}: on", [on], self.schema)
        return self._adding(Enrich(reference, on, prefix))

    def map(
        self,
        function: Callable[[Any], Any] | str,
        *,
        adds: Mapping[str, str] | None = None,
        pandas: bool = False,
        pure: bool = True,
    ) -> "Pipeline":
        """Append columns that SQL or a function computes from the events.

        SQL names each column, as in `"value * 1.8 + 32 as value_f"`, and is given alone.

        `function` gets a `pyarrow.Table` of the columns so far (with `pandas=True` a DataFrame) and returns one with
        as many rows that has the columns in `adds`; these are named with their types as in a contract. It must treat
        each row by itself: how events are cut into tables is not defined. An event on which it raises goes to the dead
        letters. Say `pure=False` when it may give another answer for the same event: then views are written only after
        the commit. Raises UsageError for an unknown type, a column that is there already and for what is wrong in SQL.

        >>> Pipeline("plant", contract="telemetry").map("value * 1.8 + 32 as value_f").schema.names[-1]
        'value_f'
        """
        check_arguments(Pipeline.map, locals(), adds="a mapping of columns to types, such as {'value_f': 'double'}")
        return self._adding(map_step(self.name, self.schema, function, adds, pandas, pure))

    def where(self, function: Callable[[pa.Table], Any] | str) -> "Pipeline":
        """Keep the events for which a condition in SQL is true, or a function says so.

        `function` gets a `pyarrow.Table` and returns a boolean for each row, as an array, a Series or a list; null
        counts as false. The other events are counted as filtered and are in no later step, view or lake table.

        >>> warm = Pipeline("plant", contract="telemetry").where("value > 20 and metric = 'temperature'")
        >>> len(warm.steps)
        1
        """
        check_arguments(Pipeline.where, locals(), function="SQL or a function that returns booleans")
        return self._adding(where_step(self.name, self.schema, function))

    def view(
        self,
        name: str,
        *,
        by: Sequence[str],
        window: Window | None = None,
        keep: str | None = None,
        version: int = 1,
        spread: int = 1,
        table: str | None = None,
        **aggregates: Aggregate,
    ) -> "Pipeline":
        """Add a materialized view: a row per key and, with a window, per window of event time.

        `by` are the key's columns, which may be empty; each further argument names a value of the row. `keep` is for
        how long after its window's end a row stays, for ever when left out. The same name again in a higher `version`
        is the definition that is to follow: processors maintain it, too, once `headwater view rebuild` begins.
        `spread`, 1 to 100, is the number of DynamoDB partitions for rows that many shards feed: see "Hot rows" in
        docs/views.md. `table` names an Iceberg table for the rows of final windows: see docs/view-tables.md.

        Raises UsageError for an unknown column or option, and for an aggregate that the column's type does not allow:
        sum, mean, variance and quantile need numbers or booleans.

        >>> from headwater.aggregates import count, max
        >>> from headwater.processors.definition.windows import tumbling
        >>> plant = Pipeline("plant", contract="telemetry")
        >>> hourly = plant.view("hourly", by=["device"], window=tumbling("1h"), keep="30d", n=count(), top=max("value"))
        >>> [aggregate.name for aggregate in hourly.views[0].aggregates]
        ['n', 'top']
        """
        check_arguments(Pipeline.view, locals(), by="a list of columns, such as ['device']", window=_WINDOW)
        before = [view for view in self.definitions if view.name == name]
        if before and version <= before[-1].version:
            raise UsageError(
                f"pipeline {self.name} has two views named {name}: one that is to follow it needs a version above "
                f"{before[-1].version}"
            )
        check_names(name, [*by, *aggregates])
        if not aggregates:
            raise UsageError(f"view {name} has no aggregate: add one, as in events=count()")
        check_columns(f"pipeline {self.name}, view {name},", by, self.schema)
        check_keys(f"view {name}: by", by, self.schema)
        check_aggregates(name, aggregates, _VIEW_OPTIONS, self.schema)
        named = tuple(replace(aggregate, name=output) for output, aggregate in aggregates.items())
        keep_ms = check_keep(name, keep, window, self.lateness_ms)
        view = View(name, tuple(by), named, window, keep_ms, version, spread, table)
        check_table(view, [*self.definitions], self.lake_table)
        for rule in (rule for rule in self.alerts if rule.view == name):
            if view.window != rule.window:
                raise UsageError(f"view {name}: version {version} needs the window that alert {rule.name} is over")
            check_alert(rule, view, self.schema, self.lateness_ms)
        return self._with(newer=(*self.newer, view)) if before else self._with(views=(*self.views, view))

    def having(self, views: Sequence[View]) -> "Pipeline":
        """Return the same pipeline with these views instead of its own."""
        check_arguments(Pipeline.having, locals())
        return self._with(views=tuple(views), newer=())

    def alert(self, name: str, *, on: str, when: Condition, for_: str | None = None, summary: str = "") -> "Pipeline":
        """Add a rule over the final windows of the view `on`, which must have been added before.

        An episode begins once the condition `when` has held for the duration `for_` of event time (from the first
        breach on when left out), and ends when the value is clear. `summary` is a sentence for people. Raises
        UsageError for a view or column that there is not, and for rows that would be gone before they are judged.

        >>> from headwater.aggregates import mean
        >>> from headwater.processors.alerts import above
        >>> from headwater.processors.definition.windows import tumbling
        >>> plant = Pipeline("plant", contract="telemetry")
        >>> plant = plant.view("device_1m", by=["device"], window=tumbling("1m"), mean=mean("value"))
        >>> str(plant.alert("hot", on="device_1m", when=above("mean", 30, clear=28), for_="2m").alerts[0].when)
        'mean above 30 (until 28)'
        """
        check_arguments(Pipeline.alert, locals(), when="a condition, such as above('mean', 30)")
        views = [view for view in self.definitions if view.name == on]
        if not views or views[0].window is None:
            raise UsageError(f"alert {name}: {on!r} is no view with windows of pipeline {self.name}")
        if any(view.window != views[0].window for view in views):
            raise UsageError(f"alert {name}: the versions of view {on} have different windows")
        if any(rule.name == name for rule in self.alerts):
            raise UsageError(f"pipeline {self.name} has two alerts named {name}")
        rule = Rule(name, on, views[0].window, when, 0 if for_ is None else duration_ms(for_), summary)
        for view in views:
            check_alert(rule, view, self.schema, self.lateness_ms)
        return self._with(alerts=(*self.alerts, rule))

    def to_stream(
        self, stream: str, *, contract: Contract | str | Path, where: Callable[[pa.Table], Any] | str | None = None
    ) -> "Pipeline":
        """Put kept events on another Kinesis stream, for the pipelines that read it; each once, whatever dies.

        `contract` is what they are there: its fields are columns so far, with their types. `where` is SQL or a
        function, as of `Pipeline.where`, that says which go. An event that breaks that contract is a dead letter.
        Raises UsageError for a field that the events do not have, or have in another type.

        >>> Pipeline("plant", contract="telemetry").to_stream("hot", contract="telemetry").streams[0].stream
        'hot'
        """
        check_arguments(Pipeline.to_stream, locals(), contract="a Contract, the name of a shipped one or a path")
        own = contract if isinstance(contract, Contract) else load_contract(contract_beside(contract))
        which = None if where is None else where_step(self.name, self.schema, where)
        made = ToStream(stream, own, which)
        check_stream(self.name, made, self.streams, self.schema)
        return self._with(streams=(*self.streams, made))

    def lake(self, table: str, *, partition: str | None = "day", buckets: int | None = None) -> "Pipeline":
        """Write every kept event to this Iceberg table, which is made when it is not there.

        `partition` is hour, day or month of event time, None for no partition by time; `buckets` adds so many
        partitions by the key's hash. Raises UsageError for a partition that the key's type does not allow.

        >>> Pipeline("plant", contract="telemetry").lake("plant", partition="hour").lake_to.partition
        'hour'
        """
        check_arguments(Pipeline.lake, locals())
        check_table_name(table)
        made = self._with(lake_table=Lake(table, partition, buckets))
        for view in self.definitions:
            check_table(view, [], made.lake_table)
        made.lake_partitioning.check(self.schema.field(self.contract.key).type)
        return made

    def _adding(self, step: Step) -> "Pipeline":
        for field in step.adds():
            if field.name in self.schema.names:
                raise UsageError(f"pipeline {self.name}: column {field.name} is there already; give a prefix")
        return self._with(steps=(*self.steps, step))
