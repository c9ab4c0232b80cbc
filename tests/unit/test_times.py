"""Times that no clock gives are dead letters in every form that events come in, and lose nothing else."""

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater import formats
from headwater.codec import Decoder, encode_batch, encode_kpl
from headwater.contract import check_compatible, parse_contract
from headwater.errors import InvalidContract
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.engine import Effects, Engine
from headwater.processors.engine.state import ShardState
from headwater.stream.record import StreamRecord

ARRIVED_MS, DAY_MS = 1_772_366_400_000, 86_400_000
REASON = "after the record's arrival"
Events = list[dict[str, Any]]


def contract(more: str = "", time: str = "", time_field: str = "ts") -> Any:
    return parse_contract(
        f"""{{name: c, version: 1, key: k, time: {time_field}, {more} fields: [
        {{name: k, type: string}}, {{name: n, type: long}}, {{name: {time_field}, type: timestamp {time}}}]}}""",
        "c.yaml",
    )


def text(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def as_json(events: Events) -> list[bytes]:
    return [json.dumps(event).encode() for event in events]


def batch(events: Events) -> pa.Table:
    kinds = pa.schema([("k", pa.string()), ("n", pa.int64()), ("ts", pa.timestamp("ms", "UTC"))])
    return pa.table([[event[name] for event in events] for name in kinds.names], schema=kinds)


def csv(events: Events) -> list[bytes]:
    return ["\n".join(f"{event['k']},{event['n']},{text(event['ts'])}" for event in events).encode()]


WAYS: dict[str, tuple[Decoder | None, Callable[[Events], list[bytes]]]] = {
    "a record each": (None, as_json),
    "ISO 8601": (None, lambda events: as_json([{**event, "ts": text(event["ts"])} for event in events])),
    "lines": (None, lambda events: [b"\n".join(as_json(events))]),
    "an array under gzip": (None, lambda events: [gzip.compress(json.dumps(events).encode())]),
    "KPL": (None, lambda events: [encode_kpl(as_json(events), "k", None)]),
    "sealed batches": (None, lambda events: [encode_batch(batch(events), contract(), origin="o", first_seq=0)]),
    "CSV": (formats.csv(["k", "n", "ts"]), csv),
    "a table of a function's": (lambda data: batch(json.loads(data)), lambda e: [json.dumps(e).encode()]),
    "rows of a function's": (json.loads, lambda events: [json.dumps(events).encode()]),
}


def processed(decoder: Decoder | None, of: Any, *datas: bytes, arrived_ms: int = ARRIVED_MS) -> Effects:
    pipeline = Pipeline("p", of).lake("t")
    pipeline = pipeline if decoder is None else pipeline.decode(decoder)
    engine = Engine(pipeline, "shard-0", ShardState(pipeline), lambda *_: pytest.fail("no references"))
    return engine.process([StreamRecord("shard-0", str(at + 1), arrived_ms, "k", one) for at, one in enumerate(datas)])


def numbers(effects: Effects) -> list[int]:
    return sorted(n for table in effects.lake for n in table["n"].to_pylist())


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=10, deadline=None)
@given(aheads=st.lists(st.sampled_from([-DAY_MS, 0, DAY_MS, DAY_MS + 1, 400 * DAY_MS]), min_size=1, max_size=40))
def test_a_time_more_than_a_day_ahead_is_a_dead_letter(way: str, aheads: list[int]) -> None:
    """It costs only itself; sent again when its day has come, it is an event."""
    decoder, written = WAYS[way]
    events = [{"k": "a", "n": n, "ts": ARRIVED_MS + ahead} for n, ahead in enumerate(aheads)]
    found = processed(decoder, contract(), *written(events))
    assert numbers(found) == [n for n, ahead in enumerate(aheads) if ahead <= DAY_MS]
    assert all(REASON in letter.reason and letter.index is not None for letter in found.letters)
    again = processed(
        decoder, contract(), *(one.payload for one in found.letters), arrived_ms=ARRIVED_MS + 400 * DAY_MS
    )
    assert [letter.reason for letter in again.letters] == []
    assert numbers(again) == [n for n, ahead in enumerate(aheads) if ahead > DAY_MS]


def test_a_contract_says_how_far_ahead_a_time_may_be() -> None:
    """For its time alone; and the next version may not say less."""
    event = json.dumps({"k": "a", "n": 1, "ts": ARRIVED_MS + 30 * DAY_MS}).encode()
    thirty = contract(time=", ahead: 30d")
    assert numbers(processed(None, thirty, event)) == [1]
    assert "more than 29 days" in processed(None, contract(time=", ahead: 29d"), event).letters[0].reason
    assert numbers(processed(None, contract(time=", ahead: 9999999999999d"), event)) == [1]
    assert check_compatible(contract(), thirty) == ["the content changes and the version stays 1"]
    assert "field ts may be less far ahead" in check_compatible(thirty, contract())
    with pytest.raises(InvalidContract, match=r"c\.yaml:2: field ts: ahead: .* is no duration"):
        contract(time=", ahead: far")
    with pytest.raises(InvalidContract, match="ahead is for the field that is the time"):
        parse_contract(
            "{name: c, version: 1, key: k, time: ts, fields: [{name: k, type: string}, {name: ts, type: timestamp},"
            "{name: due, type: timestamp, ahead: 2d}]}",
            "c.yaml",
        )


def test_another_time_than_the_events_own_may_be_far_ahead() -> None:
    """A flight that is booked for the summer is no fault of a clock."""
    of = parse_contract(
        "{name: c, version: 1, key: k, time: ts, fields: [{name: k, type: string}, {name: n, type: long},"
        "{name: ts, type: timestamp}, {name: due, type: timestamp}]}",
        "c.yaml",
    )
    event = {"k": "a", "n": 1, "ts": ARRIVED_MS, "due": ARRIVED_MS + 200 * DAY_MS}
    assert numbers(processed(None, of, json.dumps(event).encode())) == [1]


@pytest.mark.parametrize("number", [b"1e25", b"-1e300", b"1" + b"0" * 400])
def test_a_number_that_no_clock_counts_to_costs_only_itself(number: bytes) -> None:
    """Its digits are more than are divided."""
    for unit in ("s", "ms", "us", "ns"):
        good = json.dumps({"k": "a", "n": 1, "ts": "2026-03-01"}).encode()
        found = processed(None, contract(time=f", epoch: {unit}"), good, b'{"k":"a","n":2,"ts":%s}' % number)
        assert numbers(found) == [1]
        assert len(found.letters) == 1
