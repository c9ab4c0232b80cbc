"""Name the mutants that no test can kill, each with the reason: they change nothing that anybody can see."""

__all__ = ["EXPLAINED"]

_TRIES = "how often it is tried again is a choice: one time more is as right"
_TOKEN = "a token of nine random bytes tells writers apart as one of eight does"
_COLLECTED = "the connection closes as soon as nobody has it, and nobody has one of an outbox that does not open"
_SAME_GAPS = "the part that the loop then takes is the one that is added after it, or empty"
_CANDIDATE = "one row more is encoded to see whether it is too large, and it is not"
_GROWN = "the columns grow to their length, and no other, as soon as there is an origin"
_EMPTY = "the last number is below the first as well, so there is none"
_LOOKED_UP = "these numbers are then looked up, or found to go on, by the other way: the set is the same"
_IN_NONE = "the runs are in no interval, so none begins or ends where one does"
_SHORTCUT = "it only says whether the sort can be left out, or that is found out a step later"
_SET_BEFORE = "it is set before it is looked at"

EXPLAINED: dict[str, str] = {
    "headwater.ledger Ledger.claim: 8 -> 9": _TRIES,
    "headwater.ledger Ledger.claim: 8 -> 9 (2)": _TOKEN,
    "headwater.ledger Ledger.commit: 3 -> 4": _TRIES,
    "headwater.ledger Ledger.put_document: 8 -> 9": _TOKEN,
    "headwater.ledger ShardEntry: 0 -> 1 (2)": "an entry is never made without the time of its write",
    "headwater.lineage.intervals IntervalSet.gaps: start < stop -> start <= stop": _SAME_GAPS,
    "headwater.lineage.intervals IntervalSet.gaps: self._starts[at] < stop -> self._starts[at] <= stop": _SAME_GAPS,
    "headwater.processors.operators.conflicts _letter: len(lines) <= _MOST_BYTES -> len(lines) < _MOST_BYTES": (
        "of a letter of just 1 MiB the whole record is kept, and the conflicting events are in it"
    ),
    "headwater.lineage.origins OriginSets.__init__: 0 -> 1 (2)": _GROWN,
    "headwater.lineage.origins OriginSets.__init__: 0 -> 1 (3)": _GROWN,
    "headwater.lineage.origins OriginSets.codes: size > before -> size >= before": _GROWN,
    "headwater.lineage.origins OriginSets.codes: 1 -> 2": _EMPTY,
    "headwater.lineage.origins OriginSets.forget: 0 -> 1": _EMPTY,
    "headwater.lineage.origins OriginSets.forget: 1 -> 2": _EMPTY,
    "headwater.lineage.origins OriginSets._forget_expired: 0 -> 1": _EMPTY,
    "headwater.lineage.origins OriginSets._forget_expired: 1 -> 2": _EMPTY,
    "headwater.lineage.origins OriginSets._add_sorted: leads & known -> leads | known": _LOOKED_UP,
    "headwater.lineage.origins OriginSets._add_sorted: a >= first -> a > first": _LOOKED_UP,
    "headwater.lineage.origins OriginSets._add_sorted: (a <= last) | (a - 1 == last) -> "
    "(a <= last) & (a - 1 == last)": _LOOKED_UP,
    "headwater.lineage.origins OriginSets._add_sorted: a <= last -> a < last": _LOOKED_UP,
    "headwater.lineage.origins OriginSets._add_sorted: a - 1 -> a + 1": _LOOKED_UP,
    "headwater.lineage.origins OriginSets._insert: a > self._last[code] -> a >= self._last[code]": _IN_NONE,
    "headwater.lineage.origins OriginSets._insert: b < self._first[code] -> b <= self._first[code]": _IN_NONE,
    "headwater.lineage.origins OriginSets._insert: a > self._last[code] -> a >= self._last[code] (2)": _IN_NONE,
    "headwater.lineage.origins OriginSets._unite: top_last + 1 -> top_last - 1": _LOOKED_UP,
    "headwater.lineage.origins OriginSets._unite: 1 -> 2 (6)": "any number below 0 stands for as many as there are",
    "headwater.lineage.origins _runs: 0 -> 1": "there is none to take",
    "headwater.lineage.origins sorted_rows: len(codes) > 1 -> len(codes) >= 1": _SHORTCUT,
    "headwater.lineage.origins sorted_rows: 1 -> 2": _SHORTCUT,
    "headwater.lineage.origins sorted_rows: codes[0] == codes[-1] -> codes[0] != codes[-1]": _SHORTCUT,
    "headwater.lineage.origins sorted_rows: 0 -> 1": _SHORTCUT,
    "headwater.lineage.origins sorted_rows: 1 -> 2 (2)": _SHORTCUT,
    "headwater.lineage.origins sorted_rows: codes == codes[0] -> codes != codes[0]": _SHORTCUT,
    "headwater.lineage.origins sorted_rows: 0 -> 1 (2)": _SHORTCUT,
    "headwater.lineage.origins sorted_rows: seqs[1:] > seqs[:-1] -> seqs[1:] >= seqs[:-1]": _SHORTCUT,
    "headwater.lineage.origins sorted_rows: int(codes.max()).bit_length() + seq_bits + row_bits > 62 -> "
    "int(codes.max()).bit_length() + seq_bits + row_bits >= 62": "63 bits fit as well",
    "headwater.lineage.origins sorted_rows: 62 -> 63": "63 bits fit as well",
    "headwater.lineage.members member_slices: 1 -> 2": "-2 is no origin's code either",
    "headwater.lineage.members member_slices: 1 -> 2 (2)": "-2 is no origin's code either",
    "headwater.processors.engine.engine Effects: 0 -> 1 (3)": "whoever takes records in says how many",
    "headwater.processors.engine.engine Engine._dead_rows: self.pipeline.contract.id is None or not len(state.dead) -> "
    "self.pipeline.contract.id is None and (not len(state.dead))": "where no event is dead none is found",
    "headwater.processors.engine.engine Engine._advance: 1 -> 2": "one place more holds the same",
    "headwater.processors.engine.engine Engine._advance: 1 -> 2 (2)": "-2 is no place of a record either",
    "headwater.processors.engine.engine Engine._guarded: 1 -> 2 (2)": "two empty tables are one",
    "headwater.processors.engine.engine Engine._views: not self.state.views or not rows.table.num_rows -> "
    "not self.state.views and (not rows.table.num_rows)": "no event folded, or into no view, changes nothing",
    "headwater.processors.engine.state _pack: 1 -> 2": "how well a snapshot is compressed is a choice",
    "headwater.processors.operators.misplaced _aggregate: 0 -> 1": "the last hash key is as much inside as the first",
    "headwater.processors.operators.misplaced _digest: 16 -> 17": "a digest of 17 bytes tells as many apart",
    "headwater.processors.operators.misplaced _await: 0 -> 1": "when it came before is not looked at",
    "headwater.processors.operators.misplaced united_awaited: 0 -> 1": "nothing arrived in the year 1970",
    "headwater.processors.operators.misplaced united_renewed: 0 -> 1": "nothing arrived in the year 1970",
    "headwater.processors.operators.conflicts find_conflicts: 1 -> 2": "-2 is no place of a record either",
    "headwater.processors.shard.flushes _read: 8 -> 9 (3)": "a stream ends before the byte that is too many",
    "headwater.processors.shard.outgoing _fitting: False -> True": "where MD5 may be used, its value is the same",
    "headwater.sinks.lake.standing TableState: 0 -> 1": "the next number after an attempt is 1 at least",
    "headwater.sinks.lake.standing plan_files: 0 -> 1": "it is asked of what was tried alone, and nothing was",
    "headwater.producers.outbox Outbox.__init__: 0 -> 1": "another process's file is refused a second later",
    "headwater.producers.outbox Outbox.__init__: self._db.close() -> nothing": _COLLECTED,
    "headwater.producers.outbox Outbox.__init__: self._db.close() -> nothing (2)": _COLLECTED,
    "headwater.producers.outbox Outbox.add: 0 -> 1": "an insert always has the row's id",
    "headwater.producers.outbox Outbox.unannounced: 0 -> 1": "nothing is looked at behind the last",
    "headwater.producers.outbox Backlog.__init__: 1 -> 2": "no batch has a number below 0",
    "headwater.producers.outbox Outbox._open: self._db.execute('commit') -> nothing": "a script commits what is open",
    "headwater.producers.receipts PendingReceipts.add_session: 0 -> 1": "when they arrived is not looked at",
    "headwater.producers.sealing _joined: table.schema != tables[0].schema -> table.schema == tables[0].schema": (
        "tables of one schema are joined as well once their strings are coded, at some cost"
    ),
    "headwater.producers.sealing _joined: 0 -> 1 (2)": "all are like the first if and only if all are like the second",
    "headwater.producers.sealing _large_rows: 0 -> 1": _CANDIDATE,
    "headwater.producers.sealing _large_rows: 0 -> 1 (2)": _CANDIDATE,
    "headwater.producers.sealing _large_rows: sum((pc.max(length).as_py() or 0 for _, length in found)) <= limit"
    " -> sum((pc.max(length).as_py() or 0 for _, length in found)) < limit": _CANDIDATE,
    "headwater.producers.sealing _large_rows: total > limit -> total >= limit": _CANDIDATE,
    "headwater.producers.writer _Attempt.__init__: 0 -> 1 (2)": _SET_BEFORE,
    "headwater.producers.writer _Attempt.__init__: 0 -> 1 (3)": _SET_BEFORE,
    "headwater.producers.writer _Attempt.__lt__: "
    "(self.due_ms, self.batch.batch_id) < (ot … ue_ms, other.batch.batch_id) -> "
    "(self.due_ms, self.batch.batch_id) <= (o … ue_ms, other.batch.batch_id)": "no two batches have one number",
}
