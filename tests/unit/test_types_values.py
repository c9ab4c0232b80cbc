"""Values as programs and other writers have them, of each type: Python's, Arrow's, Parquet's and Polars'."""

import json
from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headwater.clock import SystemClock
from headwater.codec import Decoded, decode_record, encode_batch, event_json
from headwater.contract import (
    InvalidRow,
    conform,
    parse_contract,
    validate_row,
)
from headwater.errors import InvalidEvent, InvalidRecord
from headwater.producers.files.files import read_events
from headwater.producers.gateway.bodies import BodyLimits, parse_body
from headwater.producers.outbox import Outbox
from headwater.producers.producer import Producer
from headwater.testing.kinesis import MemoryKinesis
from tests.typed import TS, arrow, batch, decoded, ipc, of, put, rows_of

VALUES: list[tuple[str, object, object]] = [
    ("decimal(5, 2)", Decimal("1.50"), Decimal("1.50")),
    ("decimal(5, 2)", 12, Decimal("12.00")),
    ("decimal(5, 2)", 0.1, Decimal("0.10")),
    ("decimal(5, 2)", Decimal("-0"), Decimal("0.00")),
    ("decimal(5, 2)", Decimal("1.005"), "nothing is rounded"),
    ("decimal(5, 2)", 0.1 + 0.2, "may have been rounded"),
    ("decimal(5, 2)", 1000, "does not fit"),
    ("decimal(5, 2)", 10**5000, "does not fit"),
    ("decimal(5, 2)", Decimal("NaN"), "not finite"),
    ("decimal(5, 2)", float("inf"), "not finite"),
    ("decimal(5, 2)", True, "no number"),
    (
        "decimal(38, 10)",
        Decimal("1234567890123456789012345678.0123456789"),
        Decimal("1234567890123456789012345678.0123456789"),
    ),
    ("decimal(38, 10)", float(2**53), "may have been rounded"),
    ("binary", b"\0\xff", b"\0\xff"),
    ("binary", b"", b""),
    ("binary", 5, "neither bytes"),
    ("binary", "A", "base64"),
    ("uuid", UUID(int=5), UUID(int=5).bytes),
    ("uuid", b"0123456789abcdef", b"0123456789abcdef"),
    ("uuid", b"short", "no UUID"),
    ("time", time(1, 2, 3, 4), time(1, 2, 3, 4)),
    ("time", 86_399_999_999, time(23, 59, 59, 999_999)),
    ("time", 86_400_000_000, "outside the day"),
    ("time", -1, "outside the day"),
    ("timestamp_us", datetime(2026, 1, 1, 0, 0, 0, 123_456, UTC), datetime(2026, 1, 1, 0, 0, 0, 123_456, UTC)),
    ("timestamp_us", datetime(1, 1, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)),
    ("timestamp", datetime(2026, 1, 1, 0, 0, 0, 123_456, UTC), datetime(2026, 1, 1, 0, 0, 0, 123_000, UTC)),
]


@pytest.mark.parametrize(("kind", "given_", "wanted"), VALUES, ids=range(len(VALUES)))
def test_values_of_python(kind: str, given_: Any, wanted: Any, tmp_path: Path) -> None:
    """`put` and `put_batch` take them alike, and so do an outbox and the dead letter that was made of it."""
    contract = of(kind)
    found = put(contract, given_)
    assert wanted in found if isinstance(wanted, str) and isinstance(found, str) else found == wanted
    try:
        column = pa.array([given_] * 3)
    except (pa.ArrowInvalid, OverflowError):
        return  # of no type of Arrow's
    if isinstance(found, str) and (pa.types.is_boolean(column.type) or kind == "binary"):
        return  # refused by the column's type
    assert batch(contract, column) == found
    if isinstance(found, str):
        return
    table = pa.table({"k": ["k"], "ts": [TS], "x": column[:1]})
    (again,) = event_json(conform(contract, table).table)
    assert decoded(again, contract) == found
    row = validate_row(contract, rows_of(given_, 1)[0])
    box = Outbox(tmp_path / "o.db", "s", contract, "o")
    box.add([row])
    box.close()
    box = Outbox(tmp_path / "o.db", "s", contract, "p")
    (kept,) = box.events()
    assert kept.rows == row
    box.close()


TYPED = {
    "decimal(5, 2)": [pa.decimal128(9, 4), pa.decimal256(50, 2), pa.decimal32(5, 2), pa.decimal64(7, 2)],
    "binary": [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(3)],
    "uuid": [pa.binary(16), pa.uuid(), pa.binary(), pa.large_binary()],
    "time": [pa.time64("us"), pa.time64("ns"), pa.time32("ms"), pa.time32("s")],
    "timestamp_us": [
        pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in ("UTC", None, "Asia/Tokyo")
    ],
}
SAMPLES: dict[str, Any] = {
    "decimal(5, 2)": Decimal("-7.25"),
    "binary": b"\0ab",
    "uuid": UUID(int=7).bytes,
    "time": time(1, 2, 3),
    "timestamp_us": datetime(2026, 1, 1, 5, tzinfo=UTC),
}


@pytest.mark.parametrize(("kind", "type_"), [(kind, one) for kind, types in TYPED.items() for one in types])
def test_columns_of_other_writers(kind: str, type_: pa.DataType, tmp_path: Path) -> None:
    """By `put_batch`, an Arrow body and a Parquet file, with nulls beside, sliced and in dictionaries."""
    contract, value = of(kind, ", required: false"), SAMPLES[kind]
    naive = value.replace(tzinfo=None) if pa.types.is_timestamp(type_) and not type_.tz else value
    stored = pa.binary(16) if type_ == pa.uuid() else type_
    column = pa.array([naive, None, naive], stored).cast(type_)
    wanted = [value, None, value]
    for one_ in (column, pa.concat_arrays([column, column]).slice(3, 3)):
        found = conform(contract, pa.table({"k": ["k"] * 3, "ts": [TS] * 3, "x": one_}))
        assert found.table["x"].to_pylist() == wanted
        sent = decode_record(encode_batch(found.table, contract), contract)
        assert isinstance(sent, Decoded)
        assert sent.table["x"].to_pylist() == wanted
    assert parse_body(arrow(column), "arrow", contract, BodyLimits()).table["x"].to_pylist() == wanted
    if pa.types.is_binary_view(type_):
        return
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"k": ["k"] * 3, "ts": [TS] * 3, "x": column}), path)
    assert pa.concat_tables(read_events(path, contract))["x"].to_pylist() == wanted


def test_an_unreadable_column_is_refused_by_its_type() -> None:
    for kind, column in {"uuid": pa.array([5]), "binary": pa.array([5]), "time": pa.array([1.5])}.items():
        with pytest.raises(InvalidEvent, match=f"cannot be read as {kind}"):
            conform(of(kind), pa.table({"k": ["k"], "ts": [TS], "x": column}))


def test_dead_letters_can_be_sent_again() -> None:
    """A batch's invalid event is written as JSON that reads as the event did, whatever the others' types."""
    fields = ", ".join(f"{{name: f{n}, type: '{kind}'}}" for n, kind in enumerate(SAMPLES))
    fields = f"{{name: k, type: string}}, {{name: ts, type: timestamp}}, {fields}, {{name: v, type: int, maximum: 1}}"
    contract = parse_contract(f"{{name: c, version: 1, key: k, time: ts, fields: [{fields}]}}", "c")
    row: dict[str, Any] = {"k": ["k"], "ts": [TS]}
    for n, value in enumerate(SAMPLES.values()):
        row[f"f{n}"] = pa.array([value], contract.field(f"f{n}").arrow_type)
    found = decode_record(ipc(pa.table(row | {"v": [2]})), contract)
    assert isinstance(found, Decoded)
    (letter,) = found.invalid
    assert isinstance(letter, InvalidRow)
    mended = json.loads(letter.event) | {"v": 1}
    again = decode_record(json.dumps(mended).encode(), contract)
    assert isinstance(again, Decoded)
    assert [again.table[f"f{n}"].to_pylist() for n in range(len(SAMPLES))] == [[value] for value in SAMPLES.values()]


def test_views_of_long_texts_are_bounded() -> None:
    """An Arrow stream of views names one text for many rows, which would be written out for each."""
    one, rows = pa.array(["x" * 1000], pa.string_view()).buffers(), 600_000
    views = pa.py_buffer(one[1].to_pybytes()[:16] * rows)
    column = pa.StringViewArray.from_buffers(pa.string_view(), rows, [None, views, one[2]])
    with pytest.raises(InvalidRecord, match="MiB of text"):
        decode_record(ipc(pa.table({"k": column})), of("uuid"))


def test_frames_of_polars_are_taken(tmp_path: Path) -> None:
    """Its texts are views, its lists large, and its categories dictionaries of views."""
    fields = "{name: k, type: string}, {name: ts, type: timestamp}, {name: l, type: list<string>}"
    more = "{name: d, type: 'decimal(9, 2)'}, {name: c, type: string}, {name: b, type: binary}, {name: t, type: time}"
    contract = parse_contract(f"{{name: c, version: 1, key: k, time: ts, fields: [{fields}, {more}]}}", "c")
    rows: dict[str, Any] = {"k": ["a", "b"], "ts": [datetime(2026, 3, 1, tzinfo=UTC)] * 2, "l": [["x"], []]}
    rows |= {"d": [Decimal("1.20"), Decimal("-3")], "b": [b"\0", b""], "t": [time(1), time(2)]}
    frame = pl.DataFrame(rows | {"c": pl.Series(["u", "v"], dtype=pl.Categorical)})
    kinesis = MemoryKinesis(SystemClock())
    kinesis.create_stream(StreamName="s", ShardCount=1)
    with Producer("s", contract, client=kinesis, outbox=tmp_path / "o.db") as producer:
        for future in producer.put_batch(frame):
            future.result(30)
    found = conform(contract, pa.table(frame)).table
    assert found.to_pylist() == pl.DataFrame(rows | {"c": ["u", "v"]}).to_dicts()
    bad = frame.with_columns(d=pl.Series([Decimal("1.20"), Decimal("3.005")]))
    with pytest.raises(InvalidEvent, match="row 1: field d"):
        producer.put_batch(bad)
