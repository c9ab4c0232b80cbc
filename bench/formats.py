"""Compare each decoder, through to the contract's columns, with the library call that it wraps.

Run: python -m bench.formats [FORMAT ...]. Events a CPU second on one core; how many times the CPU time of the
counterpart the whole takes; and of how much of that the library's call alone is. The counterpart is what somebody would
write who trusts the stream: the library's call on the bytes of each record, and, where that makes no columns, the
simplest loop over what it gives, into a table of the same columns. It checks nothing. All three run by turns, the best
of each counts.
"""

import sys
import time
from collections.abc import Callable

import pyarrow as pa

from bench.formatcases import CASES, EVENTS, NOON_MS, FormatCase
from bench.formatotlp import OTLP_CASES
from headwater.codec import Decoder
from headwater.processors.operators.decode import Part, decode
from headwater.stream.record import StreamRecord

_TURNS = 7
_LONG = 2.0
"""Seconds of a turn that is repeated but twice."""


def seconds(*runs: Callable[[], object]) -> list[float]:
    """The CPU time of the best turn of each."""
    best = [float("inf")] * len(runs)
    for turn in range(_TURNS):
        if turn > 2 and sum(best) > _LONG:
            break
        for at, run in enumerate(runs):
            start = time.process_time()
            run()
            best[at] = min(best[at], time.process_time() - start)
    return best


def compare(case: FormatCase) -> None:
    datas, of = case.datas, case.contract
    records = [StreamRecord("shard-0", str(at + 1), NOON_MS, "k", data) for at, data in enumerate(datas)]
    decoder: Decoder | None = case.decoder
    if decoder is not None and hasattr(decoder, "for_contract"):
        decoder = decoder.for_contract(of)

    def by_hand() -> pa.Table:
        if case.rows is None:
            return pa.concat_tables([case.plain(data) for data in datas])
        found = [row for data in datas for row in case.rows(case.plain(data))]
        return pa.Table.from_pylist(found, schema=of.arrow_schema)

    def library() -> None:
        for data in datas:
            case.plain(data)

    parts = [part for part in decode(records, of, decoder) if isinstance(part, Part)]
    ours = pa.concat_tables(part.decoded.table.cast(of.arrow_schema) for part in parts)
    assert ours.num_rows == EVENTS, case.name
    assert ours.equals(by_hand().cast(of.arrow_schema)), case.name
    whole, hand, plain = seconds(lambda: decode(records, of, decoder), by_hand, library)
    print(
        f"{case.name:24} {EVENTS / whole:9,.0f} events/s   {whole / hand:5.2f} times {case.counterpart}"
        f", of which the call is {plain / hand:4.0%}"
    )


if __name__ == "__main__":
    wanted = [name.lower() for name in sys.argv[1:]]
    for make in (*CASES, *OTLP_CASES):
        if not wanted or any(name in make.__name__ for name in wanted):
            compare(make())
