"""Hold the count of what JSON has, made before it is read, to its values; what its texts have is none."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.codec import bounds
from headwater.codec.bounds import check_containers, check_values, has_many
from headwater.config import GatewaySettings
from headwater.contract import load_contract
from headwater.errors import InvalidRecord
from headwater.producers.gateway.otlpbodies import parse_export

TEXT = st.text(st.sampled_from('[{":,\\\\}]aé😀'))
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)
)


def counted(value: Any) -> tuple[int, int, int]:
    """Return how many objects and lists, names, and commas a value has."""
    if not isinstance(value, list | dict):
        return 0, 0, 0
    inner = [counted(one) for one in (value.values() if isinstance(value, dict) else value)]
    names = len(value) if isinstance(value, dict) else 0
    containers, colons, commas = (sum(one[at] for one in inner) for at in range(3))
    return containers + 1, colons + names, commas + max(len(value) - 1, 0)


@given(VALUES, st.sampled_from([1, 7, 1 << 20]), st.booleans())
def test_the_marks_outside_of_texts_are_those_of_its_values(value: Any, part: int, plain: bool) -> None:
    """Cut it into parts of any size, with whatever is escaped."""
    text = json.dumps(value, ensure_ascii=plain).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounds, "_CHUNK", part)
        assert tuple(bounds._marks_outside(text)) == counted(value)


def test_brackets_within_texts_are_no_values() -> None:
    body = json.dumps({"text": json.dumps([{"a": [1]}] * 600_000)}).encode()
    check_containers(body)
    check_values(body)
    assert not has_many(body)


@pytest.mark.parametrize("text", [b"", b"[" * (2 << 20)], ids=["plain", "with a text of brackets"])
def test_a_text_makes_no_room_for_names(text: bytes) -> None:
    """Take no bracket in a text for an object, of which each has few names on average."""
    body = b'{"text":"%s",%s}' % (text, b",".join(b'"%d":1' % at for at in range(600_000)))
    with pytest.raises(InvalidRecord, match="too many"):
        check_values(body)


def test_an_export_may_have_json_in_its_texts() -> None:
    record = {"timeUnixNano": "1772366400000000000", "body": {"stringValue": json.dumps([{"a": [1]}] * 20)}}
    body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record] * 20_000}]}]})
    found = parse_export(body.encode(), True, load_contract("otel_logs"), GatewaySettings(), 1_772_366_400_000)
    assert (found.total, found.invalid) == (20_000, ())
