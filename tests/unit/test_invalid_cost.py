"""Events that break their contract cost a bounded multiple of valid ones: no pass over them is made again and again."""

import json
import tracemalloc
from typing import Any

import pyarrow as pa
import pyarrow.json as pj
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.codec import decode_record, jsonrows, rows
from headwater.codec.decoded import Decoded
from headwater.codec.records import Decoder, decode_contents
from headwater.codec.rows import Row, Unread
from headwater.contract import Contract, load_contract, parse_contract
from headwater.errors import InvalidRecord
from headwater.lineage.origins import OriginSets
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.engine import Engine
from headwater.processors.engine.state import ShardState
from headwater.processors.operators.enrich import ReferenceTable
from headwater.stream.record import StreamRecord
from tests.codecs import CONTRACT as READING
from tests.codecs import rows as reading_rows
from tests.typed import ipc

CONTRACT = load_contract("telemetry")
EVENT = {"device": "d", "metric": "m", "ts": 1_772_366_400_000, "value": 0.5}
COUNT = 2_000


@pytest.mark.parametrize("every", [1, 7, 100, COUNT])
@pytest.mark.parametrize(
    "broken", [{"value": "x"}, {"ts": "never"}, {"more": 1}, {"device": None}, {"device": "d" * 1025}]
)
def test_each_event_is_read_in_two_passes_at_most_and_by_itself(
    monkeypatch: pytest.MonkeyPatch, every: int, broken: dict[str, Any]
) -> None:
    """However many break it. Halving until a part is good read each event eight times."""
    rows, read = [EVENT | (broken if at % every == 0 else {}) for at in range(COUNT)], 0
    real = pj.read_json

    def counting(text: Any, **options: Any) -> Any:
        nonlocal read
        read += text.size()
        return real(text, **options)

    monkeypatch.setattr(pj, "read_json", counting)
    data = b"\n".join(json.dumps(row).encode() for row in rows)
    found = decode_record(data, CONTRACT)
    assert isinstance(found, Decoded)
    assert (len(found.invalid), found.table.num_rows) == (
        len(range(0, COUNT, every)),
        COUNT - len(range(0, COUNT, every)),
    )
    assert [row.index for row in found.invalid] == list(range(0, COUNT, every))
    assert read <= 2 * len(data)


@pytest.mark.parametrize("broken", [{"value": "x"}, {"seq": "x"}, {}])
def test_events_of_one_record_are_taken_for_seen_together(
    monkeypatch: pytest.MonkeyPatch, broken: dict[str, Any]
) -> None:
    """One after the other each looked through all sets of the shard: a millisecond an event."""
    pipeline, calls = Pipeline("p", READING).lake("p"), 0
    real = OriginSets.add

    def counting(self: OriginSets, *arrays: Any) -> Any:
        nonlocal calls
        calls += 1
        return real(self, *arrays)

    def no_reference(name: str, uri: str) -> ReferenceTable:
        raise LookupError(name, uri)

    monkeypatch.setattr(OriginSets, "add", counting)
    engine = Engine(pipeline, "shard-0", ShardState(pipeline), no_reference)
    data = b"\n".join(json.dumps(row | broken).encode() for row in reading_rows(300))
    found = engine.process([StreamRecord("shard-0", "1", 1_772_366_500_000, "k", data)])
    assert len(found.letters) == (300 if broken else 0)
    assert calls <= 3


@given(
    st.lists(
        st.sampled_from([{}, {"value": "x"}, {"value": 3}, {"ts": "2026-03-01T12:00:00Z"}, {"unit": 1}]), max_size=600
    )
)
def test_in_whatever_order_they_come_the_same_are_valid(changes: list[dict[str, Any]]) -> None:
    """Each by itself says what it is."""
    rows = [json.dumps(EVENT | change).encode() for change in changes]
    alone = {at for at, row in enumerate(rows) if decode_record(row, CONTRACT).invalid}  # type: ignore[union-attr]  # each row is an event
    if rows:
        found = decode_record(b"\n".join(rows), CONTRACT)
        assert isinstance(found, Decoded)
        assert {row.index for row in found.invalid} == alone
        assert found.table.num_rows == len(rows) - len(alone)


WIDE = parse_contract(
    """
name: wide
version: 1
key: device
time: ts
fields:
  - {name: device, type: string}
  - {name: ts, type: timestamp}
  - {name: value, type: double}
  - {name: level, type: string, values: [low, high]}
  - {name: tags, type: list<string>}
  - {name: id, type: uuid}
""",
    "wide",
)
NOON = pa.scalar(1_772_366_400_000, pa.timestamp("ms", "UTC"))
GOOD = {
    "device": pa.scalar("d"),
    "ts": NOON,
    "value": pa.scalar(0.5),
    "level": pa.scalar("low"),
    "tags": pa.scalar(["a"]),
    "id": pa.scalar("00000000-0000-0000-0000-000000000001"),
}
REFUSED = "more than 10,000 of {:,} events break the contract; the first: row 0: field |cannot be read as double"
BROKEN = {
    "a number that is none": {"value": pa.scalar(float("nan"))},
    "a text for a number": {"value": pa.scalar("x")},
    "a time that nobody has": {"ts": pa.scalar(2**62)},
    "a text for a time": {"ts": pa.scalar("never")},
    "none of the values": {"level": pa.scalar("middle")},
    "no value": {"value": pa.scalar(None, pa.float64())},
    "no list": {"tags": pa.scalar(None, pa.list_(pa.string()))},
    "a text in a list": {"tags": pa.scalar("x")},
    "a key too long": {"device": pa.scalar("d" * 1_025)},
    "no uuid": {"id": pa.scalar("x" * 1_000)},
}


def shared(value: pa.Scalar, rows: int) -> pa.Array:
    """A column of one value, which stands in it once where it can."""
    if pa.types.is_nested(value.type):
        return pa.repeat(value, rows)
    return pa.DictionaryArray.from_arrays(
        pa.repeat(pa.scalar(0, pa.int32()), rows), pa.array([value.as_py()], value.type)
    )


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_no_batch_takes_memory_for_each_of_its_invalid_rows(broken: dict[str, pa.Scalar]) -> None:
    """It is refused at the first 10,000, whatever is wrong: 900,000 of them took 309 MiB and 11 s."""

    def peak(rows: int) -> int:
        data = ipc(pa.table({name: shared(value, rows) for name, value in (GOOD | broken).items()}))
        tracemalloc.start()
        try:
            with pytest.raises(InvalidRecord, match=REFUSED.format(rows)):
                decode_record(data, WIDE)
        finally:
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return most

    assert peak(150_000) - peak(30_000) < 120_000 * 40


LOOKED_FOR = parse_contract(
    "{name: t, version: 1, key: d, time: ts, fields: [{name: d, type: long, from: x.d}, {name: ts, type: timestamp}]}",
    "t.yaml",
)
WAYS: dict[str, tuple[Contract, bytes, Decoder | None]] = {
    "JSON, a text for a number": (CONTRACT, json.dumps(EVENT | {"value": "x"}).encode(), None),
    "JSON, an unknown field": (CONTRACT, json.dumps(EVENT | {"more": 1}).encode(), None),
    "JSON that is broken": (CONTRACT, b'{"device":1,}', None),
    "JSON, fields that are looked for": (LOOKED_FOR, b'{"x":{"d":"a"},"ts":0}', None),
    "rows": (CONTRACT, b"", lambda data: [EVENT | {"value": "x"}] * len(data)),
    "rows that cannot be read": (CONTRACT, b"", lambda data: [Unread("it is none", b"x")] * len(data)),
}


@pytest.mark.parametrize(("contract", "event", "decoder"), WAYS.values(), ids=WAYS)
def test_no_record_is_judged_far_beyond_its_first_10000_invalid_events(
    monkeypatch: pytest.MonkeyPatch, contract: Contract, event: bytes, decoder: Decoder | None
) -> None:
    """It becomes one letter as a whole: 64 MiB of them were all judged in words first, which took 16 s of CPU."""
    judged = 0

    def counted(real: Any) -> Any:
        def conform(contract: Contract, part: Any, *more: Any) -> Any:
            nonlocal judged
            judged += len(part)
            return real(contract, part, *more)

        return conform

    for module, name in ((jsonrows, "conform_rows"), (rows, "conform_rows"), (rows, "conform_events")):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    with pytest.raises(InvalidRecord, match="more than 10,000 of 200,000 events break the contract; the first: row 0:"):
        decode_contents((event + b"\n") * 200_000, contract, decoder)
    assert judged <= 70_000


def test_events_that_a_decoder_cannot_read_count_with_the_others() -> None:
    """Towards the most that may be invalid, and in the number of the first."""
    good, broken, unread = EVENT, EVENT | {"value": "x"}, Unread("torn", b"x")
    assert len(rows.decode_rows([unread, good, broken, unread], CONTRACT, most=3).invalid) == 3
    cases: list[tuple[list[Row | Unread], str]] = [
        ([good, unread, broken], "row 1: torn"),
        ([good, broken, unread, good], "row 1: field value"),
    ]
    for mixed, first in cases:
        with pytest.raises(InvalidRecord, match=f"more than 1 of {len(mixed)} events .* the first: {first}"):
            rows.decode_rows(mixed, CONTRACT, most=1)
