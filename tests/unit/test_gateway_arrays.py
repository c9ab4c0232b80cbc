"""JSON arrays as bodies: the same verdict as of reading all of it at once, without holding all of it."""

import json
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headwater.contract import load_contract
from headwater.producers.gateway.bodies import BodyLimits, parse_body
from headwater.web.problems import Problem

TELEMETRY = load_contract("telemetry")


def status(body: bytes, rows: int = 100_000) -> tuple[int, str]:
    """Of the problem that a body is; 200 when it is none."""
    try:
        parse_body(body, "json", TELEMETRY, BodyLimits(rows))
    except Problem as problem:
        return problem.status, problem.detail
    return 200, ""


PIECES = st.lists(
    st.sampled_from(["[", "]", "{", "}", ",", " ", "\n", "1", '"a"', ":", "null", "NaN", "\t", "x"]), max_size=12
)


@given(PIECES)
@example([","])
@example(["]", "x"])
@example(["1", ",", "]"])
@example(["1", "]", " ", "1"])
def test_what_is_no_json_is_told_at_the_place_where_python_tells_it(pieces: list[str]) -> None:
    text = ("[" + "".join(pieces)).strip()  # what the body is, without the space around it
    expected = ""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        expected = f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
    found, why = status(text.encode())
    assert (why if found == 400 else "") == expected


@pytest.mark.parametrize("unit", [b"1", b'"ab"', b"null"])
def test_more_values_than_rows_are_refused_before_they_are_held(unit: bytes) -> None:
    body = b"[" + (unit + b",") * 2_000_000 + unit + b"]"
    tracemalloc.start()
    try:
        found, _ = status(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == 413
    assert peak < 4 * len(body)


def test_as_many_values_as_rows_are_read() -> None:
    event = json.dumps({"device": "d", "metric": "m", "ts": "2026-03-01T12:00:00Z", "value": 1.0})
    assert status(f"[{event}, {event}]".encode(), 2) == (200, "")
    assert status(f"[{event}, {event}, {event}]".encode(), 2)[0] == 413
