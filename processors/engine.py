"""The engine: records of one shard in, effects out. Pure: no I/O, no clock, no randomness.

`decode → drop copies → enrich → aggregate → lake rows`. What it decides is a function of the records of the shard up
to there, never of how they were cut into calls.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from headwater import sequence
from headwater.codec import Control, OtherContract, event_json
from headwater.lineage import sorted_rows
from headwater.records import StreamRecord
from processors.operators.decode import Batch, Ints, Part, Poison, combine, decode
from processors.operators.dedupe import Identities, first_copies, identify
from processors.operators.enrich import ReferenceTable, apply_map, apply_where, enrich
from processors.pipeline import Enrich, Map, Pipeline, Step, Where
from processors.state import ShardState
from sinks.deadletter import DeadLetter

__all__ = ["Effects", "Engine", "times"]

Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]
LoadReference = Callable[[str, str], ReferenceTable]
"""A version of a reference table, by name and URI."""


@dataclass
class Effects:
    """What a run of records came to, beside the new state."""

    lake: list[pa.Table] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    keys: list[tuple[Ints, pa.Array]] = field(default_factory=list)
    """Of each event read, copies among them: the index of its record in the call, and its key."""
    traces: list[str] = field(default_factory=list)
    """W3C traceparents that batches came with."""
    refused: int = 0
    """Records that this shard refused producers by its limits, as their receipts say."""


@dataclass(frozen=True)
class _Rows:
    """Events on their way through the steps, all columns in step."""

    table: pa.Table
    identities: Identities
    record: Ints
    row: Ints
    arrived: Ints
    max_ts_before: Ints

    def at(self, mask: Mask) -> "_Rows":
        if mask.all():
            return self
        keep = pa.array(mask)
        i = self.identities
        return _Rows(
            self.table.filter(keep),
            Identities(i.origin.filter(keep), i.seq[mask], i.codes[mask]),
            self.record[mask],
            self.row[mask],
            self.arrived[mask],
            self.max_ts_before[mask],
        )


class Engine:
    """Drives one shard's state."""

    def __init__(self, pipeline: Pipeline, shard_id: str, state: ShardState, load_reference: LoadReference) -> None:
        self.pipeline = pipeline
        self.shard_id = shard_id
        self.state = state
        self._load_reference = load_reference

    def process(self, records: Sequence[StreamRecord]) -> Effects:
        """Take in the next records of the shard, in order."""
        effects = Effects()
        run: list[Part] = []
        items = list(records)
        self.state.count("records", len(items))
        for found in decode(items, self.pipeline.contract):
            if isinstance(found, Part):
                if run and self._must_cut(run[0], run[-1], found, items):
                    self._events(run, items, effects)
                    run = []
                run.append(found)
                if found.decoded.traceparent:
                    effects.traces.append(found.decoded.traceparent)
            elif isinstance(found, Poison):
                effects.letters.append(self._letter(items[found.at], None, found.reason, items[found.at].data))
                self.state.count("poison_records")
            elif isinstance(found[1], OtherContract):
                self.state.count("other_contract", found[1].events)
            else:
                self._events(run, items, effects)
                run = []
                self._control(found[1], items[found[0]], effects)
        self._events(run, items, effects)
        if items:
            self.state.max_arrived = max(self.state.max_arrived, max(record.arrived_ms for record in items))
        return effects

    def _must_cut(self, first: Part, last: Part, part: Part, records: list[StreamRecord]) -> bool:
        """Whether a run ends here: sets of origins need runs shorter than their horizon, and a record with events
        that break the contract goes alone, so that of a good and a bad event of one identity the first counts."""
        end = int(part.record[-1]) if len(part.record) else part.at
        span = records[end].arrived_ms - records[first.at].arrived_ms
        return span > self.state.seen.horizon_ms or bool(part.decoded.invalid) or bool(last.decoded.invalid)

    def _control(self, control: Control, record: StreamRecord, effects: Effects) -> None:
        """Take a control record's word, or bury it whole when it makes no sense."""
        body: dict[str, Any] = control.body
        try:
            if control.kind == "reference":
                self._new_reference(str(body["name"]), int(body["version"]), str(body["uri"]))
            elif control.kind == "receipt":
                spans = {
                    str(origin): [(int(start), int(stop)) for start, stop in intervals]
                    for origin, intervals in body["intervals"].items()
                }
                effects.refused += max(0, int(body.get("refused", {}).get(self.shard_id, 0)))
                if body["contract"] == self.pipeline.contract.name:
                    for origin, intervals in spans.items():
                        self.state.accepted.add_intervals(origin, intervals, record.arrived_ms)
            else:
                self.state.count("unknown_controls")
            self.state.count("controls")
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
            reason = f"a control record of kind {control.kind!r} that makes no sense: {type(error).__name__}: {error}"
            effects.letters.append(self._letter(record, None, reason, record.data))
            self.state.count("poison_records")

    def _new_reference(self, name: str, version: int, uri: str) -> None:
        old = self.state.references.get(name)
        if old is not None and int(str(old["version"])) < version:
            self.state.references[name] = {"version": version, "uri": uri}

    def _events(self, parts: list[Part], records: list[StreamRecord], effects: Effects) -> None:
        if not parts:
            return
        state, contract = self.state, self.pipeline.contract
        batch = combine(parts, contract.arrow_schema)
        arrived_of = np.array([record.arrived_ms for record in records], np.int64)
        identities = identify(batch, records, contract, state.seen)
        dead = self._dead_rows(identities)
        several = len(parts) > 1 or (len(batch.record) > 0 and batch.record[0] != batch.record[-1])
        if several and (dead or self._may_die_and_return(identities)):
            # whether a copy counts depends on what became of those in the records before it
            for part in parts:
                for one in part.by_record():
                    self._events([one], records, effects)
            return
        effects.keys.append((batch.record, batch.table.column(contract.key)))
        arrived = arrived_of[batch.record]
        before = self._advance(batch, arrived, arrived_of)
        rows = _Rows(batch.table, identities, batch.record, batch.row, arrived, before)
        new = first_copies(identities, arrived, state.seen)
        new[list(dead.values())] = True
        state.count("events", len(new))
        state.count("duplicates", len(new) - int(new.sum()))
        state.count("foreign", int(np.count_nonzero(identities.codes < 0)))
        rows = self._steps(rows.at(new), records, effects)
        self._views(rows, records)
        effects.lake.append(self._lake(rows))
        state.count("lake", rows.table.num_rows)
        self._revive(rows, dead)
        self._invalid(parts, records, effects)

    def _may_die_and_return(self, identities: Identities) -> bool:
        """Whether events with ids of their own are there twice, and a user's function may fail on the first copy."""
        if self.pipeline.contract.id is None or all(isinstance(step, Enrich) for step in self.pipeline.steps):
            return False
        if not len(identities.seq):
            return False
        _, codes, seqs = sorted_rows(identities.codes, identities.seq)
        return bool(((codes[1:] == codes[:-1]) & (seqs[1:] == seqs[:-1])).any())

    def _dead_rows(self, identities: Identities) -> dict[tuple[str, int], int]:
        """The first row of each event that the dead letters have under this id of its own."""
        state = self.state
        if self.pipeline.contract.id is None or not len(state.dead):
            return {}
        origins = identities.origin.dictionary.to_pylist()
        known = set(state.dead.origins())
        local = np.array([at for at, origin in enumerate(origins) if origin in known], np.int64)
        found: dict[tuple[str, int], int] = {}
        codes = identities.origin.indices.to_numpy()
        for row in np.flatnonzero(np.isin(codes, local)).tolist():
            one = (origins[codes[row]], int(identities.seq[row]))
            if one not in found and state.is_dead(*one):
                found[one] = row
        return found

    def _revive(self, rows: _Rows, dead: dict[tuple[str, int], int]) -> None:
        """Of the dead events that were tried again, those that reached the lake."""
        if not dead:
            return
        came = zip(rows.identities.origin.to_pylist(), rows.identities.seq.tolist(), rows.arrived.tolist(), strict=True)
        for origin, seq, arrived in came:
            if (origin, seq) in dead:
                self.state.revived.add_intervals(origin, [(seq, seq + 1)], arrived)
                self.state.count("revived")

    def _advance(self, batch: Batch, arrived: Ints, arrived_of: Ints) -> Ints:
        """Move the watermark record by record; per event the highest event time in the records before its own."""
        ts = times(batch.table, self.pipeline.contract.time)
        capped = np.minimum(ts, arrived + self.pipeline.max_future_ms)
        highest = np.full(len(arrived_of) + 1, self.state.max_ts, np.int64)
        if len(ts):
            starts = np.flatnonzero(np.diff(batch.record, prepend=-1))
            highest[batch.record[starts] + 1] = np.maximum.reduceat(capped, starts)
        highest = np.maximum.accumulate(highest)
        self.state.max_ts = int(highest[-1])
        return highest[batch.record]

    def _steps(self, rows: _Rows, records: list[StreamRecord], effects: Effects) -> _Rows:
        for step in self.pipeline.steps:
            if not rows.table.num_rows and not isinstance(step, Enrich):
                rows = _empty(rows, step)
            elif isinstance(step, Enrich):
                version = self.state.references[step.reference.name]
                reference = self._load_reference(step.reference.name, str(version["uri"]))
                rows = _with(rows, enrich(rows.table, step, reference))
            else:
                rows = self._guarded(rows, records, effects, step)
        return rows

    def _filter(self, rows: _Rows, mask: Mask) -> _Rows:
        self._exclude(rows.at(~mask))
        self.state.count("filtered", int((~mask).sum()))
        return rows.at(mask)

    def _guarded(self, rows: _Rows, records: list[StreamRecord], effects: Effects, step: Map | Where) -> _Rows:
        """Run a user's function; where it fails, event by event, and only those it fails on go to the dead letters."""
        try:
            if isinstance(step, Map):
                return _with(rows, apply_map(rows.table, step))
            return self._filter(rows, apply_where(rows.table, step))
        except Exception as error:  # a user's function may raise anything
            if rows.table.num_rows == 1:
                self._bury(rows, records, f"{type(error).__name__}: {error}", effects)
                return _empty(rows.at(np.zeros(1, np.bool_)), step)
        halves = [slice(0, rows.table.num_rows // 2), slice(rows.table.num_rows // 2, rows.table.num_rows)]
        done = [self._guarded(_slice(rows, half), records, effects, step) for half in halves]
        return _concat([part for part in done if part.table.num_rows] or done[:1])

    def _bury(self, rows: _Rows, records: list[StreamRecord], reason: str, effects: Effects) -> None:
        contract_columns = rows.table.select(self.pipeline.contract.arrow_schema.names)
        for at, body in enumerate(event_json(contract_columns)):
            record = records[int(rows.record[at])]
            effects.letters.append(self._letter(record, int(rows.row[at]), reason, body))
        who = rows.identities
        for origin, seq, arrived in zip(who.origin.to_pylist(), who.seq.tolist(), rows.arrived.tolist(), strict=True):
            self._mark_dead(origin, seq, arrived)
        self._exclude(rows)
        self.state.count("dead_events", rows.table.num_rows)

    def _exclude(self, rows: _Rows) -> None:
        codes = rows.identities.codes
        named = codes >= 0
        self.state.count("foreign_excluded", len(codes) - int(named.sum()))
        if not named.any():
            return
        state = self.state
        distinct, inverse = np.unique(codes[named], return_inverse=True)
        other = state.excluded.codes([state.seen.name(int(code)) for code in distinct])[inverse]
        state.excluded.add(other, rows.identities.seq[named], rows.arrived[named])

    def _mark_dead(self, origin: str, seq: int, arrived_ms: int) -> None:
        if self.pipeline.contract.id is not None:
            self.state.dead.add_intervals(origin, [(seq, seq + 1)], arrived_ms)

    def _invalid(self, parts: list[Part], records: list[StreamRecord], effects: Effects) -> None:
        """Events that break the contract: known by their identity where they have one, and to the dead letters once."""
        for part in parts:
            for row in part.decoded.invalid:
                record = records[part.at]
                identity = self._identity_of(part, row.index, row.event)
                self.state.count("events")
                if identity is not None:
                    code, seq = self.state.seen.codes([identity[0]]), np.array([identity[1]], np.int64)
                    arrived = np.array([record.arrived_ms], np.int64)
                    if not self.state.seen.add(code, seq, arrived)[0]:
                        self.state.count("duplicates")
                        if self.state.is_dead(*identity):  # sent again, and still not right: its letter was moved
                            effects.letters.append(self._letter(record, row.index, row.reason, row.event))
                        continue
                    self.state.excluded.add(self.state.excluded.codes([identity[0]]), seq, arrived)
                    self._mark_dead(*identity, record.arrived_ms)
                else:
                    self.state.count("foreign")
                    self.state.count("foreign_excluded")
                self.state.count("dead_events")
                effects.letters.append(self._letter(record, row.index, row.reason, row.event))

    def _identity_of(self, part: Part, index: int, event: bytes) -> tuple[str, int] | None:
        own = self.pipeline.contract.id
        if own is None:
            return (part.decoded.origin, part.decoded.first_seq + index) if part.decoded.origin else None
        try:
            row = json.loads(event)
            origin, seq = row[own.origin], row[own.seq] if own.seq else 0
        except (ValueError, KeyError, TypeError):
            return None
        return (str(origin), seq) if isinstance(seq, int) and origin is not None else None

    def _views(self, rows: _Rows, records: list[StreamRecord]) -> None:
        if not self.state.views or not rows.table.num_rows:
            return
        versions = np.array([sequence.pad(record.sequence_number) for record in records], "S56")
        ts = times(rows.table, self.pipeline.contract.time)
        for view in self.state.views.values():
            late = view.fold(rows.table, ts, rows.max_ts_before, versions, rows.record)
            self.state.count(f"late.{view.view.name}", late)

    def _lake(self, rows: _Rows) -> pa.Table:
        identity = {
            "_origin": rows.identities.origin,
            "_seq": pa.array(rows.identities.seq),
            "_arrived_at": pa.array(rows.arrived).cast(pa.timestamp("ms", "UTC")),
        }
        table = rows.table.select(self.pipeline.schema.names)
        for name, column in identity.items():
            table = table.append_column(name, column)
        return table

    def _letter(self, record: StreamRecord, index: int | None, reason: str, payload: bytes) -> DeadLetter:
        return DeadLetter(
            shard_id=record.shard_id,
            sequence_number=record.sequence_number,
            index=index,
            reason=reason,
            origin=None,
            seq=None,
            payload=payload,
            contract=self.pipeline.contract.name,
            arrived_ms=record.arrived_ms,
        )


def _empty(rows: _Rows, step: Step) -> _Rows:
    """No rows, with the columns that the step adds."""
    table = rows.table
    for added in step.adds():
        table = table.append_column(added, pa.array([], added.type))
    return _with(rows, table)


def _with(rows: _Rows, table: pa.Table) -> _Rows:
    return _Rows(table, rows.identities, rows.record, rows.row, rows.arrived, rows.max_ts_before)


def _slice(rows: _Rows, part: slice) -> _Rows:
    mask = np.zeros(rows.table.num_rows, np.bool_)
    mask[part] = True
    return rows.at(mask)


def _concat(parts: Sequence[_Rows]) -> _Rows:
    if len(parts) == 1:
        return parts[0]
    origin = pa.chunked_array([part.identities.origin for part in parts]).unify_dictionaries().combine_chunks()
    return _Rows(
        pa.concat_tables([part.table for part in parts], promote_options="permissive")
        .unify_dictionaries()
        .combine_chunks(),
        Identities(
            origin.chunk(0) if isinstance(origin, pa.ChunkedArray) else origin,
            np.concatenate([part.identities.seq for part in parts]),
            np.concatenate([part.identities.codes for part in parts]),
        ),
        np.concatenate([part.record for part in parts]),
        np.concatenate([part.row for part in parts]),
        np.concatenate([part.arrived for part in parts]),
        np.concatenate([part.max_ts_before for part in parts]),
    )


def times(table: pa.Table, column: str) -> Ints:
    times: Ints = table.column(column).cast(pa.int64()).to_numpy()
    return times
