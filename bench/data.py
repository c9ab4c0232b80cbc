"""Make the benchmarks' events: a fleet that numbers its own readings, with copies among them."""

import numpy as np
import pyarrow as pa

from headwater.contract import Contract, parse_contract
from headwater.testing.fleet import Fleet

__all__ = ["CONTRACT", "devices", "fleet_events"]

CONTRACT: Contract = parse_contract(
    """
name: numbered
version: 1
description: Telemetry of devices that number their readings.
key: device
time: ts
id: {origin: device, seq: seq}
fields:
  - {name: device, type: string}
  - {name: seq, type: long}
  - {name: ts, type: timestamp}
  - {name: metric, type: string}
  - {name: value, type: double}
  - {name: unit, type: string, required: false}
  - {name: region, type: string, required: false}
  - {name: firmware, type: string, required: false}
  - {name: status, type: string, required: false}
""",
    "bench",
)


def fleet_events(events: int, devices: int = 5_000, copies: float = 0.05, seed: int = 7) -> pa.Table:
    """Return `events` rows, of which the share `copies` repeats an earlier row a while after it."""
    random = np.random.default_rng(seed)
    first = round(events * (1 - copies))
    tables = list(Fleet(devices=devices, seed=seed, start_ms=1_762_160_400_000).batches(first, 100_000))
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    device = table.column("device").combine_chunks()
    codes = (device.dictionary_encode() if not pa.types.is_dictionary(device.type) else device).indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    seq = np.empty(len(codes), np.int64)
    seq[order] = np.arange(len(codes)) - np.repeat(starts, np.diff(np.append(starts, len(codes))))
    table = table.append_column("seq", pa.array(seq))
    again = random.integers(0, first, events - first)
    place = np.concatenate([np.arange(first, dtype=np.float64), again + random.uniform(1, 50_000, len(again))])
    rows = np.concatenate([np.arange(first), again])[np.argsort(place, kind="stable")]
    return table.take(pa.array(rows)).select(CONTRACT.arrow_schema.names)


def devices(number: int = 5_000) -> pa.Table:
    """Return the table to join with: device, site."""
    names = [f"dev-{n:05d}" for n in range(1, number + 1)]
    return pa.table({"device": names, "site": [f"site-{n % 40}" for n in range(number)]})
