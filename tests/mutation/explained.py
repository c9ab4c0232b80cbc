"""Name the mutants that no test can kill, each with the reason: they change nothing that anybody can see."""

__all__ = ["EXPLAINED"]

_TRIES = "how often it is tried again is a choice: one time more is as right"
_TOKEN = "a token of nine random bytes tells writers apart as one of eight does"
_COLLECTED = "the connection closes as soon as nobody has it, and nobody has one of an outbox that does not open"
_SAME_GAPS = "the part that the loop then takes is the one that is added after it, or empty"

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
    "headwater.processors.operators.misplaced _aggregate: 0 -> 1": "the last hash key is as much inside as the first",
    "headwater.processors.operators.misplaced _digest: 16 -> 17": "a digest of 17 bytes tells as many apart",
    "headwater.processors.operators.misplaced _await: 0 -> 1": "when it came before is not looked at",
    "headwater.processors.operators.misplaced united_awaited: 0 -> 1": "nothing arrived in the year 1970",
    "headwater.processors.operators.misplaced united_renewed: 0 -> 1": "nothing arrived in the year 1970",
    "headwater.processors.operators.conflicts find_conflicts: 1 -> 2": "-2 is no place of a record either",
    "headwater.producers.outbox Outbox.__init__: 0 -> 1": "another process's file is refused a second later",
    "headwater.producers.outbox Outbox.__init__: self._db.close() -> nothing": _COLLECTED,
    "headwater.producers.outbox Outbox.__init__: self._db.close() -> nothing (2)": _COLLECTED,
    "headwater.producers.outbox Outbox._open: self._db.execute('commit') -> nothing": "a script commits what is open",
}
