"""What must be so at the end of a run, whatever the seed did."""

import io
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headwater import aggregates as agg
from headwater.ledger import Ledger
from processors.audit import audit
from processors.worker import StateStore
from sinks.deadletter import DeadLetters
from sinks.views import ViewSpec, ViewStore
from tests.simulation.system import PIPELINE, System

__all__ = ["faults_of"]


def faults_of(system: System, finished: bool) -> list[str]:
    """Each broken promise in a line; empty when all were kept."""
    found = list(system.world.errors)
    if not finished:
        found.append("liveness: not everything was read, committed and published in time")
    found += [f"ledger: {line}" for line in system.dynamodb.broken]
    if not finished:
        return found
    rows = _lake(system, found)
    found += _against_truth(system, rows)
    found += _views(system, rows)
    found += _letters(system)
    found += _audit(system, rows)
    return found


def _lake(system: System, found: list[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for uri in system.table.files:
        if uri.startswith("s3://elsewhere/"):
            continue
        key = uri.removeprefix("s3://memory/")
        if key not in system.objects.bodies:
            found.append(f"lake: the table refers to {key}, which is not there")
            continue
        rows += pq.read_table(io.BytesIO(system.objects.bodies[key])).to_pylist()
    return rows


def _against_truth(system: System, rows: list[dict[str, Any]]) -> list[str]:
    seen = Counter((row["_origin"], row["_seq"]) for row in rows)
    out = [f"lake: {identity} is there {times} times" for identity, times in seen.items() if times != 1]
    out += [f"lake: {identity} is missing" for identity in system.truth.keys() - seen.keys()]
    out += [f"lake: {identity} was never produced" for identity in seen.keys() - system.truth.keys()]
    for row in rows:
        wanted = system.truth.get((row["_origin"], row["_seq"]))
        if wanted is not None and any(row[name] != value for name, value in wanted.items()):
            out.append(f"lake: {(row['_origin'], row['_seq'])} has another content")
    return out


def _views(system: System, rows: list[dict[str, Any]]) -> list[str]:
    """Each view against a batch computation over the lake's rows."""
    store = ViewStore(system.dynamodb, "views")
    expected: dict[str, dict[tuple[Any, ...], tuple[int, int]]] = {"by_device": {}, "by_site": {}}
    for row in rows:
        minute = row["ts"].replace(second=0, microsecond=0)
        at = (row["device"], agg.iso_ms(round(minute.timestamp() * 1000)))
        n, total = expected["by_device"].get(at, (0, 0))
        expected["by_device"][at] = (n + 1, total + row["value"])
        n, top = expected["by_site"].get((row["site"],), (0, -100))
        expected["by_site"][(row["site"],)] = (n + 1, max(top, row["value"]))
    out = []
    for view in PIPELINE.views:
        stored = store.scan(ViewSpec(view.name, view.by, view.aggregates))
        if view.name == "by_device":
            got = {(row["device"], row["window_start"]): (row["n"], row["total"]) for row in stored}
        else:
            got = {(row["site"],): (row["n"], row["top"]) for row in stored}
        if got != expected[view.name]:
            wrong = {
                key for key in got.keys() | expected[view.name].keys() if got.get(key) != expected[view.name].get(key)
            }
            out.append(f"view {view.name}: {len(wrong)} rows are wrong, such as {min(map(str, wrong))}")
    return out


def _letters(system: System) -> list[str]:
    waiting = Counter(letter.payload for letter in DeadLetters(system.objects).list("sim"))
    return [f"dead letters: {one!r} is there {waiting[one]} times" for one in system.poison if waiting[one] != 1]


def _audit(system: System, rows: list[dict[str, Any]]) -> list[str]:
    entries = Ledger(system.dynamodb, "ledger", "sim").shards()
    store = StateStore(PIPELINE, system.objects)
    schema = pa.schema([("_origin", pa.string()), ("_seq", pa.int64())])
    identities = [{"_origin": row["_origin"], "_seq": row["_seq"]} for row in rows]
    batches = pa.Table.from_pylist(identities, schema=schema).to_batches()
    report = audit("sim", entries, [store.load(entry) for entry in entries], batches)
    out = [] if report.exact else [f"audit: not exact: {report}"]
    accepted = {one.origin: one.accepted for one in report.origins}
    produced = Counter(origin for origin, _ in system.truth)
    return out + [
        f"audit: {o} has {accepted.get(o)} accepted of {n}" for o, n in produced.items() if accepted.get(o) != n
    ]
