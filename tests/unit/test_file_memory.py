"""Hold what a file becomes in memory while it is imported to a bound, whatever is in it."""

import gzip
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from headwater.contract import load_contract
from headwater.errors import HeadwaterError
from headwater.producers.files.files import read_events
from tests.memory import MIB, apart, measured, tell

CONTRACT = load_contract("telemetry")
HEADER = b"device,metric,ts,value\n"
EVENT = b'{"device":"d","metric":"m","ts":"2026-01-01T00:00:00Z","value":1}\n'
NAMES = CONTRACT.arrow_schema.names
MOST_MIB = 240
"""Of a file of any size, beyond the imports; the bounds are on a line (64 MiB) and on what a row group takes."""


def zipped(unit: bytes, mib: int, head: bytes = b"") -> Callable[[Path], object]:
    """Write so many MiB of a unit, compressed to a thousandth."""

    def write(path: Path) -> None:
        with gzip.open(path, "wb", 1) as file:
            file.write(head)
            for _ in range(mib):
                file.write(unit * (MIB // len(unit)))

    return write


def columns(rows: int, text: str | None) -> Callable[[Path], object]:
    """Write a row group of rows that all have the same texts, or none."""

    def write(path: Path) -> None:
        one = pa.array([0 if text else None] * rows, pa.int8())
        shared = pa.DictionaryArray.from_arrays(one, pa.array([text or ""]))
        times = pa.array([1_772_366_400_000] * rows, pa.timestamp("ms", "UTC"))
        values = pa.repeat(pa.scalar(1.0), rows)
        table = pa.table({"device": shared, "metric": shared, "ts": times, "value": values})
        pq.write_table(table, path, row_group_size=rows)

    return write


FILES: dict[str, Callable[[Path], object]] = {
    "rows.csv.gz": zipped(b"d,m,2026-01-01T00:00:00Z,1\n", 96, HEADER),
    "rows that break the contract.csv.gz": zipped(b"d,m,x,y\n", 2, HEADER),
    "one quoted text.csv.gz": zipped(b"x", 128, HEADER + b'"'),
    "one line.csv.gz": zipped(b"x", 128, HEADER),
    "wide header.csv.gz": zipped(b"a,", 128),
    "wide row.csv.gz": zipped(b'"",', 128, HEADER),
    "zeros.csv.gz": zipped(b"\0", 128, HEADER),
    "line ends.csv.gz": zipped(b"\n", 16, HEADER),
    "rows.ndjson.gz": zipped(EVENT, 96),
    "empty objects.ndjson.gz": zipped(b"{}\n", 1),
    "one text.ndjson.gz": zipped(b"x", 128, b'{"device":"'),
    "one list.ndjson.gz": zipped(b"1.5,", 128, b'{"x":['),
    "lists in lists.ndjson.gz": zipped(b"[", 128),
    "zeros.ndjson.gz": zipped(b"\0", 128),
    "line ends.ndjson.gz": zipped(b"\n", 8),
    "shared text.parquet": columns(1_000_000, "d" * 60),
    "shared long text.parquet": columns(1_000_000, "d" * 900),
    "huge text.parquet": columns(3, "d" * 128 * MIB),
    "nothing.parquet": columns(1_000_000, None),
}


def imported(folder: Path, name: str) -> Callable[[], object]:
    """Read all events of a file, as `headwater produce` does."""
    path = folder / name

    def read() -> str:
        refused = list[str]()
        try:
            events = read_events(path, CONTRACT, on_invalid=lambda _row, reason, _raw: refused.append(reason[:9]))
            rows = sum(table.num_rows for table in events)
        except HeadwaterError as error:
            return f"refused: {error}"
        return f"{rows} and {len(refused)} refused"

    return read


def test_no_file_takes_more_memory_than_a_line_or_a_row_group() -> None:
    """However well it is compressed, and whatever it becomes."""
    found = measured("tests.unit.test_file_memory")
    assert list(found) == list(FILES)
    assert not {name: one for name, one in found.items() if one[0] > MOST_MIB}
    assert sum("refused: " in said for _, said in found.values()) >= len(FILES) // 3, found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        for each, make in FILES.items():
            apart(partial(make, Path(place) / each))
        tell({each: partial(imported, Path(place), each) for each in FILES})
