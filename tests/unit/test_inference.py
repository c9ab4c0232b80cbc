"""A contract that is proposed from samples is kept by all of them, whatever they hold."""

import csv
import io
import json
import math
import tempfile
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headwater.contract import Contract, parse_contract
from headwater.contract.inference import contract_yaml
from headwater.errors import UsageError
from headwater.producers.files.files import read_events
from headwater.producers.files.samples import read_samples
from tests.cli import headwater

NOON = "2026-03-01T12:00:00Z"
Rows = list[dict[str, Any]]


def ndjson(rows: Rows) -> tuple[str, bytes]:
    return "f.ndjson", b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def as_csv(rows: Rows) -> tuple[str, bytes]:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows([row[name] for name in rows[0]] for row in rows)
    return "f.csv", out.getvalue().encode()


def parquet(rows: Rows) -> tuple[str, bytes]:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return "f.parquet", sink.getvalue().to_pybytes()


def proposed(file: tuple[str, bytes], **asked: str) -> tuple[Contract, list[str], int]:
    """The contract, read again from what is printed; the rows that none can have; how many of the file keep it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, file[0])
        path.write_bytes(file[1])
        samples, refused = read_samples(path)
        contract = parse_contract(contract_yaml(samples.propose("c", **asked)), "printed")
        broken: list[str] = []
        taken = sum(
            table.num_rows for table in read_events(path, contract, on_invalid=lambda *one: broken.append(str(one)))
        )
    assert len(broken) == len(refused), (broken, refused, contract_yaml(contract))
    return contract, refused, taken


def types(contract: Contract) -> dict[str, str]:
    return {field.name: field.type + ("" if field.required else "?") for field in contract.fields}


SAMPLE: Rows = [
    {"who": "d1", "at": NOON, "n": 1, "value": 1, "on": True, "day": "2026-03-01", "more": None},
    {"who": "d2", "at": "2026-03-01 12:00", "n": 2, "value": 1.5, "on": False, "day": "2026-03-02", "more": "x"},
]


@pytest.mark.parametrize("written", [ndjson, as_csv])
def test_types_are_the_narrowest_that_hold_all(written: Callable[[Rows], tuple[str, bytes]]) -> None:
    contract, refused, taken = proposed(written(SAMPLE))
    assert (refused, taken, contract.key, contract.time) == ([], 2, "who", "at")
    assert types(contract) == {
        "who": "string", "at": "timestamp", "n": "long", "value": "double", "on": "boolean", "day": "date",
        "more": "string?",
    }  # fmt: skip


def test_parquet_has_its_own_types() -> None:
    """Those that a contract lacks are kept as JSON, and a time keeps its microseconds."""
    row = {"who": "d", "at": datetime(2026, 3, 1, tzinfo=UTC), "day": date(2026, 3, 1), "price": Decimal("1.10"),
           "tags": ["a"], "raw": b"\xff", "n": 7}  # fmt: skip
    contract, refused, taken = proposed(parquet([row, row | {"tags": None}]))
    assert (refused, taken) == ([], 2)
    assert types(contract) == {
        "who": "string", "at": "timestamp", "day": "date", "price": "decimal(38, 2)", "tags": "json?", "raw": "binary",
        "n": "long",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("number", "unit"),
    [(1_772_366_400, "s"), (1_772_366_400_000, "ms"), (1_772_366_400_000_000, "us"), (1_772_366_400_000_000_000, "ns")],
)
def test_numbers_are_times_in_the_unit_that_fits(number: int, unit: str) -> None:
    """Of a field that is named like a time; others stay numbers."""
    for written in (ndjson, as_csv):
        contract, _, taken = proposed(written([{"k": "a", "n": 1_772_366_400_000, "event_ts": number}]))
        assert (contract.time, contract.field("event_ts").epoch, taken) == ("event_ts", unit, 1)
        assert contract.field("n").type == "long"


def test_names_that_no_field_has_are_read_from_where_they_are() -> None:
    row = {"instance-id": "i", "Instance_Id": "j", "a.b": 1, "@timestamp": NOON, "": 5, "größe": 2, "9": {"x": [1]}}
    contract, refused, taken = proposed(ndjson([row]))
    assert (refused, taken, contract.unknown) == ([], 1, "rest")
    assert [field.name for field in contract.fields] == [
        "instance_id", "Instance_Id_2", "a_b", "timestamp", "gr_e", "f_9", "rest",
    ]  # fmt: skip
    with pytest.raises(UsageError, match='column "a-b": a field\'s name is letters'):
        proposed(("f.csv", b"a-b,ts\n1,2026-03-01\n"))


def test_what_is_lost_as_a_number_stays_text() -> None:
    """Leading zeros, digits beyond 64 bits, and what is no number to all."""
    contract, _, _ = proposed(("f.csv", b"k,ts,zip,big,hex\na,2026-03-01,00123,12345678901234567890,0x1A\n"))
    assert types(contract) | {"ts": ""} == {"k": "string", "ts": "", "zip": "string", "big": "string", "hex": "string"}
    assert contract.field("ts").type == "timestamp"


def test_the_command(tmp_path: Path) -> None:
    """It prints YAML; with rows that no contract can have it says so, and exits 1."""
    file = tmp_path / "f.ndjson"
    file.write_text('{"id": "a", "t": "2026-03-01"}\n{"id": "b", "t": "2026-03-02"}\nnonsense\n')
    found = headwater("contract", "infer", str(file), "--name", "orders")
    assert (found.code, found.err.count("\n")) == (1, 1)
    assert "1 rows can be kept by no contract, the first is row 3: not JSON" in found.err
    assert parse_contract(found.out, "out").name == "orders"
    headwater("contract", "infer", str(file), "--key", "nothing").failed(2, 'field "nothing" cannot be the key')
    file.write_text('{"id": "a"}\n')
    headwater("contract", "infer", str(file)).failed(2, "no field is a time in all of the events")


NAMES = st.sampled_from(["id", "Id", "ts", "at", "a-b", "a.b", "a_b", "value", "", "n", "x" * 70, "é"])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0, 1, 1_772_366_400, 1_772_366_400_000, 2**53, -1])
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from([NOON, "2026-03-01", "12:00", "NA", "1", "true", "", "\ud800", "{}", "9999-12-31T23:59:59.999Z"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
TIMES = st.sampled_from([NOON, "2026-03-01", "2026-03-01T12:00:00.123456+01:00"])


@example([{"id": [math.inf], "when": NOON}, {"when": NOON}])
@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.builds(lambda row, at: row | {"when": at}, st.dictionaries(NAMES, JSON, max_size=5), TIMES),
        min_size=1,
        max_size=40,
    )
)
def test_whatever_json_is_sampled_keeps_the_proposal(rows: Rows) -> None:
    """But for rows with what no contract can hold, each of which is named."""
    try:
        _, refused, taken = proposed(ndjson(rows))
    except UsageError as error:
        assert "there are no events" in str(error)  # noqa: PT017 (most rows raise nothing)
        return
    assert taken == len(rows) - len(refused)


TEXTS = st.sampled_from(
    ["", "a", "NA", "null", "1", "0", "-1", "007", "+1", "1.0", "1e3", "1e400", "true", "False", "2026-03-01", NOON,
     "1772366400", "1772366400000", "12345678901234567890", "9007199254740993", ' "', "a,b", "0x1A", "1_000", " 7"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.fixed_dictionaries({"id": TEXTS, "x": TEXTS, "when": TIMES}), min_size=1, max_size=40))
def test_whatever_csv_is_sampled_keeps_the_proposal(rows: Rows) -> None:
    _, refused, taken = proposed(as_csv(rows))
    assert (refused, taken) == ([], len(rows))


def test_a_time_with_microseconds_keeps_them() -> None:
    """As text, as Parquet has it, and counted; and a text that looks like a UUID or a time of day stays one."""
    at = {
        "k": "a",
        "at": "2026-03-01T12:00:00.000005Z",
        "id": "01234567-89ab-cdef-0123-456789abcdef",
        "clock": "12:30:00",
    }
    for written in (ndjson, as_csv):
        contract, refused, taken = proposed(written([at, at | {"at": "2026-03-01T12:00:00Z"}]))
        assert (types(contract), refused, taken) == (
            {"k": "string", "at": "timestamp_us", "id": "string", "clock": "string"}, [], 2,
        )  # fmt: skip
    contract, _, _ = proposed(parquet([{"k": "a", "at": datetime(2026, 3, 1, 0, 0, 0, 5, UTC), "t": time(1)}]))
    assert types(contract) == {"k": "string", "at": "timestamp_us", "t": "time"}
    contract, _, _ = proposed(ndjson([{"k": "a", "event_ts": 1_772_366_400_000_005}]))
    assert (contract.field("event_ts").type, contract.field("event_ts").epoch) == ("timestamp_us", "us")
