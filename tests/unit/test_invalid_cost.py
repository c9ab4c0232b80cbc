"""Events that break their contract cost a bounded multiple of valid ones: no pass over them is made again and again."""

import json
from typing import Any

import pyarrow.json as pj
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.codec import decode_record
from headwater.codec.decoded import Decoded
from headwater.contract import load_contract
from headwater.lineage.origins import OriginSets
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.engine import Engine
from headwater.processors.engine.state import ShardState
from headwater.processors.operators.enrich import ReferenceTable
from headwater.stream.record import StreamRecord
from tests.codecs import CONTRACT as READING
from tests.codecs import rows as reading_rows

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
    alone = {at for at, row in enumerate(rows) if decode_record(row, CONTRACT).invalid}  # type: ignore[union-attr]
    if rows:
        found = decode_record(b"\n".join(rows), CONTRACT)
        assert isinstance(found, Decoded)
        assert {row.index for row in found.invalid} == alone
        assert found.table.num_rows == len(rows) - len(alone)
