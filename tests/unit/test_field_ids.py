"""Files have the numbers of their columns where these are known: on every part of a column, or on none."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.io.pyarrow import PyArrowFileIO, pyarrow_to_schema, schema_to_pyarrow
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.schema import Schema, assign_fresh_schema_ids
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.types import LongType, NestedField

from headwater.contract import parse_contract
from headwater.contract.iceberg import iceberg_schema
from headwater.errors import Retryable
from headwater.processors.lakecolumns import SaidColumns, say_columns
from headwater.sinks.lake.buffer import LakeBuffer
from headwater.sinks.lake.datafiles import describe
from headwater.sinks.lake.fieldids import with_field_ids
from headwater.sinks.lake.partitioning import Partitioning
from tests.lake import IDENTITY, new_ledger

CONTRACT = parse_contract(
    "{name: c, version: 1, key: k, time: ts, fields: [{name: k, type: string}, {name: ts, type: timestamp},"
    " {name: l, type: 'list<struct<a: long, b: map<string, double?>?>>', required: false}]}",
    "c",
)
COLUMNS = pa.schema([*(pa.field(one.name, one.arrow_type, not one.required) for one in CONTRACT.fields), *IDENTITY])


def table_schema() -> Schema:
    return assign_fresh_schema_ids(iceberg_schema(CONTRACT))


def test_a_file_has_the_table_s_numbers_on_every_part() -> None:
    """pyiceberg reads the table's own schema from it."""
    buffer = LakeBuffer(COLUMNS, Partitioning("ts", "k"))
    buffer.number_columns(table_schema().name_mapping.model_dump(by_alias=True))
    rows = {
        "k": ["a"],
        "ts": [0],
        "l": [[{"a": 1, "b": [("x", 0.5)]}]],
        "_origin": ["o"],
        "_seq": [0],
        "_arrived_at": [0],
    }
    buffer.append(pa.table(rows, schema=COLUMNS))
    (file,) = buffer.seal()
    found = pyarrow_to_schema(pq.read_schema(io.BytesIO(file.body)))
    assert {one.field_id: one.name for one in found.fields} == {one.field_id: one.name for one in table_schema().fields}
    assert found.column_names == table_schema().column_names
    numbers = {name: found.find_field(name).field_id for name in found.column_names}
    assert numbers == {name: table_schema().find_field(name).field_id for name in numbers}


def test_a_column_that_the_table_lacks_leaves_all_without_numbers() -> None:
    """With some it would be read as null in all files."""
    known = table_schema().name_mapping.model_dump(by_alias=True)
    wider = COLUMNS.append(pa.field("new", pa.int64()))
    assert with_field_ids(wider, known).metadata is None
    assert all(one.metadata is None for one in with_field_ids(wider, known))
    assert all(one.metadata is None for one in with_field_ids(COLUMNS, ()))
    nested = schema_to_pyarrow(table_schema(), include_field_ids=False)
    assert all(one.metadata for one in with_field_ids(nested, known))


def test_what_the_publisher_says_is_heard_and_the_last_serves_while_the_ledger_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing before it has said anything."""
    ledger = new_ledger()
    heard = SaidColumns(ledger)
    assert heard() == ()
    say_columns(ledger, [{"field-id": 1, "names": ["k"]}])
    assert heard() == [{"field-id": 1, "names": ["k"]}]
    rev = ledger.document("lake-columns")[1]
    say_columns(ledger, [{"field-id": 1, "names": ["k"]}])
    assert ledger.document("lake-columns")[1] == rev

    def fail(name: str) -> None:
        raise Retryable("not now")

    monkeypatch.setattr(ledger, "document", fail)
    assert heard() == [{"field-id": 1, "names": ["k"]}]


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ({"b": 2, "a": 1}, ""),
        ({"old": 1}, ""),
        ({"a": 2}, "column a is number 2 in the file, and 1 in the table"),
        ({"a": 1, "b": 7}, "7"),
    ],
)
def test_a_file_with_the_numbers_of_another_table_is_refused(
    tmp_path: Path, named: dict[str, int], reason: str
) -> None:
    """It was made before the table was: its values would show under another name. A renamed column is the same one."""
    metadata = new_table_metadata(
        Schema(NestedField(1, "a", LongType(), required=False), NestedField(2, "b", LongType(), required=False)),
        UNPARTITIONED_PARTITION_SPEC,
        UNSORTED_SORT_ORDER,
        str(tmp_path),
        {},
    )
    columns = [{"field-id": number, "names": [name]} for name, number in named.items()]
    rows = pa.table({name: pa.array([number], pa.int64()) for name, number in named.items()})
    uri = str(tmp_path / "f.parquet")
    pq.write_table(rows.cast(with_field_ids(rows.schema, columns)), uri)
    if reason:
        with pytest.raises(ValueError, match=reason):
            describe(PyArrowFileIO(), metadata, uri)
    else:
        described = describe(PyArrowFileIO(), metadata, uri)
        assert set(described.value_counts) == set(named.values())
