"""Measure remembering own ids: CPU, memory and snapshot of random ids beside counted ones: `python -m bench.ids`.

One shard's set of seen events takes batches of 5,000: numbers that count up, random 64-bit numbers of one origin and of
5,000, and UUIDs. Checked: each id is new once, and a copy at the end is found. CPU is the process's; memory is what the
process holds more than before.
"""

import argparse
import json
import sys
import time
import uuid
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import zstandard

from bench.state import resident_mb
from headwater.arrays import Ints
from headwater.lineage.origins import OriginSets

_BATCH = 5_000
_DEVICES = pa.array([f"dev-{at:05}" for at in range(5_000)])
_LOWEST, _HIGHEST = -(1 << 63), (1 << 63) - 1

Ids = Callable[[np.random.Generator, int], tuple[pa.DictionaryArray, Ints]]
"""Origins and numbers of a batch that begins with this event."""


def counted(_draw: np.random.Generator, at: int) -> tuple[pa.DictionaryArray, Ints]:
    return _origins(np.zeros(_BATCH, np.int32)), np.arange(at, at + _BATCH)


def random_of_one(draw: np.random.Generator, _at: int) -> tuple[pa.DictionaryArray, Ints]:
    return _origins(np.zeros(_BATCH, np.int32)), draw.integers(_LOWEST, _HIGHEST, _BATCH, endpoint=True)


def random_of_many(draw: np.random.Generator, _at: int) -> tuple[pa.DictionaryArray, Ints]:
    numbers = draw.integers(_LOWEST, _HIGHEST, _BATCH, endpoint=True)
    return _origins(draw.integers(0, len(_DEVICES), _BATCH).astype(np.int32)), numbers


def uuids(draw: np.random.Generator, _at: int) -> tuple[pa.DictionaryArray, Ints]:
    names = pa.array([str(uuid.UUID(bytes=draw.bytes(16))) for _ in range(_BATCH)])
    return names.dictionary_encode(), np.zeros(_BATCH, np.int64)


KINDS: dict[str, Ids] = {
    "counted": counted,
    "random, one origin": random_of_one,
    "random, 5,000 origins": random_of_many,
    "uuid": uuids,
}


def _origins(codes: Ints) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes), _DEVICES)


def measure(kind: str, events: int) -> dict[str, object]:
    """Add so many ids of a kind, and one batch of them again."""
    draw, sets, arrived = np.random.default_rng(1), OriginSets(), np.zeros(_BATCH, np.int64)
    before, cpu, last, new = resident_mb(), 0.0, 0.0, 0
    for at in range(0, events, _BATCH):
        origins, numbers = KINDS[kind](draw, at)
        began = time.process_time()
        codes = sets.codes(origins.dictionary)[origins.indices.to_numpy()]
        new += int(sets.add(codes, numbers, arrived).sum())
        last = time.process_time() - began
        cpu += last
    held = resident_mb() - before
    assert new == events, f"{kind}: {events - new} of {events} ids were taken for copies"
    assert not sets.add(codes, numbers, arrived).any(), f"{kind}: copies were taken for new"
    began = time.process_time()
    sink, table = pa.BufferOutputStream(), sets.to_table()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    snapshot = len(zstandard.ZstdCompressor(level=1).compress(sink.getvalue().to_pybytes()))
    return {
        "ids": kind,
        "events": events,
        "us_an_id": round(cpu / events * 1e6, 2),
        "us_an_id_at_the_end": round(last / _BATCH * 1e6, 2),
        "bytes_an_id": round(held * 1e6 / events, 1),
        "snapshot_bytes_an_id": round(snapshot / events, 1),
        "snapshot_ms": round((time.process_time() - began) * 1e3),
    }


def main() -> None:
    """Print a JSON object a kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    for kind in KINDS:
        sys.stdout.write(json.dumps(measure(kind, parser.parse_args().events)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
