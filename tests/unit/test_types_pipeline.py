"""Events of every type through a whole pipeline: the same rows of the lake and of a view, however they were sent."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from headwater.aggregates import count, first, max, min, sum
from headwater.codec import encode_batch, encode_kpl, event_json
from headwater.contract import parse_contract, validate_row
from headwater.processors.definition.pipeline import Pipeline
from headwater.testing.pipelines import run_pipeline

CONTRACT = parse_contract(
    """
name: everything
version: 1
key: u
time: m
fields:
  - {name: u, type: uuid}
  - {name: m, type: timestamp_us}
  - {name: d, type: "decimal(38, 10)"}
  - {name: t, type: time}
  - {name: b, type: binary, required: false}
  - {name: day, type: date, required: false}
  - {name: l, type: "list<struct<price: decimal(9, 2), id: uuid?>>"}
  - {name: x, type: "map<string, timestamp?>", required: false}
""",
    "everything",
)
EVENTS: list[dict[str, Any]] = [
    {
        "u": UUID(int=(1 << 128) - 1),
        "m": datetime(2026, 3, 1, 12, 0, 0, 5, UTC),
        "d": Decimal("1234567890123456789012345678.0123456789"),
        "t": time(1, 2, 3, 4),
        "b": b"\xff",
        "day": date(2026, 3, 1),
        "l": [{"price": Decimal("1.20"), "id": UUID(int=1 << 127)}, {"price": Decimal(0), "id": None}],
        "x": {"k": datetime(2026, 3, 1, tzinfo=UTC), "none": None},
    },
    {
        "u": UUID(int=(1 << 128) - 1),
        "m": datetime(2026, 3, 1, 12, 0, 0, 4, UTC),
        "d": Decimal("0.0000000001"),
        "t": time(0),
        "b": None,
        "day": None,
        "l": [],
        "x": None,
    },
]
PIPELINE = (
    Pipeline("p", CONTRACT)
    .view("v", by=["u"], n=count(), s=sum("d"), low=min("t"), high=max("m"), first=first("d"), day=max("day"))
    .lake("p")
)
TABLE = pa.Table.from_pylist([validate_row(CONTRACT, one) for one in EVENTS], schema=CONTRACT.arrow_schema)
LINES = event_json(TABLE)
WAYS: dict[str, Any] = {
    "put": EVENTS,
    "put_batch": TABLE,
    "a batch": [encode_batch(TABLE, CONTRACT)],
    "json": LINES,
    "json lines": [b"\n".join(LINES)],
    "a json array": [b"[" + b",".join(LINES) + b"]"],
    "kpl": [encode_kpl(LINES, "k", "0")],
}


@pytest.mark.parametrize("way", WAYS)
def test_the_lake_and_the_view_have_what_was_sent(way: str) -> None:
    found = run_pipeline(PIPELINE, WAYS[way])
    assert found.dead_letters == []
    (row,) = found.views["v"]
    assert {name: row[name] for name in ("u", "n", "s", "low", "high", "first", "day")} == {
        "u": "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "n": 2,
        "s": "1234567890123456789012345678.0123456790",
        "low": "00:00:00",
        "high": "2026-03-01T12:00:00.000005Z",
        "first": "0.0000000001",
        "day": "2026-03-01",
    }
    rows = found.lake.select(CONTRACT.arrow_schema.names).to_pylist()
    assert sorted(rows, key=lambda one: one["m"], reverse=True) == TABLE.to_pylist()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        (b'"d":"0.0000000001"', b'"d":0.00000000001', "does not fit decimal(38, 10), and nothing is rounded"),
        (b'"t":"00:00:00"', b'"t":"24:00:00"', "is no time of day"),
        (b'"b":null', b'"b":"?"', "is no text in base64"),
        (b'"l":[]', b'"l":[{"price":"1.205"}]', "has [0].price: does not fit decimal(9, 2), and nothing is rounded"),
        (b'"x":null', b'"x":{"k":"noon"}', 'has ["k"]: is no ISO 8601 time'),
    ],
)
def test_what_is_out_of_range_is_a_dead_letter_that_is_sent_again_when_mended(
    name: bytes, value: bytes, reason: str
) -> None:
    assert name in LINES[1]
    found = run_pipeline(PIPELINE, [LINES[0], LINES[1].replace(name, value)])
    (letter,) = found.dead_letters
    assert reason in letter.reason
    mended = run_pipeline(PIPELINE, [LINES[0], letter.payload.replace(value, name)])
    assert mended.views == run_pipeline(PIPELINE, LINES).views
