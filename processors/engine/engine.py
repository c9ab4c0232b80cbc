"""Turn the records of one shard into effects: `decode → drop copies → enrich → aggregate → lake rows`. Pure.

What the engine decides is a function of the shard's records up to there and of the state it began with, never of how
records were cut into calls: no I/O, no clock and no randomness may enter. It is total: whatever a record holds, it
ends in rows, in counts or in dead letters, and what it makes is bounded (`bounds`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from headwater.arrays import Ints, Mask, times
from headwater.codec import Control, OtherContract, event_bodies
from headwater.errors import InvalidRecord, UsageError
from headwater.lineage.origins import sorted_rows
from headwater.processors.definition.parts import Enrich, Map, Where
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.bounds import MAX_LETTERS
from headwater.processors.engine.controls import read_receipt, read_reference
from headwater.processors.engine.invalid import bury_invalid
from headwater.processors.engine.state import ShardState
from headwater.processors.operators.conflicts import find_conflicts
from headwater.processors.operators.decode import Batch, Found, Part, Poison, combine, decode
from headwater.processors.operators.dedupe import Identities, first_copies, identify
from headwater.processors.operators.enrich import ReferenceTable, apply_map, apply_where, enrich
from headwater.processors.operators.misplaced import find_misplaced
from headwater.processors.operators.outputs import Outputs, chosen, outputs
from headwater.processors.operators.rows import EventRows, concat_rows
from headwater.sinks.deadletter import DeadLetter
from headwater.stream import sequence
from headwater.stream.record import StreamRecord

__all__ = ["CheckControl", "Effects", "Engine"]

LoadReference = Callable[[str, str], ReferenceTable]
"""Loads a version of a reference table by name and URI; UsageError when there is none there that can be used."""

CheckControl = Callable[[Control], str | None]
"""Says why a control record is forged, None where it is true; the same whenever it is asked."""


@dataclass
class Effects:
    """Hold what records came to, beside the new state."""

    lake: list[pa.Table] = field(default_factory=list)
    streams: list[Outputs] = field(default_factory=list)
    """Events that go on to other streams, in the order of the records."""
    letters: list[DeadLetter] = field(default_factory=list)
    keys: list[tuple[Ints, pa.Array]] = field(default_factory=list)
    """For each event that was read, copies included: the index of its record in the call, and its key."""
    traces: list[str] = field(default_factory=list)
    """The W3C traceparents that batches came with."""
    refused: int = 0
    """The number of records that this shard refused producers by its limits, as their receipts say."""
    forged: int = 0
    """The number of control records that changed nothing, since others than the pipeline's own wrote them."""
    taken: int = 0
    """The number of records taken in. The others are to be given again after a commit: there was no room for more."""


class Engine:
    """Drive one shard's state. Without `check_control` all control records are believed."""

    def __init__(
        self,
        pipeline: Pipeline,
        shard_id: str,
        state: ShardState,
        load_reference: LoadReference,
        hash_range: tuple[int, int] | None = None,
        check_control: CheckControl | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.shard_id = shard_id
        self.state = state
        self._load_reference = load_reference
        self._hash_range = hash_range
        self._check_control = check_control

    def process(self, records: Sequence[StreamRecord]) -> Effects:
        """Take in the next records of the shard, in order, as many as a commit has room for: see `Effects.taken`."""
        effects = Effects()
        run: list[Part] = []
        items, decoded = self._fitting(list(records))
        effects.taken = len(items)
        self.state.count("records", len(items))
        misplaced = find_misplaced(items, self._hash_range, self.state, self.pipeline.contract.name)
        effects.letters += misplaced.letters
        for found in decoded:
            if isinstance(found, Part):
                found = misplaced.without(found)
                if not len(found.record) and self._lack_identity(found):
                    self._invalid([found], items, effects)  # in whatever order: they compete with no other event
                    continue
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

    def bury(self, record: StreamRecord, reason: str) -> Effects:
        """Pass over a record unread: it goes to the dead letters whole."""
        self.state.count("records")
        self.state.count("poison_records")
        self.state.max_arrived = max(self.state.max_arrived, record.arrived_ms)
        return Effects(letters=[self._letter(record, None, reason, record.data)], taken=1)

    def _fitting(self, items: list[StreamRecord]) -> tuple[list[StreamRecord], list[Found]]:
        """Return the first of the records, decoded: as many as have no more events to bury than a commit may have."""
        letters = 0
        decoded = decode(items, self.pipeline.contract, self.pipeline.decoder)
        for found in decoded:
            if isinstance(found, Part):
                letters += len(found.decoded.invalid)
                if letters > MAX_LETTERS and found.at:
                    return items[: found.at], decode(items[: found.at], self.pipeline.contract, self.pipeline.decoder)
        return items, decoded

    def _must_cut(self, first: Part, last: Part, part: Part, records: list[StreamRecord]) -> bool:
        """Return True when a run ends here.

        Sets of origins need runs shorter than their horizon, and a record with events that break the contract goes
        alone, so that of a good and a bad event of one identity the first counts.
        """
        end = int(part.record[-1]) if len(part.record) else part.at
        span = records[end].arrived_ms - records[first.at].arrived_ms
        return span > self.state.seen.horizon_ms or bool(part.decoded.invalid) or bool(last.decoded.invalid)

    def _lack_identity(self, part: Part) -> bool:
        return self.pipeline.contract.id is None and part.decoded.origin is None

    def _control(self, control: Control, record: StreamRecord, effects: Effects) -> None:
        """Do what a control record says, or bury it whole when it is forged or makes no sense."""
        try:
            forged = self._check_control(control) if self._check_control is not None else None
            if forged is not None:
                self.state.count("forged_controls")
                effects.forged += 1
                raise InvalidRecord(f"is forged: {forged}")
            if control.kind == "reference":
                self._new_reference(control.body)
            elif control.kind == "receipt":
                receipt = read_receipt(control.body)
                effects.refused += receipt.refused.get(self.shard_id, 0)
                if receipt.contract == self.pipeline.contract.name:
                    self.state.forget_receipts(receipt.intervals, record.arrived_ms)
                    receipt.add_to(self.state.accepted, record.arrived_ms)
                    # an origin whose events go elsewhere now: what was read of it here is still accepted
                    self.state.seen.touch([*receipt.intervals], record.arrived_ms)
            else:
                self.state.count("unknown_controls")
            self.state.count("controls")
        except (ValueError, UsageError, InvalidRecord) as error:
            why = str(error) if isinstance(error, InvalidRecord) else f"makes no sense: {error}"
            reason = f"a control record of kind {control.kind[:40]!r} that {why}"
            effects.letters.append(self._letter(record, None, reason, record.data))
            self.state.count("poison_records")

    def _new_reference(self, body: Mapping[str, object]) -> None:
        new = read_reference(body)
        if new.owner not in (None, self.pipeline.name):
            self.state.count("other_pipeline")  # of a table of the same name, or of none of ours
            return
        old = self.state.references.get(new.name)
        if old is not None and new.replaces(int(str(old["version"])), str(old["uri"])):
            # loaded before it is taken: a version that is not there would stop the shard at the next event
            self._load_reference(new.name, new.uri)
            self.state.references[new.name] = {"version": new.version, "uri": new.uri}

    def _events(self, parts: list[Part], records: list[StreamRecord], effects: Effects) -> None:
        if not any(len(part.record) for part in parts):
            self._invalid(parts, records, effects)
            return
        state, contract = self.state, self.pipeline.contract
        batch = combine(parts, contract.arrow_schema)
        arrived_of = np.array([record.arrived_ms for record in records], np.int64)
        identities = identify(batch, records, contract, state.seen)
        dead = self._dead_rows(identities)
        several = len(parts) > 1 or batch.record[0] != batch.record[-1]
        if several and (dead or self._may_die_and_return(identities)):
            # whether a copy counts depends on what became of those in the records before it
            for part in parts:
                for one in part.by_record():
                    self._events([one], records, effects)
            return
        effects.keys.append((batch.record, batch.table.column(contract.key)))
        arrived = arrived_of[batch.record]
        before = self._advance(batch, arrived, arrived_of)
        rows = EventRows(batch.table, identities, batch.record, batch.row, arrived, before)
        named = identities.codes >= 0
        state.forget_expired(identities.codes[named], arrived[named])
        new = first_copies(identities, arrived, state.seen)
        find_conflicts(rows, new, records, self.pipeline.contract, state, effects.letters)
        new[list(dead.values())] = True
        state.count("events", len(new))
        state.count("duplicates", len(new) - int(new.sum()))
        state.count("foreign", int(np.count_nonzero(identities.codes < 0)))
        rows = self._steps(rows.at(new), records, effects)
        self._views(rows, records)
        self._streams(rows, records, effects)
        effects.lake.append(self._lake(rows))
        state.count("lake", rows.table.num_rows)
        self._revive(rows, dead)
        self._invalid(parts, records, effects)

    def _may_die_and_return(self, identities: Identities) -> bool:
        """Return True when an own id is there twice and a user's function may fail on the first copy."""
        if self.pipeline.contract.id is None or all(isinstance(step, Enrich) for step in self.pipeline.steps):
            return False
        _, codes, seqs = sorted_rows(identities.codes, identities.seq)
        return bool(((codes[1:] == codes[:-1]) & (seqs[1:] == seqs[:-1])).any())

    def _dead_rows(self, identities: Identities) -> dict[tuple[str, int], int]:
        """Return the ids of events in the batch that are in the dead letters, each with the first row that has it."""
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

    def _revive(self, rows: EventRows, dead: dict[tuple[str, int], int]) -> None:
        """Record the dead-lettered events that were sent again and have reached the lake."""
        if not dead:
            return
        came = zip(rows.identities.origin.to_pylist(), rows.identities.seq.tolist(), rows.arrived.tolist(), strict=True)
        for origin, seq, arrived in came:
            if (origin, seq) in dead:
                self.state.revived.add_intervals(origin, [(seq, seq + 1)], arrived)
                self.state.count("revived")

    def _advance(self, batch: Batch, arrived: Ints, arrived_of: Ints) -> Ints:
        """Move the watermark record by record; return for each event the highest event time before its record."""
        ts = times(batch.table, self.pipeline.contract.time)
        # one clock that runs ahead must not make all other events late
        capped = np.minimum(ts, arrived + self.pipeline.max_future_ms)
        highest = np.full(len(arrived_of) + 1, self.state.max_ts, np.int64)
        if len(ts):
            starts = np.flatnonzero(np.diff(batch.record, prepend=-1))
            highest[batch.record[starts] + 1] = np.maximum.reduceat(capped, starts)
        highest = np.maximum.accumulate(highest)
        self.state.max_ts = int(highest[-1])
        return highest[batch.record]

    def _steps(self, rows: EventRows, records: list[StreamRecord], effects: Effects) -> EventRows:
        for step in self.pipeline.steps:
            if not rows.table.num_rows and not isinstance(step, Enrich):
                rows = rows.empty_after(step)
            elif isinstance(step, Enrich):
                version = self.state.references[step.reference.name]
                reference = self._load_reference(step.reference.name, str(version["uri"]))
                rows = rows.with_table(enrich(rows.table, step, reference))
            else:
                rows = self._guarded(rows, records, effects, step)
        return rows

    def _filter(self, rows: EventRows, mask: Mask) -> EventRows:
        """Keep the events where the mask is true; the others are accounted for as excluded."""
        self._exclude(rows.at(~mask))
        self.state.count("filtered", int((~mask).sum()))
        return rows.at(mask)

    def _guarded(self, rows: EventRows, records: list[StreamRecord], effects: Effects, step: Map | Where) -> EventRows:
        """Run a user's function; where it fails, halve the events, so that only those it fails on are buried."""
        try:
            if isinstance(step, Map):
                return rows.with_table(apply_map(rows.table, step))
            return self._filter(rows, apply_where(rows.table, step))
        except Exception as error:  # a user's function may raise anything
            if rows.table.num_rows == 1:
                self._bury(rows, records, f"{type(error).__name__}: {error}", effects)
                return rows.empty_after(step)
        done = [self._guarded(half, records, effects, step) for half in rows.halves()]
        return concat_rows([part for part in done if part.table.num_rows] or done[:1])

    def _bury(self, rows: EventRows, records: list[StreamRecord], reason: str, effects: Effects) -> None:
        who = rows.identities
        came = zip(who.origin.to_pylist(), who.seq.tolist(), rows.arrived.tolist(), strict=True)
        for at, (body, (origin, seq, arrived)) in enumerate(zip(self._bodies(rows.table), came, strict=True)):
            record = records[int(rows.record[at])]
            effects.letters.append(self._letter(record, int(rows.row[at]), reason, body, (origin, seq)))
            self._mark_dead(origin, seq, arrived)
        self._exclude(rows)
        self.state.count("dead_events", rows.table.num_rows)

    def _bodies(self, table: pa.Table) -> list[bytes]:
        """Return each event as a record that `dlq redrive` can put."""
        contract = self.pipeline.contract
        own = table.select(contract.arrow_schema.names)
        return event_bodies(own, contract, foreign=self.pipeline.decoder is not None)

    def _exclude(self, rows: EventRows) -> None:
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
        effects.letters += bury_invalid(parts, records, self.pipeline.contract, self.state)

    def _views(self, rows: EventRows, records: list[StreamRecord]) -> None:
        if not self.state.views or not rows.table.num_rows:
            return
        versions = np.array([sequence.pad(record.sequence_number) for record in records], "S56")
        ts = times(rows.table, self.pipeline.contract.time)
        for view in self.state.views.values():
            late = view.fold(rows.table, ts, rows.max_ts_before, versions, rows.record)
            self.state.count(f"late.{view.view.name}", late)

    def _streams(self, rows: EventRows, records: list[StreamRecord], effects: Effects) -> None:
        for step in self.pipeline.streams if rows.table.num_rows else ():
            mask, failed = chosen(step.where, rows.table)
            going = rows.at(mask)
            made, refused = outputs(step, going.table, going.record)
            effects.streams.append(made)
            self.state.count(f"to.{step.stream}", made.table.num_rows)
            self.state.count(f"not_to.{step.stream}", len(failed) + len(refused))
            for some, faults in ((rows, failed), (going, refused)):
                for at, why in faults.items():
                    effects.letters.append(self._unsent(some, at, records, f"to stream {step.stream}: {why}"))

    def _unsent(self, rows: EventRows, at: int, records: list[StreamRecord], reason: str) -> DeadLetter:
        (body,) = self._bodies(rows.table.slice(at, 1))
        identity = rows.identities.origin[at].as_py(), int(rows.identities.seq[at])
        return self._letter(records[int(rows.record[at])], int(rows.row[at]), reason, body, identity)

    def _lake(self, rows: EventRows) -> pa.Table:
        identity = {
            "_origin": rows.identities.origin,
            "_seq": pa.array(rows.identities.seq),
            "_arrived_at": pa.array(rows.arrived).cast(pa.timestamp("ms", "UTC")),
        }
        table = rows.table.select(self.pipeline.schema.names)
        for name, column in identity.items():
            table = table.append_column(name, column)
        return table

    def _letter(
        self,
        record: StreamRecord,
        index: int | None,
        reason: str,
        payload: bytes,
        identity: tuple[str | None, int | None] = (None, None),
    ) -> DeadLetter:
        return DeadLetter(
            shard_id=record.shard_id,
            sequence_number=record.sequence_number,
            index=index,
            reason=reason,
            origin=identity[0],
            seq=identity[1],
            payload=payload,
            contract=self.pipeline.contract.name,
            arrived_ms=record.arrived_ms,
        )
