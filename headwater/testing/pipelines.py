"""Run a pipeline in memory, over events that a test or a person gives: the same engine, stores and merges as on AWS."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headwater.arguments import check_arguments, shown
from headwater.arrays import times
from headwater.clock import ManualClock
from headwater.codec import Decoded, decode_record, encode_batch
from headwater.config import GatewaySettings, KclSettings, ServeSettings, Settings
from headwater.contract import Contract, conform, validate_row
from headwater.errors import InvalidEvent, UsageError
from headwater.ledger import Ledger
from headwater.processors.definition.parts import Enrich, Map, Step
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.operators.enrich import ReferenceTable, apply_map, apply_where, plain_strings
from headwater.processors.references import DOCUMENT, read_table
from headwater.processors.shard.context import Ports, WorkerContext
from headwater.processors.shard.worker import Rewound, ShardWorker
from headwater.producers.files.files import OnInvalid, read_events
from headwater.producers.files.samples import MOST_ROWS
from headwater.sinks.deadletter import DeadLetter, DeadLetters
from headwater.sinks.streams import StreamBatch
from headwater.sinks.views.store import ViewStore
from headwater.stream.record import StreamRecord
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.testing.objects import MemoryObjects

__all__ = ["PipelineRun", "function_faults", "read_sample", "run_pipeline"]

_SHARD = "shardId-000000000000"
_BATCH = 5_000
_ARRIVED_MS = 4_102_444_800_000
"""When raw records arrive: in the year 2100, after any event."""


@dataclass(frozen=True)
class PipelineRun:
    """Hold what a pipeline made of events: rows of its views, rows of its lake table, dead letters, counts."""

    views: Mapping[str, list[dict[str, Any]]]
    """The rows of each view by its name, in order of key and window; `window_start` is a time with a zone."""
    lake: pa.Table
    """The rows of the lake table, with their identity."""
    dead_letters: list[DeadLetter]
    """Records and events that could not be processed, each with its `reason` and `payload`."""
    streams: Mapping[str, pa.Table]
    """The events that go on to other streams, by the stream's name, in its contract."""
    counts: Mapping[str, int]
    """`events`, `duplicates`, `filtered`, `lake` and others, as far as they are not 0."""


def run_pipeline(pipeline: Pipeline, events: Any, *, references: Mapping[str, Any] | None = None) -> PipelineRun:
    """Run a pipeline over events, and return what it makes of them. Nothing but memory is used, no AWS and no clock.

    `events` are what a `Producer` takes, a table, a DataFrame or dicts, or else the records that others write, as
    bytes. `references` gives reference tables by name, as tables, DataFrames or lists of dicts; those that are left out
    are read from their files. Raises InvalidEvent for an event that breaks the contract, as `Producer.put` does; bytes
    that do are dead letters, as on AWS, and so are events on which a function of the pipeline raises.

    >>> from headwater.aggregates import count, mean
    >>> from headwater.processors.definition.windows import tumbling
    >>> pipeline = (
    ...     Pipeline("plant", contract="telemetry")
    ...     .view("device_1m", by=["device"], window=tumbling("1m"), n=count(), mean=mean("value"))
    ...     .lake("plant")
    ... )
    >>> event = {"device": "a", "metric": "m", "ts": "2026-03-01T12:00:05Z", "value": 2.0}
    >>> run = run_pipeline(pipeline, [event, event | {"value": 4.0}])
    >>> [(row["device"], row["n"], row["mean"]) for row in run.views["device_1m"]]
    [('a', 2, 3.0)]
    >>> run.lake.num_rows, run.dead_letters
    (2, [])
    """
    check_arguments(run_pipeline, locals())
    _ = pipeline.lake_to
    shard = _LoneShard(pipeline, references or {})
    for data, arrived_ms in _records(pipeline.contract, events):
        shard.take(data, arrived_ms)
    return shard.result()


def read_sample(path: str | Path, contract: Contract, on_invalid: OnInvalid | None = None) -> pa.Table:
    """Return the first events of an NDJSON, CSV or Parquet file, 100,000 at most, as a table of the contract.

    Raises UsageError for a file that cannot be read, and InvalidEvent for an invalid row unless `on_invalid` takes it.
    """
    tables, rows = [contract.arrow_schema.empty_table()], 0
    source = read_events(path, contract, on_invalid=on_invalid)
    try:
        for table in source:
            tables.append(table.slice(0, MOST_ROWS - rows))
            rows += tables[-1].num_rows
            if rows >= MOST_ROWS:
                break
    finally:
        source.close()
    return pa.concat_tables(plain_strings(one) for one in tables)


def function_faults(pipeline: Pipeline) -> list[str]:
    """Return a line for each `.map` and `.where` that fails on no events at all, or gives columns of other types.

    A function may get any cut of the events, an empty one, too.
    """
    table, faults = pipeline.contract.arrow_schema.empty_table(), []
    for step in pipeline.steps:
        if isinstance(step, Enrich):
            table = _appended(table, step)
            continue
        name = getattr(step.function, "__name__", "a function")
        try:
            if isinstance(step, Map):
                faults += [f"map {name}: {fault}" for fault in _type_faults(table, step)]
                apply_map(table, step)
                table = _appended(table, step)
            else:
                apply_where(table, step)
        except Exception as error:  # a user's function may raise any
            faults.append(_failed("map" if isinstance(step, Map) else "where", name, error))
            table = _appended(table, step)
    for sink in pipeline.streams:
        try:
            if sink.where is not None:
                apply_where(table, sink.where)
        except Exception as error:  # the same
            faults.append(_failed(f"stream {sink.stream}, where", getattr(sink.where, "__name__", "a function"), error))
    return faults


def _failed(kind: str, name: str, error: Exception) -> str:
    return f"{kind} {name}: on no events: {type(error).__name__}: {' '.join(str(error).split())}"


def _type_faults(table: pa.Table, step: Map) -> list[str]:
    """Return which columns have text where numbers are declared, or the other way round."""
    made: Any = step.function(table.to_pandas() if step.pandas else table)
    if not isinstance(made, pa.Table):
        return []  # a frame without rows has no types
    faults = []
    for field in step.adds():
        found = made.schema.field(field.name).type if field.name in made.column_names else field.type
        if not pa.types.is_null(found) and pa.types.is_string(_plain(found)) != pa.types.is_string(field.type):
            faults.append(f"column {field.name} is declared {field.type} and is {found}")
    return faults


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _appended(table: pa.Table, step: Step) -> pa.Table:
    for field in step.adds():
        table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table


class _LoneShard:
    """Drive one shard of a stream that nobody has, with everything in memory."""

    def __init__(self, pipeline: Pipeline, references: Mapping[str, Any]) -> None:
        self._pipeline, self._references = pipeline, _read_references(pipeline, references)
        self._clock, self._objects, database = ManualClock(_ARRIVED_MS), MemoryObjects(), MemoryDynamoDB()
        for table, keys in {"ledger": ("pipeline", "item"), "views": ("pk", "sk")}.items():
            schema = [
                {"AttributeName": name, "KeyType": kind} for name, kind in zip(keys, ("HASH", "RANGE"), strict=True)
            ]
            database.create_table(TableName=table, KeySchema=schema)
        self._ledger = Ledger(database, "ledger", pipeline.name)
        versions = {name: {"initial": {"version": 1, "uri": name}} for name in self._references}
        if versions:
            self._ledger.put_document(DOCUMENT, versions, 0)
        self._views, self._letters = ViewStore(database, "views", clock=self._clock), DeadLetters(self._objects)
        self._streams = _Streams(pipeline)
        ports = Ports(
            self._ledger,
            self._objects,
            self._views,
            self._letters,
            lambda name, _: self._references[name],
            streams=self._streams,
        )
        context = WorkerContext(pipeline, ports, _settings(), self._clock, "test")
        self._worker = ShardWorker.claim(context, _SHARD)
        self._taken, self._lake = 0, list[pa.Table]()

    def take(self, data: bytes, arrived_ms: int) -> None:
        """Take in one more record, and commit."""
        self._taken += 1
        record = StreamRecord(_SHARD, f"4966{self._taken:052d}", arrived_ms, "test", data)
        with suppress(Rewound):  # the engine failed on it: it is read again, and buried
            self._worker.process([record])
        self._worker.process([record])
        self._worker.commit()
        (entry,) = self._ledger.shards()
        for file in entry.pending:
            body = io.BytesIO(self._objects.get(file.uri.removeprefix("s3://memory/")))
            self._lake.append(pq.read_table(body, arrow_extensions_enabled=False))
        if entry.pending:
            self._ledger.take(entry, range(len(entry.pending)))

    def result(self) -> PipelineRun:
        """Return all that has been made."""
        tables = self._lake or [self._pipeline.lake_schema.empty_table()]
        return PipelineRun(
            {view.name: list(self._views.rows(view.spec)) for view in self._pipeline.views},
            pa.concat_tables(tables, promote_options="permissive"),
            list(self._letters.list(self._pipeline.name)),
            self._streams.tables(),
            {name: number for name, number in self._worker.engine.state.counts.items() if number},
        )


class _Streams:
    """Keep what goes on to other streams."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._contracts = {step.stream: step.contract for step in pipeline.streams}
        self._tables = {name: [one.arrow_schema.empty_table()] for name, one in self._contracts.items()}

    def send(self, stream: str, batches: Sequence[StreamBatch]) -> None:
        for batch in batches:
            found = decode_record(batch.data, self._contracts[stream])
            assert isinstance(found, Decoded)
            self._tables[stream].append(plain_strings(found.table))

    def announce(self, stream: str, receipt: Mapping[str, object]) -> None:
        """A receipt is for an audit, and there is none here."""

    def tables(self) -> dict[str, pa.Table]:
        return {name: pa.concat_tables(tables) for name, tables in self._tables.items()}


def _settings() -> Settings:
    """Return the defaults, whatever the environment says."""
    return Settings.model_construct(
        kcl=KclSettings.model_construct(),
        gateway=GatewaySettings.model_construct(),
        serve=ServeSettings.model_construct(),
    )


def _read_references(pipeline: Pipeline, given: Mapping[str, Any]) -> dict[str, ReferenceTable]:
    known = {one.name: one for one in pipeline.references}
    for name in given:
        if name not in known:
            raise UsageError(f"pipeline {pipeline.name} has no reference table {name!r}; it has {list(known)}")
    return {
        name: ReferenceTable.of(one, _table(given[name])) if name in given else read_table(one, one.source, _no_client)
        for name, one in known.items()
    }


def _no_client(service: str) -> Any:
    raise UsageError(f"a reference table is read from {service}: give its rows by references={{name: rows}}")


def _records(contract: Contract, events: Any) -> Iterator[tuple[bytes, int]]:
    """Yield records with the time of their arrival, ms: batches of headwater's own, or what others write as it is."""
    if isinstance(events, str | bytes | Mapping):
        raise UsageError(f"events are a table, a DataFrame or a list of dicts or of bytes, not {shown(events)}")
    if not hasattr(events, "columns"):
        events = list(events)
    if isinstance(events, list) and events and all(isinstance(one, bytes) for one in events):
        yield from ((data, _ARRIVED_MS) for data in events)
        return
    table = _valid_rows(contract, events) if isinstance(events, list) else _valid_table(contract, _table(events))
    origin = None if contract.id else "test"
    for at in range(0, table.num_rows, _BATCH):
        piece = table.slice(at, _BATCH)
        body = encode_batch(piece, contract, origin=origin, first_seq=None if contract.id else at)
        yield body, int(times(piece, contract.time).max())


def _valid_rows(contract: Contract, events: Sequence[Mapping[str, Any]]) -> pa.Table:
    rows = []
    for at, event in enumerate(events):
        try:
            rows.append(validate_row(contract, event))
        except InvalidEvent as error:
            raise InvalidEvent(f"event {at}: {error}") from None
    return pa.Table.from_pylist(rows, schema=contract.arrow_schema)


def _valid_table(contract: Contract, table: pa.Table) -> pa.Table:
    found = conform(contract, table)
    if found.invalid:
        raise InvalidEvent(f"row {found.invalid[0].index}: {found.invalid[0].reason}")
    return found.table


def _table(rows: Any) -> pa.Table:
    if isinstance(rows, pa.Table):
        return rows
    if hasattr(rows, "columns"):
        return pa.Table.from_pandas(rows, preserve_index=False)
    return pa.Table.from_pylist(list(rows))
