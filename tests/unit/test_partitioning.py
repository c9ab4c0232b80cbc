"""Buckets are Iceberg's own, and a file of a bucket has its rows and no others."""

import io
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.transforms import BucketTransform
from pyiceberg.types import LongType, StringType

from headwater.contract import parse_contract
from headwater.errors import UsageError
from headwater.processors.definition.pipeline import Pipeline
from headwater.sinks.lake.buffer import LakeBuffer
from headwater.sinks.lake.partitioning import BUCKET_METADATA, MAX_BUCKETS, KeyBucket, Partitioning, buckets_of
from tests.unit.test_lake import NOON, ROWS, SCHEMA, Row, filled, read, table

BUCKETS = st.integers(2, MAX_BUCKETS)
TEXT = st.text(st.characters(codec="utf-8"))


@given(st.lists(TEXT), BUCKETS, st.booleans())
def test_buckets_of_text_are_iceberg_s(keys: list[str], buckets: int, coded: bool) -> None:
    """Whatever the text, empty too; plain or as a dictionary."""
    array = pa.array(keys, pa.string())
    theirs = BucketTransform(buckets).transform(StringType())
    found = buckets_of(array.dictionary_encode() if coded else array, buckets).tolist()
    assert found == [theirs(key) for key in keys]


@given(st.lists(st.integers(-(2**31), 2**31 - 1)), BUCKETS)
def test_buckets_of_numbers_are_iceberg_s(keys: list[int], buckets: int) -> None:
    """An int has the bucket that it has as a long: a column that widens keeps its buckets."""
    theirs = BucketTransform(buckets).transform(LongType())
    for kind in (pa.int32(), pa.int64()):
        assert buckets_of(pa.array(keys, kind), buckets).tolist() == [theirs(key) for key in keys]


def test_a_known_hash() -> None:
    """From the appendix of Iceberg's specification: "iceberg" and 34 hash to 1210000089 and 2017239379."""
    assert buckets_of(pa.array(["iceberg"]), 1_000).tolist() == [89]
    assert buckets_of(pa.array([34]), 1_000).tolist() == [379]


@given(ROWS, st.sampled_from([None, "hour", "day"]), st.integers(2, 20))
def test_each_row_is_in_the_file_of_its_bucket(rows: list[Row], unit: str | None, buckets: int) -> None:
    """Once, sorted by key and time; the file says which bucket it is and has no other file's words in it."""
    given_ = table(rows)
    files = filled(unit, given_, buckets=buckets).seal()
    found = [row for file in files for row in read(file).to_pylist()]
    assert Counter(map(str, found)) == Counter(map(str, given_.cast(SCHEMA).to_pylist()))
    assert len({(file.partition, file.bucket) for file in files}) == len(files)
    theirs = BucketTransform(buckets).transform(StringType())
    for file in files:
        own = read(file)
        assert {theirs(key) for key in own["device"].to_pylist()} == {file.bucket}
        keys = list(zip(own["device"].to_pylist(), own["ts"].to_pylist(), strict=True))
        assert keys == sorted(keys)
        footer = pq.ParquetFile(io.BytesIO(file.body)).metadata
        assert KeyBucket.loads(footer.metadata[BUCKET_METADATA]) == KeyBucket("device", file.bucket or 0, buckets)


def test_a_file_holds_the_keys_of_its_bucket_only() -> None:
    """Not the dictionary of the whole commit in each of its files, which 32 buckets would be 32 times."""
    rows: list[Row] = [(f"device-{n * 2_654_435_761 % 2**32:010}", NOON, 1.0, None, None) for n in range(20_000)]
    (one,) = filled("day", table(rows)).seal()
    files = filled("day", table(rows), buckets=32).seal()
    assert len(files) == 32
    assert sum(len(file.body) for file in files) < 2 * len(one.body)


@given(st.text(), BUCKETS, BUCKETS)
def test_a_bucket_of_many_lies_in_one_of_few(key: str, buckets: int, times: int) -> None:
    """Where the few divide the many; else it cannot be told."""
    key = key.encode(errors="replace").decode()
    (number,) = buckets_of(pa.array([key]), buckets * times).tolist()
    assert KeyBucket("device", number, buckets * times).among(buckets) == buckets_of(pa.array([key]), buckets)[0]
    assert KeyBucket("device", number, buckets * times).among(buckets * times + 1) is None


def test_a_pipeline_says_how_its_table_is_divided() -> None:
    """And is refused at once when its key has no buckets."""
    text = "name: x\nversion: 1\nkey: {key}\ntime: ts\nfields:\n  - {{name: {key}, type: {kind}}}\n"
    text += "  - {{name: ts, type: timestamp}}\n"
    for kind in ("string", "int", "long"):
        contract = parse_contract(text.format(key="k", kind=kind), "x")
        made = Pipeline("p", contract).lake("x", partition="hour", buckets=8).lake_partitioning
        assert made == Partitioning("ts", "k", "hour", 8)
    contract = parse_contract(text.format(key="k", kind="double"), "x")
    assert Pipeline("p", contract).lake("x").lake_partitioning.buckets is None
    with pytest.raises(UsageError, match="key k is a double: only text and whole numbers have buckets"):
        Pipeline("p", contract).lake("x", buckets=8)
    with pytest.raises(UsageError, match="2 to 1,024 buckets"):
        LakeBuffer(SCHEMA, Partitioning("ts", "device", "day", MAX_BUCKETS + 1))
