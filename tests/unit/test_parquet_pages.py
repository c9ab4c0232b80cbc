"""A Parquet page that comes to gigabytes is refused before room is made for it, whatever its file says elsewhere."""

from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.contract import parse_contract
from headwater.errors import HeadwaterError, UsageError
from headwater.formats.framing import uvarint
from headwater.producers.files.files import read_events
from headwater.producers.files.parquetpages import check_pages
from headwater.producers.files.samples import read_samples

OF = parse_contract(
    "{name: c, version: 1, key: k, time: ts, fields: [{name: k, type: string}, {name: ts, type: timestamp}]}", "c"
)
ROWS = pa.table({"k": [f"key-{at % 7}" for at in range(5_000)], "ts": [1_772_366_400_000 + at for at in range(5_000)]})
GIGABYTES = 2**31 - 1
WAYS: list[dict[str, Any]] = [
    {}, {"use_dictionary": False}, {"data_page_version": "2.0"}, {"compression": "none"},
    {"write_statistics": False, "data_page_size": 512}, {"row_group_size": 900, "compression": "zstd"},
    {"write_page_checksum": True}, {"compression": "gzip", "column_encoding": {"ts": "DELTA_BINARY_PACKED"},
                                    "use_dictionary": ["k"]},
]  # fmt: skip


def announcing(data: bytes, at: int, size: int) -> bytes:
    """The page whose header begins there says that it is of this size: fields 1 and 2 of the struct are numbers."""
    kind, number = data[at : at + 2], at + 3
    assert (kind[:1], data[at + 2]) == (b"\x15", 0x15)
    end = next(place for place in range(number, number + 9) if data[place] < 0x80) + 1
    return data[:number] + uvarint(size << 1) + data[end:]


def first_pages(path: Path) -> list[int]:
    metadata = pq.ParquetFile(path).metadata
    chunks = [metadata.row_group(0).column(at) for at in range(metadata.num_columns)]
    return [chunk.dictionary_page_offset or chunk.data_page_offset for chunk in chunks]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_files_of_all_kinds_are_read(tmp_path: Path, way: dict[str, Any]) -> None:
    """With dictionaries, both kinds of data pages, many of them, statistics and checksums in their headers."""
    pq.write_table(ROWS, tmp_path / "e.parquet", **way)
    assert sum(table.num_rows for table in read_events(tmp_path / "e.parquet", OF)) == ROWS.num_rows


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_page_of_gigabytes_is_refused(tmp_path: Path, way: dict[str, Any]) -> None:
    """By import and by the proposal of a contract, in a line that says what to do, and no room is made for it."""
    path = tmp_path / "e.parquet"
    pq.write_table(ROWS, path, **way)
    path.write_bytes(announcing(path.read_bytes(), first_pages(path)[0], GIGABYTES))
    for read in (lambda: [*read_events(path, OF)], lambda: read_samples(path)):
        with pytest.raises(
            UsageError, match=r"row group 0 takes more than 256 MiB at once, .* smaller pages"
        ) as refused:
            read()
        assert "\n" not in str(refused.value)
    assert pa.default_memory_pool().max_memory() < GIGABYTES


def test_the_pages_of_all_columns_count(tmp_path: Path) -> None:
    """Of each one is held at a time: two of 120 MiB are taken, and three are too much."""
    path = tmp_path / "e.parquet"
    columns = {name: pa.array(["x" * 100] * 15_000) for name in "abc"}
    pq.write_table(pa.table(columns), path, use_dictionary=False, compression="none", data_page_size=1 << 30)
    for place, name in zip(first_pages(path), "abc", strict=True):
        path.write_bytes(announcing(path.read_bytes(), place, 120 << 20))
        with path.open("rb") as source, suppress(UsageError) if name == "c" else nullcontext():
            check_pages("e", source, pq.ParquetFile(path).metadata)
            assert name != "c"


PLACES = st.one_of(
    st.tuples(st.integers(0, 1), st.integers(0, 39)).map(lambda found: lambda pages, _: pages[found[0]] + found[1]),
    st.floats(0, 1, exclude_max=True).map(lambda part: lambda _, size: int(part * size)),
)


@settings(max_examples=150, deadline=None)
@given(PLACES, st.integers(0, 20) | st.just(1 << 30), st.binary(max_size=20), st.sampled_from(WAYS))
def test_each_row_of_a_broken_file_is_told_of(
    tmp_path_factory: pytest.TempPathFactory,
    place: Callable[[list[int], int], int],
    cut: int,
    odd: bytes,
    way: dict[str, Any],
) -> None:
    """Whatever stands where a header or anything else was, or the file ends there: all rows are read or reported, or
    the file is refused in one line."""
    path = tmp_path_factory.mktemp("odd") / "e.parquet"
    pq.write_table(ROWS.slice(0, 300), path, **way)
    data = path.read_bytes()
    at = place(first_pages(path), len(data))
    path.write_bytes(data[:at] + odd + data[at + cut :])
    reported: list[object] = []
    try:
        rows = sum(table.num_rows for table in read_events(path, OF, on_invalid=lambda *row: reported.append(row)))
    except HeadwaterError as error:
        told = str(error)
    else:
        told = f"{rows + len(reported)} rows"
    assert told == "300 rows" or (not told.endswith(" rows") and "\n" not in told and len(told) < 1_000)
