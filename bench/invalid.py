"""Measure what events that break their contract cost beside valid ones: `python -m bench.invalid`.

CPU of decoding 5,000 events as JSON lines, and of the step of the engine over them, which makes the dead letters; each
beside valid events, and beside as many bytes of them. Then events with ids of their own, which the shard remembers, and
last what `decode` takes of records of other writers, of which each event has a value that is none.
"""

import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from bench import formatcases
from bench.formatcases import NOON_MS
from headwater.codec import decode_record
from headwater.contract import Contract, OwnId, load_contract
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.engine import Engine
from headwater.processors.engine.state import ShardState
from headwater.processors.operators.decode import decode
from headwater.processors.operators.enrich import ReferenceTable
from headwater.stream.record import StreamRecord

CONTRACT = load_contract("telemetry")
OWN = replace(CONTRACT, name="own", id=OwnId("device"))
COUNT = 5_000
CASES: dict[str, Callable[[int], dict[str, Any]]] = {
    "valid": lambda _: {},
    "one value in 100": lambda at: {"value": "x"} if at % 100 == 0 else {},
    "one value in 10": lambda at: {"value": "x"} if at % 10 == 0 else {},
    "every value": lambda at: {"value": f"x{at}"},
    "every time": lambda at: {"ts": f"never {at}"},
    "an unknown field each": lambda at: {f"unknown{at}": 1},
    "a key too long each": lambda at: {"device": f"{at:01025}"},
}


def lines(change: Callable[[int], dict[str, Any]]) -> bytes:
    """Write events, each changed, as JSON lines."""
    event = {"device": "d", "metric": "m", "ts": 1_772_366_400_000, "value": 0.5}
    return b"\n".join(json.dumps(event | {"value": at / 3} | change(at)).encode() for at in range(COUNT))


def _no_reference(name: str, uri: str) -> ReferenceTable:
    raise LookupError(name, uri)


def process(data: bytes, contract: Contract = CONTRACT) -> None:
    """Give one record of these bytes to a new shard."""
    pipeline = Pipeline("p", contract).lake("p")
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


def ways() -> None:
    """Print a line for each way that records come."""
    formatcases.EVENTS = COUNT
    for make, (good, bad) in WAYS.items():
        case = make()
        decoder: Any = case.decoder
        read = decoder.for_contract(case.contract) if hasattr(decoder, "for_contract") else decoder
        broken = [re.sub(good, bad, data) for data in case.datas]
        valid, invalid = (
            cpu_ms(partial(decode, [StreamRecord("s", str(at), NOON_MS, "k", one) for at, one in enumerate(datas)],
                           case.contract, read))
            for datas in (case.datas, broken)
        )  # fmt: skip
        sys.stdout.write(f"{case.name:24} valid {valid:7.1f} ms, invalid {invalid:7.1f} ms, x {invalid / valid:5.1f}\n")


WAYS: dict[Callable[[], formatcases.FormatCase], tuple[bytes, bytes]] = {
    formatcases.json_lines: (rb'"value": ', b'"value": "x", "y": '),
    formatcases.json_single: (rb'"value": ', b'"value": "x", "y": '),
    formatcases.csv_lines: (rb"(?m)$", b"x"),
    formatcases.telegraf: (rb'"usage_idle": ', b'"usage_idle": "x", "y": '),
    formatcases.debezium: (rb'"total": ', b'"total": "x", "y": '),
    formatcases.dynamodb: (rb'"n": {"N"', b'"n": {"S"'),
}


def main() -> None:
    """Print a line a case."""
    for contract, cases in ((CONTRACT, CASES), (OWN, {name: CASES[name] for name in ("valid", "every value")})):
        first: tuple[float, float, int] | None = None
        for name, change in cases.items():
            data = lines(lambda at: {"device": f"d{at}"} | change(at) if contract is OWN else change(at))  # noqa: B023 (called at once)
            decoding = cpu_ms(lambda: decode_record(data, contract))  # noqa: B023 (called at once)
            step = cpu_ms(lambda: process(data, contract))  # noqa: B023 (called at once)
            first = first or (decoding, step, len(data))
            more = len(data) / first[2]
            text = f"x {decoding / first[0]:5.1f} {step / first[1]:5.1f}, a byte x {step / first[1] / more:5.1f}"
            sys.stdout.write(f"{contract.name:9} {name:22} decode {decoding:7.1f} ms, step {step:7.1f} ms, {text}\n")
    ways()


if __name__ == "__main__":
    main()
