"""Measure the columnar batch by batch size: bytes an event, and the rates of encoding and decoding."""

import statistics
import sys
import time
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from headwater.codec import decode_record, encode_batch
from headwater.contract import Contract, load_contract

__all__ = ["print_sizes", "sizes"]

MARKS = {500: 10.9, 5_000: 8.0, 50_000: 7.2}
"""Measured on simulated fleet data with an own id of device and seq; the codec keeps within 10 % of them."""


def sizes(
    table: pa.Table, contract: Contract, batches: Sequence[int] = tuple(MARKS), sample: int = 200_000
) -> list[dict[str, float]]:
    """Return for each batch size bytes an event and millions of events a second encoded and decoded.

    Over about `sample` events taken evenly from `table`, in one thread.
    """
    out = []
    for size in batches:
        count = max(1, min(sample, table.num_rows) // size)
        stride = table.num_rows // count
        parts = [table.slice(at * stride, size).combine_chunks() for at in range(count)]
        started = time.perf_counter()
        records = [encode_batch(part, contract) for part in parts]
        encoded = time.perf_counter() - started
        events = sum(part.num_rows for part in parts)
        decoded = statistics.median(_decode_seconds(records, contract) for _ in range(3))
        out.append(
            {
                "batch": size,
                "bytes": sum(map(len, records)) / events,
                "encode": events / encoded / 1e6,
                "decode": events / decoded / 1e6,
            }
        )
    return out


def _decode_seconds(records: Sequence[bytes], contract: Contract) -> float:
    started = time.perf_counter()
    for record in records:
        decode_record(record, contract)
    return time.perf_counter() - started


def print_sizes(table: pa.Table, contract: Contract) -> None:
    """Print the table of `sizes` beside its marks."""
    print(f"{'events/batch':>12} {'bytes/event':>12} {'mark':>6} {'encode M/s':>11} {'decode M/s':>11}")
    for row in sizes(table, contract):
        mark = MARKS.get(int(row["batch"]), float("nan"))
        print(f"{row['batch']:>12,} {row['bytes']:>12.2f} {mark:>6.1f} {row['encode']:>11.2f} {row['decode']:>11.2f}")


if __name__ == "__main__":  # python -m bench.codec_sizes PARQUET [CONTRACT]
    print_sizes(pq.read_table(sys.argv[1]), load_contract(sys.argv[2] if len(sys.argv) > 2 else "telemetry"))
