"""What is read in few passes over many values is what each gives by itself."""

import json
from typing import Any

import pyarrow as pa
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from headwater.codec.jsonrows import event_texts, json_objects, split_objects
from headwater.contract import Field, parse_contract
from headwater.contract.conversion import seconds_column
from headwater.contract.selection import select_column, select_columns
from headwater.contract.text import text_column, text_value
from headwater.contract.values import read_value
from headwater.errors import InvalidRecord
from headwater.formats import opentelemetry

PIECES = ['{"a":1}', '{"a":{"b":[1,{"c":"}{"}]}}', "{}", "[]", '[{"a":1}]', "1", '"x"', "{", "}", '{"a":', "NaN",
          '{\n"a":1}', " ", "\n", "\r\n", "\t", "\0", "\x1e", ",", "\ufeff", '{"a":"\\ud800"}', "é"]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join), st.booleans())
@example('{"a":1}\n{"a":2}\n', True)
@example(' {"a":1}', False)
def test_json_is_read_once_as_it_is_read_twice(text: str, lines: bool) -> None:
    """Whatever was read apart into texts first, and each of them then, has the same values."""
    data, texts = text.encode(), split_objects if lines else event_texts
    try:
        apart = [json.loads(one) for one in texts(data.strip())]
    except (ValueError, InvalidRecord):
        return
    assert repr(json_objects(data, texts)) == repr(apart)


CELLS = st.lists(
    st.one_of(
        st.sampled_from(["", "NA", "nan", "inf", "1_000", " 1", "+5", "-0", "1e3", "5.", ".5", "+", "1-2", "12345", "²",
                         "١", "9" * 29, "9" * 30, "9007199254740993.0", "true", "2026-03-01T12:00:00Z", "e5", "1e999"]),
        st.integers(-(10**20), 10**20).map(str),
        st.floats().map(str),
    ),
    min_size=1,
    max_size=5,
)  # fmt: skip


@given(st.sampled_from(["string", "boolean", "int", "long", "float", "double", "timestamp", "decimal(9, 2)"]),
       st.booleans(), CELLS)  # fmt: skip
def test_a_column_of_texts_is_read_as_each_text(kind: str, required: bool, cells: list[str]) -> None:
    """One that is read apart among them, too."""
    field = Field("x", kind, required=required)
    found = text_column(field, pa.chunked_array([pa.array(cells)]))
    read = found.to_pylist() if isinstance(found, pa.ChunkedArray) else found
    assert repr(read) == repr([text_value(field, cell) for cell in cells])


@given(st.lists(st.one_of(
    st.integers(0, 4 * 10**15).map(lambda us: us / 1e6), st.integers(-(10**12), 10**12).map(lambda ms: ms / 1e3),
    st.integers(0, 4 * 10**15).map(lambda us: float(f"{us // 10**6}.{us % 10**6:06}")), st.floats(-5e9, 5e9)),
    min_size=1, max_size=3))  # fmt: skip
def test_seconds_are_the_microseconds_that_were_written(values: list[float]) -> None:
    """As the decimal of each float says, or they are left to be read one by one."""
    field = Field("x", "timestamp_us", epoch="s", earliest_ms=-(10**15))
    found = seconds_column(values)
    if found is not None:
        assert found.to_pylist() == [read_value(field, value) for value in values]
    else:
        assert any(value != round(value, 6) or abs(value) >= 2**32 for value in values)


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.binary(max_size=4), st.text()
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=5,
)


def any_value(value: Any) -> AnyValue:
    made = AnyValue()
    if isinstance(value, bool):
        made.bool_value = value
    elif isinstance(value, int):
        made.int_value = value
    elif isinstance(value, float):
        made.double_value = value
    elif isinstance(value, bytes):
        made.bytes_value = value
    elif isinstance(value, str):
        made.string_value = value
    elif isinstance(value, list):
        made.array_value.values.extend(map(any_value, value))
    elif isinstance(value, dict):
        made.kvlist_value.values.extend(KeyValue(key=key, value=any_value(one)) for key, one in value.items())
    return made


@given(st.lists(st.tuples(st.text(max_size=3), VALUES), max_size=4))
def test_attributes_are_written_as_json_writes_them(pairs: list[tuple[str, Any]]) -> None:
    """Any text, any value, and of one name that comes twice the last."""
    listed = [KeyValue(key=key, value=any_value(value)) for key, value in pairs]
    plain = opentelemetry._attributes(listed, 32)
    assert opentelemetry._attributes_text(listed, 32) == json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


OBJECTS = st.recursive(
    st.one_of(st.none(), st.integers(0, 3)),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b", "old"]), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(OBJECTS.filter(lambda one: isinstance(one, dict)), max_size=4))
def test_fields_are_found_together_as_alone(events: list[dict[str, Any]]) -> None:
    """Where an object lacks, is null, or is something else."""
    of = parse_contract(
        "{name: c, version: 1, key: k, time: ts, unknown: rest, fields: [{name: k, type: string, from: a.b}, "
        "{name: ts, type: timestamp, from: a.a.b}, {name: a, type: long, was: [old]}, {name: b, type: long}, "
        "{name: rest, type: json, required: false}]}",
        "c",
    )
    assert [*select_columns(of, events)] == [select_column(of, field.name, events) for field in of.fields]
