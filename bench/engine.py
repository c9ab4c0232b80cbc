"""Compare three ways to process a shard: per-record Python, our engine over KPL and JSON, our engine over batches.

Each decodes, drops copies, joins and aggregates over one-minute windows.

Side by side on one core over the same events; the results are checked equal. Run: python -m bench.engine
"""

import argparse
import base64
import gc
import io
import json
import pickle
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
from amazon_kclpy.kcl import KCLProcess
from amazon_kclpy.v3.processor import RecordProcessorBase

from bench.data import CONTRACT, devices, fleet_events
from headwater import aggregates as agg
from headwater.codec import encode_batch, encode_kpl, event_json
from headwater.processors.definition.parts import Reference
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.processors.engine.engine import Engine
from headwater.processors.engine.state import ShardState
from headwater.processors.operators.enrich import ReferenceTable
from headwater.stream.record import StreamRecord

DEVICES = Reference("devices", "bench.csv", "device", {"site": "string"})
PIPELINE = (
    Pipeline("bench", CONTRACT, allowed_lateness="1h")
    .enrich(DEVICES, on="device")
    .view(
        "per_minute",
        by=["device", "metric"],
        window=tumbling("1m"),
        n=agg.count(),
        low=agg.min("value"),
        high=agg.max("value"),
        mean=agg.mean("value"),
    )
    .lake("bench")
)
Result = dict[tuple[str, str, int], tuple[int, float, float, float]]


def records_of(payloads: Sequence[bytes]) -> list[StreamRecord]:
    """Return the payloads as Kinesis records."""
    return [StreamRecord("shardId-000000000000", str(n), 1_762_160_400_000, "k", p) for n, p in enumerate(payloads, 1)]


class PerRecord(RecordProcessorBase):  # type: ignore[misc]  # amazon_kclpy has no types
    """Process as a usual consumer on amazon_kclpy does: one JSON event a record, dicts and a set."""

    def __init__(self, sites: dict[str, str]) -> None:
        self.sites = sites
        self.seen: set[tuple[str, int]] = set()
        self.windows: dict[tuple[str, str, int], list[float]] = {}

    def initialize(self, initialize_input: Any) -> None: ...

    def lease_lost(self, lease_lost_input: Any) -> None: ...

    def shard_ended(self, shard_ended_input: Any) -> None: ...

    def shutdown_requested(self, shutdown_requested_input: Any) -> None: ...

    def process_records(self, process_records_input: Any) -> None:
        for record in process_records_input.records:
            self.event(json.loads(record.binary_data))

    def event(self, event: dict[str, Any]) -> None:
        identity = (event["device"], event["seq"])
        if identity in self.seen:
            return
        self.seen.add(identity)
        event["site"] = self.sites.get(event["device"])
        key = (event["device"], event["metric"], event["ts"] - event["ts"] % 60_000)
        value = event["value"]
        window = self.windows.get(key)
        if window is None:
            self.windows[key] = [1, value, value, value]
            return
        window[0] += 1
        if value < window[1]:
            window[1] = value
        if value > window[2]:
            window[2] = value
        window[3] += value


def per_record(protocol: str, sites: dict[str, str]) -> Result:
    """Run the library's own loop over what its daemon writes: a message with base64 records a line."""
    processor = PerRecord(sites)
    KCLProcess(processor, io.StringIO(protocol), io.StringIO(), sys.stderr).run()
    return {key: (int(w[0]), w[1], w[2], w[3] / w[0]) for key, w in processor.windows.items()}


def daemon_messages(payloads: Sequence[bytes]) -> str:
    """Return the messages of the MultiLangDaemon for these records, 10,000 a message."""
    lines = []
    for first in range(0, len(payloads), 10_000):
        records = [
            {
                "action": "record",
                "data": base64.b64encode(payload).decode(),
                "partitionKey": "k",
                "sequenceNumber": str(first + at),
                "subSequenceNumber": 0,
                "approximateArrivalTimestamp": 1_762_160_400_000,
            }
            for at, payload in enumerate(payloads[first : first + 10_000])
        ]
        lines.append(json.dumps({"action": "processRecords", "millisBehindLatest": 0, "records": records}))
    return "\n".join(lines) + "\n"


def engine(payloads: Sequence[bytes], reference: ReferenceTable, records_a_call: int) -> ShardState:
    """Run our engine over one shard's records, a few at a time as GetRecords delivers them."""
    state = ShardState(PIPELINE)
    state.references = {"devices": {"version": 1, "uri": "v1"}}
    shard = Engine(PIPELINE, "shardId-000000000000", state, lambda _name, _uri: reference)
    records = records_of(payloads)
    for at in range(0, len(records), records_a_call):
        shard.process(records[at : at + records_a_call])
    return state


def result_of(state: ShardState) -> Result:
    """Return the aggregates by key and window."""
    rows: dict[tuple[str, str, int], list[bytes]] = {}
    for partial in state.views["per_minute"].dirty():
        place = (str(partial.key[0]), str(partial.key[1]), int(partial.window_start_ms or 0))
        rows.setdefault(place, []).append(partial.partial)
    out: Result = {}
    for key, partials in rows.items():
        v = agg.values(PIPELINE.views[0].aggregates, agg.merge(PIPELINE.views[0].aggregates, partials))
        out[key] = (v["n"], v["low"], v["high"], v["mean"])  # type: ignore[assignment]  # the states of all aggregates are of one type
    return out


def same(a: Result, b: Result) -> bool:
    """Return whether two results are equal, up to the order in which floats were added."""
    if a.keys() != b.keys():
        return False
    return all(a[k][:3] == b[k][:3] and abs(a[k][3] - b[k][3]) <= 1e-9 * abs(a[k][3]) for k in a)


def timed(job: Callable[[], object]) -> tuple[float, object]:
    """Return the seconds that a call took, and what it returned."""
    gc.collect()
    began = time.process_time()
    result = job()
    return time.process_time() - began, result


def peak_mb() -> float:
    """Return the process's peak memory in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def json_rows(table: pa.Table) -> list[bytes]:
    """Return events as a plain producer writes them: time as epoch milliseconds."""
    at = table.schema.get_field_index("ts")
    return event_json(table.set_column(at, "ts", table["ts"].cast(pa.int64())))


JOBS = {
    "a": "(a) amazon_kclpy processor, JSON",
    "b": "(b) engine, KPL of JSON",
    "c5000": "(c) engine, batches of 5,000",
    "c50000": "(c) engine, batches of 50,000",
}


def prepare(folder: Path, events: int) -> None:
    """Write the payloads of each job into a file: records end to end, with their lengths beside them."""
    table = fleet_events(events)
    plain = json_rows(table)
    rows = {
        "a": daemon_messages(plain),
        "b": [encode_kpl(plain[at : at + 5_000], "k", None) for at in range(0, events, 5_000)],
        "c5000": [encode_batch(table.slice(at, 5_000), CONTRACT) for at in range(0, events, 5_000)],
        "c50000": [encode_batch(table.slice(at, 50_000), CONTRACT) for at in range(0, events, 50_000)],
    }
    for job, payloads in rows.items():
        (folder / job).write_bytes(pickle.dumps(payloads))


def one_job(job: str, folder: Path, repeat: int) -> dict[str, Any]:
    """Run one job in a process of its own, so that its peak memory is its own."""
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    payloads = pickle.loads((folder / job).read_bytes())
    reference = ReferenceTable.of(DEVICES, devices())
    if job == "a":
        sites = dict(zip(*(reference.table[c].to_pylist() for c in ("device", "site")), strict=True))
        seconds, found = timed(lambda: per_record(payloads, sites))
        return {"seconds": seconds, "peak_mb": peak_mb(), "result": found}
    records_a_call = {"b": 10, "c5000": 40, "c50000": 4}[job]
    seconds, state = min_of(repeat, lambda: engine(payloads, reference, records_a_call))
    peak = peak_mb()
    return {"seconds": seconds, "peak_mb": peak, "result": result_of(state)}


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    options = argparse.ArgumentParser()
    options.add_argument("--events", type=int, default=1_000_000)
    options.add_argument("--repeat", type=int, default=3)
    given = options.parse_args(arguments)
    with TemporaryDirectory() as name, ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        folder = Path(name)
        pool.submit(prepare, folder, given.events).result()
        done = {job: pool.submit(one_job, job, folder, given.repeat).result() for job in JOBS}
    base = done["a"]["seconds"]
    for job, title in JOBS.items():
        one = done[job]
        print(
            f"{title:32} {given.events / one['seconds'] / 1e6:7.3f} M events/s  {base / one['seconds']:6.1f} x"
            f"  peak {one['peak_mb']:5,.0f} MB"
        )
    equal = all(same(done["a"]["result"], one["result"]) for one in done.values())
    print(f"results equal: {equal} ({len(done['a']['result']):,} windows)")
    return 0 if equal else 1


def min_of(times: int, job: Callable[[], ShardState]) -> tuple[float, ShardState]:
    """Return the seconds of the fastest of several runs, and the last one's result."""
    runs = [timed(job) for _ in range(times)]
    return min(seconds for seconds, _ in runs), runs[-1][1]  # type: ignore[return-value]  # runs is never empty


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
