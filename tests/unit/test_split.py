"""Each row is divided into the one partition that Iceberg's own transforms say, also a row without a value."""

from collections import Counter
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import BucketTransform, IdentityTransform, TruncateTransform, VoidTransform
from pyiceberg.types import LongType, NestedField, StringType

from headwater.errors import HeadwaterError
from headwater.sinks.lake.split import partition_conditions

SCHEMA = Schema(NestedField(1, "name", StringType()), NestedField(2, "number", LongType()))
ROWS = [("ab", 7), ("ac", -1), ("b", None), (None, 12), ("", 7), (None, None), ("ab", 19)]


def divided(*parts: tuple[int, Any]) -> dict[tuple[object, ...], list[tuple[Any, ...]]]:
    """The rows by their partition."""
    spec = PartitionSpec(*(PartitionField(of, 1000 + at, how, f"p{at}") for at, (of, how) in enumerate(parts)))
    with duckdb.connect() as db:
        names, numbers = zip(*ROWS, strict=True)
        db.register("rows", pa.table({"name": names, "number": pa.array(numbers, pa.int64())}))
        return {
            tuple(record): db.execute(f"SELECT * FROM rows WHERE {where}").fetchall()
            for record, where in partition_conditions(db, "rows", spec, SCHEMA)
        }


@pytest.mark.parametrize("name", [IdentityTransform(), TruncateTransform(1), BucketTransform(3)])
@pytest.mark.parametrize("number", [IdentityTransform(), TruncateTransform(10), BucketTransform(2)])
def test_each_row_lies_in_the_partition_of_its_values(name: Any, number: Any) -> None:
    found = divided((1, name), (2, number))
    assert Counter(row for rows in found.values() for row in rows) == Counter(ROWS)
    of_name, of_number = name.transform(StringType()), number.transform(LongType())
    assert all(key == (of_name(row[0]), of_number(row[1])) for key, rows in found.items() for row in rows)


def test_another_transform_is_refused() -> None:
    with pytest.raises(HeadwaterError, match="cannot be divided"):
        divided((1, VoidTransform()))
