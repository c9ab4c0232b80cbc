"""Events, and their bytes, for tests of the codec."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from headwater.codec import (
    Decoded,
    decode_record,
)
from headwater.codec.jsonrows import one_line, read_object
from headwater.contract import Contract, Field, OwnId, validate_row
from headwater.errors import InvalidEvent

CONTRACT = Contract(
    name="reading",
    version=3,
    fields=(
        Field("device", "string"),
        Field("seq", "long"),
        Field("ts", "timestamp"),
        Field("value", "double", minimum=-1000.0, maximum=1000.0),
        Field("status", "string", required=False, values=("ok", "warning", "fault")),
        Field("count", "int", required=False),
        Field("ratio", "float", required=False),
        Field("flag", "boolean", required=False),
        Field("day", "date", required=False),
    ),
    key="device",
    time="ts",
    id=OwnId("device", "seq"),
)


FLEET = Contract(
    name="fleet",
    version=1,
    fields=(
        Field("device", "string"),
        Field("seq", "long"),
        Field("ts", "timestamp"),
        Field("metric", "string"),
        Field("value", "double"),
        *(Field(name, "string", required=False) for name in ("unit", "region", "firmware", "status")),
    ),
    key="device",
    time="ts",
    id=OwnId("device", "seq"),
)


GOOD = {"device": "a", "seq": 1, "ts": "2025-11-03T09:00:00.125Z", "value": 1.5}


def one_by_one(payloads: Sequence[bytes], contract: Contract) -> tuple[pa.Table, list[tuple[int, str, bytes]]]:
    """The valid events, and place, reason and payload of the others: each read and judged by itself."""
    valid, invalid = [], []
    for at, payload in enumerate(payloads):
        event = read_object(payload)
        if isinstance(event, str):
            invalid.append((at, event, payload))
            continue
        try:
            valid.append(validate_row(contract, event))
        except InvalidEvent as error:
            invalid.append((at, one_line(error), payload))
        except (ValueError, OverflowError, RecursionError) as error:
            invalid.append((at, f"not JSON: {one_line(error)}", payload))
    return pa.Table.from_pylist(valid, schema=contract.arrow_schema), invalid


def rows(count: int) -> list[dict[str, Any]]:
    """Valid events, each different."""
    return [
        {
            "device": f"veh-{at % 7}",
            "seq": at,
            "ts": 1_762_160_400_000 + 37 * at,
            "value": at / 4,
            "status": ["ok", None, "fault"][at % 3],
            "count": at if at % 2 else None,
            "ratio": 0.1 * at,
            "flag": at % 5 == 0,
            "day": "2025-11-03",
        }
        for at in range(count)
    ]


def table(count: int) -> pa.Table:
    """The same events as a table of the contract."""
    found = decode(lines(rows(count)))
    assert not found.invalid
    return found.table


def lines(events: Sequence[object]) -> bytes:
    return b"\n".join(json.dumps(event).encode() for event in events)


def decode(data: bytes, contract: Contract = CONTRACT) -> Decoded:
    found = decode_record(data, contract)
    assert isinstance(found, Decoded)
    return found


def plain(found: pa.Table) -> list[dict[str, Any]]:
    kinds = [(field.name, CONTRACT.arrow_schema.field(field.name).type) for field in found.schema]
    out: list[dict[str, Any]] = found.cast(pa.schema(kinds)).to_pylist()
    return out


def stream(batch: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_table(batch)
    return bytes(sink.getvalue())


def fleet(events: int) -> pa.Table:
    """A small deterministic fleet with the shape of the data the sizes were measured on."""
    rng = np.random.default_rng(7)
    devices, metrics = 5_000, 8
    device = rng.integers(0, devices, events // 6 + 1).repeat(6)[:events]
    metric = np.concatenate([np.sort(rng.choice(metrics, 6, replace=False)) for _ in range(events // 6 + 1)])[:events]
    start = 1_762_160_400_000 + np.sort(rng.integers(0, events // 2 + 1, events // 6 + 1)).repeat(6)[:events]
    resolution = np.array([0.5, 0.01, 0.1, 1.0, 0.1, 0.5, 0.1, 0.1])[metric]
    level = np.array([85, 12.6, 60, 2200, 60, 230, 21, 200])[metric]
    value = np.round(np.round(level * (1 + 0.1 * rng.standard_normal(events)) / resolution) * resolution, 2)

    def pick(options: Sequence[str], at: Any) -> pa.Array:
        return pa.array(np.array(options, object)[at], pa.string())

    return pa.table(
        {
            "device": pick([f"veh-{at:05d}" for at in range(devices)], device),
            "seq": rng.integers(10_000, 900_000, devices)[device] + np.arange(events) % 6,
            "ts": start + rng.integers(0, 20, events),
            "metric": pick([f"vehicle.part.metric.{at}" for at in range(metrics)], metric),
            "value": value,
            "unit": pick(["Cel", "V", "km/h", "rpm", "%", "kPa", "Cel", "m"], metric),
            "region": pick([f"region-{at}" for at in range(6)], rng.integers(0, 6, devices)[device]),
            "firmware": pick([f"4.{at}.0" for at in range(12)], rng.integers(0, 12, devices)[device]),
            "status": pick(["ok", "degraded"], (rng.random(events) < 0.03).astype(int)),
        }
    )


def versioned(version: int) -> Contract:
    return Contract("reading", version, CONTRACT.fields, CONTRACT.key, CONTRACT.time, CONTRACT.id)
