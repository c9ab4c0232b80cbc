"""Decode, drop copies, join, one-minute windows: per-record Python, our engine over KPL + JSON, and over batches.

Side by side on one core over the same events; the results are checked equal. Run: python -m bench.engine
"""

import argparse
import gc
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence

import pyarrow as pa

from bench.data import CONTRACT, devices, fleet_events
from headwater import aggregates as agg
from headwater.codec import encode_batch, encode_kpl, event_json
from headwater.records import StreamRecord
from processors.engine import Engine
from processors.operators.enrich import ReferenceTable
from processors.pipeline import Pipeline, Reference
from processors.state import ShardState
from processors.windows import tumbling

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
    return [StreamRecord("shardId-000000000000", str(n), 1_762_160_400_000, "k", p) for n, p in enumerate(payloads, 1)]


def per_record(payloads: Sequence[bytes], sites: dict[str, str]) -> Result:
    """What a processor on amazon_kclpy usually does: one JSON event a record, dicts and a set."""
    seen: set[tuple[str, int]] = set()
    windows: dict[tuple[str, str, int], list[float]] = {}
    for payload in payloads:
        event = json.loads(payload)
        identity = (event["device"], event["seq"])
        if identity in seen:
            continue
        seen.add(identity)
        event["site"] = sites.get(event["device"])
        ts = _ms(event["ts"])
        key = (event["device"], event["metric"], ts - ts % 60_000)
        value = event["value"]
        window = windows.get(key)
        if window is None:
            windows[key] = [1, value, value, value]
        else:
            window[0] += 1
            if value < window[1]:
                window[1] = value
            if value > window[2]:
                window[2] = value
            window[3] += value
    return {key: (int(w[0]), w[1], w[2], w[3] / w[0]) for key, w in windows.items()}


def _ms(value: object) -> int:
    return int(value)  # type: ignore[call-overload, no-any-return]


def engine(payloads: Sequence[bytes], reference: ReferenceTable, records_a_call: int) -> ShardState:
    """Our engine over one shard's records, a few at a time as GetRecords delivers them."""
    state = ShardState(PIPELINE)
    state.references = {"devices": {"version": 1, "uri": "v1"}}
    shard = Engine(PIPELINE, "shardId-000000000000", state, lambda _name, _uri: reference)
    records = records_of(payloads)
    for at in range(0, len(records), records_a_call):
        shard.process(records[at : at + records_a_call])
    return state


def result_of(state: ShardState) -> Result:
    rows: dict[tuple[str, str, int], list[bytes]] = {}
    for partial in state.views["per_minute"].dirty():
        place = (str(partial.key[0]), str(partial.key[1]), int(partial.window_start_ms or 0))
        rows.setdefault(place, []).append(partial.partial)
    out: Result = {}
    for key, partials in rows.items():
        v = agg.values(PIPELINE.views[0].aggregates, agg.merge(PIPELINE.views[0].aggregates, partials))
        out[key] = (v["n"], v["low"], v["high"], v["mean"])  # type: ignore[assignment]
    return out


def same(a: Result, b: Result) -> bool:
    if a.keys() != b.keys():
        return False
    return all(a[k][:3] == b[k][:3] and abs(a[k][3] - b[k][3]) <= 1e-9 * abs(a[k][3]) for k in a)


def timed(job: Callable[[], object]) -> tuple[float, object]:
    gc.collect()
    began = time.process_time()
    result = job()
    return time.process_time() - began, result


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def json_rows(table: pa.Table) -> list[bytes]:
    """Events as a plain producer writes them: time as epoch milliseconds."""
    at = table.schema.get_field_index("ts")
    return event_json(table.set_column(at, "ts", table["ts"].cast(pa.int64())))


def main(arguments: Sequence[str]) -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--events", type=int, default=1_000_000)
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--only-columnar", action="store_true", help="for the peak memory of (c) by itself")
    given = options.parse_args(arguments)
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    table = fleet_events(given.events)
    reference = ReferenceTable.of(DEVICES, devices())
    n = table.num_rows
    batches = {
        size: [encode_batch(table.slice(at, size), CONTRACT) for at in range(0, n, size)] for size in (5_000, 50_000)
    }
    rates: dict[str, float] = {}
    results: dict[str, Result] = {}
    if not given.only_columnar:
        plain = json_rows(table)
        sites = dict(zip(*(reference.table[c].to_pylist() for c in ("device", "site")), strict=True))
        kpl = [encode_kpl(plain[at : at + 100], "k", None) for at in range(0, n, 100)]
        del table
        seconds, found = timed(lambda: per_record(plain, sites))
        rates["(a) per-record Python, JSON"], results["a"] = n / seconds, found  # type: ignore[assignment]
        del plain
        seconds, state = min_of(given.repeat, lambda: engine(kpl, reference, 100))
        rates["(b) engine, KPL of JSON"], results["b"] = n / seconds, result_of(state)
    before = peak_mb()
    for size, payloads in batches.items():
        seconds, state = min_of(given.repeat, lambda p=payloads, s=size: engine(p, reference, max(1, 50_000 // s)))
        rates[f"(c) engine, batches of {size:,}"] = n / seconds
        results[f"c{size}"] = result_of(state)
    base = next(iter(rates.values()))
    for name, rate in rates.items():
        print(f"{name:32} {rate / 1e6:7.3f} M events/s   {rate / base:6.1f} x")
    print(f"peak memory {peak_mb():,.0f} MB (before (c): {before:,.0f} MB)")
    first, *others = results.values()
    equal = all(same(first, other) for other in others)
    print(f"results equal: {equal} ({len(first):,} windows)")
    return 0 if equal else 1


def min_of(times: int, job: Callable[[], ShardState]) -> tuple[float, ShardState]:
    runs = [timed(job) for _ in range(times)]
    return min(seconds for seconds, _ in runs), runs[-1][1]  # type: ignore[return-value]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
