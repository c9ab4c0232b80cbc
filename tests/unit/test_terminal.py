"""What commands and services say to whoever watches them."""

import json
import logging
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater import Pipeline
from headwater.commands.data import _Done, _print_done
from headwater.commands.views import _typed
from headwater.errors import UsageError
from headwater.sinks.views.items import key_parts, key_text
from headwater.testing import run_pipeline
from tests.called import called

EVENT = {"device": "d", "metric": "m", "ts": "2026-03-01T12:00:00Z", "value": 1.5}
TIMES = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
VALUES = {
    pa.string(): st.text(),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.float64(): st.floats(allow_nan=False),
    pa.bool_(): st.booleans(),
    pa.timestamp("ms", "UTC"): TIMES.map(lambda one: one.replace(microsecond=one.microsecond // 1000 * 1000)),
    pa.date32(): st.dates(date(1900, 1, 1), date(2200, 1, 1)),
}
KINDS = [*VALUES, pa.binary(16), pa.decimal128(9, 2), pa.time64("us"), pa.timestamp("us", "UTC")]
KEYS = st.sampled_from(sorted(VALUES, key=str)).flatmap(lambda kind: st.tuples(st.just(kind), VALUES[kind] | st.none()))


@given(st.lists(KEYS, min_size=1, max_size=3))
def test_a_key_of_any_type_is_found_as_it_is_written(key: list[tuple[pa.DataType, object]]) -> None:
    """`view get` reads what `view list` shows."""
    schema = pa.schema([(f"c{at}", kind) for at, (kind, _) in enumerate(key)])
    text = key_text([value for _, value in key])
    assert key_text(_typed("v", schema.names, key_parts(text), schema)) == text


@pytest.mark.parametrize(
    ("kind", "typed", "text"),
    [
        (pa.float64(), "1", "1.0"),
        (pa.binary(16), "01234567-89AB-cdef-0123-456789abcdef", "01234567-89ab-cdef-0123-456789abcdef"),
        (pa.decimal128(9, 2), "1.5", "1.50"),
        (pa.time64("us"), "13:45", "13:45:00"),
        (pa.timestamp("us", "UTC"), "2026-03-01T12:00:00+01:00", "2026-03-01T11:00:00.000000Z"),
        (pa.bool_(), "true", "True"),
        (pa.timestamp("ms", "UTC"), "2026-03-01T12:00:00Z", "2026-03-01T12:00:00+00:00"),
        (pa.timestamp("ms", "UTC"), "2026-03-01 13:00+01:00", "2026-03-01T12:00:00+00:00"),
    ],
)
def test_a_key_may_be_typed_as_people_write_it(kind: pa.DataType, typed: str, text: str) -> None:
    assert key_text(_typed("v", ["c"], [typed], pa.schema([("c", kind)]))) == text


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != pa.string()])
def test_a_key_of_another_type_is_refused(kind: pa.DataType) -> None:
    """Rather than not found."""
    with pytest.raises(UsageError, match=r"view v is keyed by c, which is .*: not 'dev-1'"):
        _typed("v", ["c"], ["dev-1"], pa.schema([("c", kind)]))


def test_a_key_for_no_contract_is_not_made() -> None:
    """It could write nothing, and nobody would learn why."""
    called("keys", "create", "x", "--contracts", "telemetry,nosuch").failed(2, "no contract 'nosuch'", "telemetry")


def test_rows_that_break_the_contract_count_among_all(capsys: pytest.CaptureFixture[str]) -> None:
    """Three of four, not three of three."""
    done = _Done("f", events=3, delivered=3, retried=0, seconds=1.0, invalid=("row 2: no value",))
    _print_done(done, as_json=False)
    assert "3 of 4 events delivered" in capsys.readouterr().out
    _print_done(done, as_json=True)
    assert json.loads(capsys.readouterr().out)["invalid"] == ["row 2: no value"]


def test_each_commit_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    """With what it has come to."""
    caplog.set_level(logging.INFO, "headwater")
    run_pipeline(Pipeline("p", "telemetry").lake("p"), [EVENT, EVENT])
    (line,) = (one for one in caplog.records if one.getMessage() == "committed")
    assert (vars(line)["events"], vars(line)["files"], vars(line)["closed"]) == (2, 1, False)
