"""A contract with every kind of field, for tests."""

from datetime import UTC, datetime

from headwater.contract import (
    parse_contract,
)

EVERYTHING = parse_contract(
    """
name: everything
version: 3
description: One field of each kind.
key: device
time: ts
id: {origin: device, seq: seq}
fields:
  - {name: device, type: string}
  - {name: seq, type: long, minimum: 0}
  - {name: ts, type: timestamp, doc: When., was: [at]}
  - {name: ok, type: boolean, required: false}
  - {name: count, type: int, required: false, maximum: 1000}
  - {name: ratio, type: float, required: false, minimum: 0, maximum: 0.1}
  - {name: value, type: double, required: false, unit: Cel, minimum: -40.5}
  - {name: day, type: date, required: false}
  - {name: status, type: string, required: false, values: [good, bad]}
  - {name: level, type: int, required: false, values: [1, 2]}
""",
    "test",
)


GOOD: dict[str, object] = {"device": "a", "seq": 1, "ts": "2026-01-31T12:00:00.123Z"}


NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
