"""Hold what one record becomes in memory to its bound, whatever is in it."""

import json
from collections.abc import Callable
from functools import partial

import pyarrow as pa
import zstandard

from headwater.codec import encode_control
from headwater.contract import load_contract
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.engine import Engine
from headwater.processors.engine.state import ShardState
from headwater.processors.operators.enrich import ReferenceTable
from headwater.stream.record import StreamRecord
from tests.memory import measured, tell
from tests.typed import ipc

SIZE = 64 << 20
"""Bytes that a record may have when it is decompressed."""
NOON = 1_772_366_400_000
CONTRACT = load_contract("telemetry")
EVENT = json.dumps({"device": "d", "metric": "m", "ts": NOON, "value": 1.5}).encode()
ROWS = 600_000


def filled(unit: bytes, head: bytes = b"", tail: bytes = b"") -> bytes:
    return head + unit * ((SIZE - len(head) - len(tail)) // len(unit)) + tail


def columns(value: float) -> bytes:
    text = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), ROWS), pa.array(["d" * 50]))
    times = pa.repeat(pa.scalar(NOON, pa.timestamp("ms", "UTC")), ROWS)
    return ipc(pa.table({"device": text, "metric": text, "ts": times, "value": pa.repeat(pa.scalar(value), ROWS)}))


def receipt() -> bytes:
    intervals = {f"origin-{at:06d}": [[at, at + 1]] for at in range(40_000)}
    return encode_control("receipt", {"contract": "telemetry", "intervals": intervals})


RECORDS: dict[str, Callable[[], bytes]] = {
    "events": lambda: filled(EVENT + b"\n"),
    "an array of events": lambda: filled(EVENT + b",", b"[", EVENT + b"]"),
    "empty objects": lambda: filled(b"{}"),
    "empty objects, one a line": lambda: filled(b"{}\n"),
    "lines without anything": lambda: filled(b"\n", b"{}", b"{}"),
    "objects over two lines": lambda: filled(b"{\n}\n"),
    "a list of numbers": lambda: filled(b"1.5,", b'{"x":[', b"1]}"),
    "many fields": lambda: filled(b'"x":1,', b"{", b'"y":1}'),
    "one text": lambda: filled(b"x", b'{"device":"', b'"}'),
    "lists in lists": lambda: filled(b"["),
    "columns": lambda: columns(1.5),
    "columns that break the contract": lambda: columns(float("nan")),
    "a receipt of 40,000 origins": receipt,
}
MOST_MIB = {"one text": 640}
"""Allow more where there is one long text: itself, its JSON, its letter."""


def no_reference(name: str, uri: str) -> ReferenceTable:
    raise LookupError(name, uri)


def step_over(make: Callable[[], bytes]) -> Callable[[], object]:
    """One engine step over the record."""
    pipeline = Pipeline("p", CONTRACT).lake("p")
    data = zstandard.compress(make())
    engine = Engine(pipeline, "shard-0", ShardState(pipeline), no_reference)
    return lambda: engine.process([StreamRecord("shard-0", "1", NOON + 1_000, "k", data)]) and ""


def test_no_record_takes_more_memory_than_a_processor_has() -> None:
    """64 MiB of objects of two bytes, one a line, took 1.5 GB."""
    found = measured("tests.unit.test_record_memory")
    assert list(found) == list(RECORDS)
    beyond = {name: one for name, one in found.items() if one[0] > MOST_MIB.get(name, 420)}
    assert not beyond, "MiB, seconds of CPU"


if __name__ == "__main__":
    tell({name: partial(step_over, make) for name, make in RECORDS.items()})
