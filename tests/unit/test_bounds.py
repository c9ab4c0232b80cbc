"""No text keeps a file out of the lake: bounds are at or beyond the values, or left out."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata, new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.types import NestedField, StringType

from headwater.sinks.lake.bounds import text_above
from headwater.sinks.lake.datafiles import describe

EDGES = st.sampled_from(["\ud7fe", "\ud7ff", "\ue000", "\uffff", "\U0010fffe", "\U0010ffff", "a", "\x00"])
TEXT = st.lists(st.characters(codec="utf-8") | EDGES, min_size=1, max_size=40).map("".join)


def metadata(location: str) -> TableMetadata:
    """A table with one column of text."""
    return new_table_metadata(
        schema=Schema(NestedField(1, "device", StringType(), required=False)),
        partition_spec=UNPARTITIONED_PARTITION_SPEC,
        sort_order=UNSORTED_SORT_ORDER,
        location=location,
        properties={},
    )


def bounds_of(place: Path, texts: list[str]) -> tuple[bytes | None, bytes | None]:
    """The bounds that the table gets of a file with these rows."""
    body = io.BytesIO()
    pq.write_table(pa.table({"device": texts}), body)
    (place / "f.parquet").write_bytes(body.getvalue())
    file = describe(PyArrowFileIO(), metadata(str(place)), str(place / "f.parquet"))
    assert file.record_count == len(texts)
    return file.lower_bounds.get(1), file.upper_bounds.get(1)


@pytest.mark.parametrize(
    "text",
    ["z" * 15 + "\ud7ff" + "tail", "\ud7ff" * 20, "\U0010ffff" * 20, "\ud7ff" * 15 + "\U0010ffff" * 5, "z" * 40],
)
def test_a_text_before_the_surrogates_is_described(tmp_path: Path, text: str) -> None:
    """The code point after U+D7FF is no character: a bound cannot end in it."""
    lower, upper = bounds_of(tmp_path, [text])
    assert lower is None or lower <= text.encode()
    assert upper is None or upper >= text.encode()


@given(st.lists(TEXT, min_size=1, max_size=4))
def test_bounds_hold_for_every_text(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    """In the order of UTF-8 bytes, which is that of code points."""
    lower, upper = bounds_of(tmp_path_factory.mktemp("f"), texts)
    values = sorted(text.encode() for text in texts)
    assert lower is None or lower <= values[0]
    assert upper is None or upper >= values[-1]


@given(TEXT, st.integers(1, 20))
def test_a_shortened_text_is_never_below(text: str, length: int) -> None:
    """And is as short as was asked for, and can be written."""
    found = text_above(text, length)
    if found is None:
        assert set(text[:length]) == {"\U0010ffff"}
    else:
        assert len(found) <= length
        assert found.encode() >= text.encode()
