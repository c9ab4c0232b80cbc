"""Measure what events that break their contract cost beside valid ones: `python -m bench.invalid`.

CPU of decoding 5,000 events as JSON lines, and of the engine's step over them, which makes the dead letters.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from headwater.codec import decode_record
from headwater.contract import load_contract
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.engine import Engine
from headwater.processors.engine.state import ShardState
from headwater.processors.operators.enrich import ReferenceTable
from headwater.stream.record import StreamRecord

CONTRACT = load_contract("telemetry")
COUNT = 5_000
CASES: dict[str, Callable[[int], dict[str, Any]]] = {
    "valid": lambda _: {},
    "one value in 100": lambda at: {"value": "x"} if at % 100 == 0 else {},
    "one value in 10": lambda at: {"value": "x"} if at % 10 == 0 else {},
    "every value": lambda _: {"value": "x"},
    "every time": lambda _: {"ts": "never"},
    "an unknown field each": lambda at: {f"unknown{at}": 1},
    "a key too long each": lambda _: {"device": "d" * 1_025},
}


def lines(change: Callable[[int], dict[str, Any]]) -> bytes:
    """Write events, each changed, as JSON lines."""
    event = {"device": "d", "metric": "m", "ts": 1_772_366_400_000, "value": 0.5}
    return b"\n".join(json.dumps(event | {"value": at / 3} | change(at)).encode() for at in range(COUNT))


def _no_reference(name: str, uri: str) -> ReferenceTable:
    raise LookupError(name, uri)


def process(data: bytes) -> None:
    """Give one record of these bytes to a new shard."""
    pipeline = Pipeline("p", CONTRACT).lake("p")
    engine = Engine(pipeline, "shard-0", ShardState(pipeline), _no_reference)
    engine.process([StreamRecord("shard-0", "1", 1_772_366_500_000, "k", data)])


def cpu_ms(job: Callable[[], object]) -> float:
    """Return the CPU of a job, the least of five runs."""
    found = []
    for _ in range(5):
        began = time.process_time()
        job()
        found.append(time.process_time() - began)
    return 1000 * min(found)


def main() -> None:
    """Print a line a case."""
    first: tuple[float, float] | None = None
    for name, change in CASES.items():
        data = lines(change)
        decoding, step = cpu_ms(lambda: decode_record(data, CONTRACT)), cpu_ms(lambda: process(data))  # noqa: B023
        first = first or (decoding, step)
        ratios = f"x {decoding / first[0]:5.1f} {step / first[1]:5.1f}"
        sys.stdout.write(f"{name:22} decode {decoding:7.1f} ms, step {step:7.1f} ms, {ratios}\n")


if __name__ == "__main__":
    main()
