"""What a few bytes become in memory is bounded: small values in JSON, and texts that many events share."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headwater.codec import Decoded, decode_record, encode_batch
from headwater.codec.bounds import MAX_CONTAINERS, MAX_VALUES, TooLarge
from headwater.codec.jsonrows import event_texts
from headwater.codec.records import decode_contents
from headwater.contract import load_contract, parse_contract
from headwater.errors import InvalidRecord
from headwater.formats import cloudwatch_logs, otlp
from headwater.producers.files.files import read_events
from headwater.producers.files.parquet import plain_tables
from tests.gateway import served

PROGRAM = """
from pathlib import Path
from headwater.codec import decode_record
from headwater.contract import load_contract
from headwater.errors import InvalidRecord
from headwater.producers.gateway.bodies import BodyLimits, parse_body
from headwater.web.problems import Problem

def peak():
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) >> 10 for line in status.splitlines() if line.startswith("VmHWM"))

SIZE = 8 << 20
SHAPES = {
    "objects": lambda size: b"[" + b"{}," * (size // 3) + b"{}]",
    "lists": lambda size: b'{"device":[' + b"[]," * (size // 3) + b"[]]}",
    "nested lists": lambda size: b'[{"device":[' + b"[]," * (size // 3) + b"[]]}]",
    "names": lambda size: b"{" + b",".join(b'"%d":1' % at for at in range(size // 10)) + b"}",
    "lines": lambda size: b"\\n".join([b'{"device":[' + b"[]," * 2700 + b"[]]}"] * (size // 8100)),
    "names in lines": lambda size: b"\\n".join(
        b"{" + b",".join(b'"%d":1' % (line * 1000 + at) for at in range(1000)) + b"}" for line in range(size // 10_000)
    ),
}
contract = load_contract("telemetry")
READERS = {
    "record": lambda record: decode_record(record, contract),
    "body": lambda record: parse_body(record, "ndjson" if "lines" in name else "json", contract, BodyLimits()),
}
for name, shape in SHAPES.items():
    record = shape(SIZE)
    for kind, read in READERS.items():
        Path("/proc/self/clear_refs").write_text("5")
        before = peak()
        try:
            read(record)
        except (InvalidRecord, Problem) as error:
            assert "MemoryError" not in str(error), error
        print(f"{kind} of {name}:{peak() - before}", flush=True)
"""


def test_json_of_small_values_takes_no_forty_times_its_size() -> None:
    """Each object, list and name takes a hundred bytes of memory, and three or eight of text."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    grown = {name: int(mib) for name, mib in (line.split(":") for line in done.stdout.splitlines())}
    assert len(grown) == 12
    assert max(grown.values()) < 220, grown


def test_an_event_of_many_values_is_refused_and_its_neighbours_count() -> None:
    """It is told from a large text by its signs alone, which are in no valid event in such numbers."""
    event = {"device": "d", "metric": "m", "ts": "2026-03-01T12:00:00Z", "value": 1}
    good = json.dumps(event).encode()
    fine = b'{"device":[' + b"[]," * MAX_VALUES + b"[]]}"
    found = decode_record(good + b"\n" + fine + b"\n" + good, load_contract("telemetry"))
    assert isinstance(found, Decoded)
    assert found.table.num_rows == 2
    assert [row.reason for row in found.invalid] == ["has more than 500000 values"]


def test_a_list_of_the_most_events_is_read() -> None:
    """No honest record is refused by the count: one list of as many events as a record may have."""
    assert len(event_texts(b"[" + b"{}," * (MAX_CONTAINERS - 2) + b"{}]")) == MAX_CONTAINERS - 1
    with pytest.raises(InvalidRecord, match="objects and lists"):
        decode_record(b"[" + b"{}," * (MAX_CONTAINERS - 1) + b"{}]", load_contract("telemetry"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[{} {}]", "delimiter"),
        ("[{},]", "Expecting value"),
        ("[{}] []", "Extra data"),
        ("[{}", "delimiter"),
        ("[", "value"),
    ],
)
def test_a_broken_list_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidRecord, match=f"not JSON.*{reason}"):
        decode_record(text.encode(), load_contract("telemetry"))


def export(resource_bytes: int, points: int, **point: Any) -> dict[str, Any]:
    """An OTLP request of a gauge, whose resource has one long attribute."""
    attribute = {"key": "k", "value": {"stringValue": "x" * resource_bytes}}
    one = {"timeUnixNano": "1772366400000000000", "asDouble": 1.0} | point
    metrics = [{"name": "m", "gauge": {"dataPoints": [one]}}] * points
    return {"resourceMetrics": [{"resource": {"attributes": [attribute]}, "scopeMetrics": [{"metrics": metrics}]}]}


@pytest.mark.parametrize("more", [{}, {"asDouble": "no number"}])
def test_a_text_that_all_rows_of_an_export_share_is_counted_for_each(more: dict[str, Any]) -> None:
    """Points that are read together, and points that are read apart: 1 MB would come to 200 MB."""
    body = json.dumps(export(1_000_000, 200, **more)).encode()
    with pytest.raises(InvalidRecord, match="come to more than"):
        decode_record_with(body, "otel_metrics", otlp("otel_metrics"))


def decode_record_with(body: bytes, contract: str, decoder: Any) -> Any:
    return decode_contents(body, load_contract(contract), decoder)


@pytest.mark.parametrize("message", ["text", 5])
def test_a_text_that_all_events_of_a_log_group_share_is_counted_for_each(message: object) -> None:
    """In the table where they are valid, and in dead letters where they are not."""
    text = """
name: logs
version: 1
key: device
time: at
fields:
  - {name: device, type: string, from: id}
  - {name: at, type: timestamp, from: timestamp}
  - {name: group, type: string, from: logGroup}
  - {name: message, type: string}
"""
    contract = parse_contract(text, "test")
    events = [{"id": str(at), "timestamp": 1772366400000, "message": message} for at in range(500)]
    record = {"messageType": "DATA_MESSAGE", "logGroup": "g" * 200_000, "logEvents": events}
    with pytest.raises(TooLarge):
        decode_contents(json.dumps(record).encode(), contract, cloudwatch_logs())


def test_an_export_with_much_that_is_shared_waits_for_memory_or_is_refused() -> None:
    """10 MB of texts in 200 KB go through once that memory is reserved; 200 MB are told to come in parts."""
    with served(contracts=(load_contract("otel_metrics"),), max_rows=5_000) as found:
        assert found.client.post("/v1/metrics", json=export(10_000, 1_000)).status_code == 200
        refused = found.client.post("/v1/metrics", json=export(100_000, 2_000))
        assert refused.status_code == 413
        assert "in parts" in refused.text
        assert found.gateway._memory.used == 0


@pytest.mark.parametrize("as_dictionary", [True, False])
def test_a_text_that_all_rows_of_a_parquet_file_share_is_read_in_parts(tmp_path: Path, as_dictionary: bool) -> None:
    """3 KB of a file would come to 200 MB at once; rows, their order and their places are as they are written."""
    rows = 1_000
    texts = pa.DictionaryArray.from_arrays(pa.array([0, 1] * (rows // 2), pa.int32()), ["u" * 400_000, "v"])
    columns = {
        "device": [f"d{at}" for at in range(rows)],
        "metric": ["m"] * rows,
        "ts": pa.array([1772366400000] * rows, pa.timestamp("ms", "UTC")),
        "value": [float(at) for at in range(rows)],
        "unit": texts,
    }
    file = tmp_path / "events.parquet"
    pq.write_table(pa.table(columns), file, store_schema=as_dictionary, dictionary_pagesize_limit=4 << 20)
    assert file.stat().st_size < 100_000
    invalid: list[int] = []
    tables = list(read_events(file, load_contract("telemetry"), on_invalid=lambda row, *_: invalid.append(row)))
    assert [value for one in tables for value in one["value"].to_pylist()] == [float(at) for at in range(1, rows, 2)]
    assert invalid == list(range(1, rows, 2))
    assert len(list(plain_tables(pa.RecordBatch.from_pydict({"unit": texts})))) > 10


NESTED = parse_contract(
    """
{name: c, version: 1, key: k, time: ts, fields: [
  {name: k, type: string}, {name: ts, type: timestamp}, {name: raw, type: binary, max_bytes: 1000000},
  {name: tags, type: "list<string>", max_bytes: 1000000}, {name: by, type: "map<string, string>", max_bytes: 1000000},
  {name: at, type: "struct<street: string, plain: list<long>>", max_bytes: 1000000}]}""",
    "c",
)


def test_a_text_within_lists_maps_and_structs_is_read_in_parts(tmp_path: Path) -> None:
    """Each of four columns would come to 80 MB; what is read is what is written, nulls and empty lists too."""
    rows, long = 200, "u" * 400_000
    pairs = [None if at % 7 == 3 else [] if at % 7 == 4 else [long, "v"][: at % 3] for at in range(rows)]
    table = pa.table(
        {
            "k": [f"k{at}" for at in range(rows)],
            "ts": pa.array([1772366400000] * rows, pa.timestamp("ms", "UTC")),
            "raw": [long.encode() if at % 2 else b"" for at in range(rows)],
            "tags": [one or ["x"] for one in pairs],
            "by": pa.array([[(f"k{n}", text) for n, text in enumerate(one or [])] for one in pairs],
                           pa.map_(pa.string(), pa.string())),
            "at": [{"street": long if at % 5 else "s", "plain": list(range(at % 4))} for at in range(rows)],
        }
    )  # fmt: skip
    file = tmp_path / "events.parquet"
    pq.write_table(table, file, dictionary_pagesize_limit=4 << 20)
    assert file.stat().st_size < 100_000
    tables = list(read_events(file, NESTED))
    assert len(tables) > 10
    assert max(one.nbytes for one in tables) < 20 << 20
    read = [row for one in tables for row in one.to_pylist()]
    assert read == table.cast(NESTED.arrow_schema).to_pylist()


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", "PLAIN"])
def test_texts_of_any_encoding_are_read(tmp_path: Path, encoding: str) -> None:
    """Those that Arrow does not read as dictionaries too; where texts share their beginnings, few rows at a time."""
    rows = 2_000
    table = pa.table(
        {
            "device": [f"device-{at}" for at in range(rows)],
            "metric": ["m"] * rows,
            "ts": pa.array([1772366400000] * rows, pa.timestamp("ms", "UTC")),
            "value": [1.0] * rows,
        }
    )
    file = tmp_path / "events.parquet"
    encodings = dict.fromkeys(["device", "metric"], encoding)
    pq.write_table(table, file, use_dictionary=False, column_encoding=encodings)
    tables = list(read_events(file, load_contract("telemetry")))
    assert pa.concat_tables(tables).column("device").to_pylist() == table.column("device").to_pylist()
    assert len(tables) == (8 if encoding == "DELTA_BYTE_ARRAY" else 1)


TEXTS = parse_contract(
    "name: c\nversion: 1\nkey: k\ntime: ts\nfields:\n  - {name: k, type: string}\n  - {name: ts, type: timestamp}\n"
    "  - {name: text, type: string}\n",
    "c",
)


def _texts(values: list[str]) -> bytes:
    rows = {"k": ["k"] * len(values), "ts": pa.array([0] * len(values), pa.timestamp("ms", "UTC")), "text": values}
    return encode_batch(pa.table(rows), TEXTS, origin="o", first_seq=0)


def test_one_long_text_among_many_events_is_read() -> None:
    """It is one event's, not everybody's: as often as it is said it counts."""
    found = decode_record(_texts(["x" * 120_000, *(str(at % 9) for at in range(4_999))]), TEXTS)
    assert isinstance(found, Decoded)
    assert found.total == 5_000
    with pytest.raises(InvalidRecord, match="MiB of text"):
        decode_record(_texts(["x" * 120_000] * 5_000), TEXTS)
