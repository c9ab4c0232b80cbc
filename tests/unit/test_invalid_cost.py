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
