"""A key of any type is known by its value, however it is written, and in whatever column it lies."""

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.aggregates import count
from headwater.codec import encode_batch
from headwater.contract import Field, conform, parse_contract
from headwater.contract.keyvalues import KeyValue
from headwater.contract.types import NOT_KEYS, TYPES
from headwater.errors import HeadwaterError
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.engine import Engine
from headwater.processors.engine.state import ShardState
from headwater.processors.erasure.letters import KeyLetters
from headwater.sinks.deadletter import DeadLetter
from headwater.sinks.views.items import key_text
from headwater.stream.record import StreamRecord

KEYS: dict[str, tuple[list[Any], str]] = {
    "string": (["a", "a ", "A"], "a"),
    "boolean": ([True, False], "true"),
    "int": ([7, 77, -7], "07"),
    "long": ([2**62, 2**62 - 1, 0], "4611686018427387904"),
    "float": ([0.1, 0.10000001, -0.1], "0.10"),
    "double": ([1e22, 1.0000000000000002e22, 0.0], "1e22"),
    "timestamp": ([1_790_000_000_001, 1_790_000_000_002, 1_790_000_000_000], "2026-09-21T14:13:20.001+00:00"),
    "timestamp_us": (
        ["2026-09-21T14:13:20.000001Z", "2026-09-21T14:13:20.000002Z", "2026-09-21T14:13:20Z"],
        "2026-09-21T16:13:20.000001+02:00",
    ),
    "date": (["2026-03-01", "2026-03-02", "1969-12-31"], "2026-03-01"),
    "time": (["12:00:00.5", "12:00:00.500001", "00:00:00"], "12:00:00.500"),
    "uuid": (
        ["00000000-0000-0000-0000-0000000000ff", "ff000000-0000-0000-0000-000000000000"],
        "00000000-0000-0000-0000-0000000000FF",
    ),
    "decimal(38, 10)": (
        ["1.5", "1.5000000001", "1234567890123456789012345678.0123456789"],
        "1.50",
    ),
}
"""Keys by type, the first of which is forgotten, and another way of writing it."""


def contract(kind: str) -> Any:
    fields = f"{{name: k, type: '{kind}'}}, {{name: ts, type: timestamp}}, {{name: n, type: long}}"
    return parse_contract(f"{{name: keyed, version: 1, key: k, time: ts, fields: [{fields}]}}", "here")


def test_each_type_that_a_key_can_have_is_here() -> None:
    assert {kind.partition("(")[0] for kind in KEYS} == {*TYPES, "decimal"} - NOT_KEYS


def column(kind: str) -> pa.ChunkedArray:
    """The keys as a batch has them."""
    rows = [{"k": key, "ts": datetime(2026, 9, 21, tzinfo=UTC), "n": 1} for key in KEYS[kind][0]]
    given = pa.array([row["k"] for row in rows])
    found = conform(contract(kind), pa.table({"k": given, "ts": [row["ts"] for row in rows], "n": [1] * len(rows)}))
    assert not found.invalid
    return found.table["k"]


@pytest.mark.parametrize("kind", KEYS)
def test_a_column_has_the_key_where_its_value_is(kind: str) -> None:
    """As the lake, batches, and the tables of views have it; plain, coded, with nulls, and as text."""
    first, values = KeyValue(Field("k", kind), KEYS[kind][1]), column(kind)
    wanted = [True] + [False] * (len(values) - 1)
    for key in (first, KeyValue(Field("k", kind), first.text)):
        plain = values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values
        forms = [plain, plain.combine_chunks().dictionary_encode()]
        if pa.types.is_timestamp(plain.type):
            forms += [
                plain.cast(pa.timestamp("us", "UTC")),
                plain.cast(pa.timestamp("us")),
                plain.cast(pa.timestamp("ns")),
            ]
        if kind in ("int", "float"):
            forms += [plain.cast({"int": pa.int64(), "float": pa.float64()}[kind])]
        forms += [pa.array([key_text([one]) for one in state_keys(kind)])]
        for form in forms:
            assert key.among(form).to_pylist() == wanted, (kind, form.type)
        longer = pa.concat_arrays([plain.combine_chunks(), pa.nulls(1, plain.type)])
        assert key.among(longer).to_pylist() == [*wanted, False]
        assert [key.matches(one) for one in plain.to_pylist()] == wanted


def state_keys(kind: str) -> list[object]:
    """The keys as a shard's state has them."""
    state = state_of(kind)
    group, _, _ = state.views["v"]._slots.columns()
    return [key for (key,) in state.views["v"].groups.keys(group)]


def state_of(kind: str) -> ShardState:
    pipeline = Pipeline("p", contract(kind)).view("v", by=["k"], n=count()).lake("p")
    rows = pa.table({"k": column(kind), "ts": pa.array([0] * len(KEYS[kind][0]), pa.timestamp("ms", "UTC"))})
    data = encode_batch(rows.append_column("n", pa.array([1] * rows.num_rows)), pipeline.contract)
    state = ShardState(pipeline)
    Engine(pipeline, "shardId-000000000000", state, lambda *_: pytest.fail("no references")).process(
        [StreamRecord("shardId-000000000000", "1", 1_790_000_000_000, "k", data)]
    )
    return state


@pytest.mark.parametrize("kind", KEYS)
def test_a_state_loses_the_slots_of_the_key_alone(kind: str) -> None:
    state, key = state_of(kind), KeyValue(Field("k", kind), KEYS[kind][1])
    several = len(KEYS[kind][0])
    state = ShardState.loads(Pipeline("p", contract(kind)).view("v", by=["k"], n=count()).lake("p"), state.dumps())
    assert (len(state.views["v"]), state.forget(key, is_origin=False)) == (several, 1)
    assert (len(state.views["v"]), state.forget(key, is_origin=False)) == (several - 1, 0)


@pytest.mark.parametrize("kind", KEYS)
def test_letters_have_the_key_however_it_is_written_there(kind: str) -> None:
    """As a valid value of an event that breaks the contract elsewhere, as another text of it, and in what is broken."""
    keys, other = KEYS[kind]
    pipeline = Pipeline("p", contract(kind))
    key = KeyValue(pipeline.contract.field("k"), other)

    def found(payload: bytes, index: int | None) -> bool | None:
        about = KeyLetters(pipeline, key)
        has = about.has(DeadLetter("shardId-0", "7", index, "why", None, None, payload, "keyed", 0))
        return None if about.doubtful else has

    for index in (0, None):
        texts = [json.dumps({"k": one, "n": "x"}).encode() for one in keys]
        assert [found(text, index) for text in texts] == [True] + [False] * (len(keys) - 1)
        assert found(json.dumps({"k": other, "n": "x"}).encode(), index) is True
        broken = [json.dumps({"n": "z", "k": one}).encode()[:-1] + b", " for one in keys]
        assert found(broken[0], index) is None
        if kind != "string":  # of "a " the whole value "a" is a part
            assert [found(text, index) for text in broken[1:]] == [False] * (len(keys) - 1)


@pytest.mark.parametrize("kind", [kind for kind in KEYS if kind != "string"])
def test_what_no_key_of_the_type_can_be_is_one_line(kind: str) -> None:
    with pytest.raises(HeadwaterError, match=r'^key: field k: "1/2" (is|does|may) [^\n]+$'):
        KeyValue(Field("k", kind), "1/2")


@given(st.sampled_from(sorted(KEYS)), st.text() | st.from_regex(r"[-+0-9.eE:TZ]{1,40}", fullmatch=True), st.text())
def test_any_text_is_a_key_or_refused(kind: str, text: str, other: str) -> None:
    try:
        key = KeyValue(Field("k", kind), text)
    except HeadwaterError:
        return
    assert key.matches(text)
    assert key.matches(key.text)
    assert key.matches(other) in (True, False)


def test_zero_has_one_text() -> None:
    """By it a call that was interrupted finds what it had begun."""
    assert {KeyValue(Field("k", "double"), text).text for text in ("0", "-0", "-0.0", "0e5")} == {"0"}
