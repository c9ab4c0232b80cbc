"""What the second pipeline has of the first one's events."""

import io
from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headwater.lineage.origins import HORIZON_MS
from headwater.processors.audit.audit import audit
from headwater.processors.shard.snapshots import StateStore
from tests.simulation.bucket import MEMORY
from tests.simulation.system import System
from tests.simulation.workload import NEXT, goes_on

__all__ = ["passed_on", "passed_rows"]


def passed_rows(system: System) -> pa.Table:
    """The rows of the second pipeline, in the files that wait in its ledger."""
    assert system.passing is not None
    files = [file.uri for entry in system.passing.entries() for file in entry.pending]
    tables = [NEXT.lake_schema.empty_table()]
    tables += [pq.ParquetFile(io.BytesIO(system.objects.get(uri.removeprefix(MEMORY)))).read() for uri in files]
    return pa.concat_tables([one.cast(tables[0].schema) for one in tables])


def passed_on(system: System, times: dict[int, tuple[int, int]]) -> list[str]:
    """Each event is there as often as the first pipeline counts it, within `times`, and the audit is exact."""
    if system.passing is None:
        return []
    table, codes = passed_rows(system), (1, 2) if system.pipeline is system.after else (1,)
    rows = table.select(["device", "n", "weight", "_origin", "_seq"]).to_pylist()
    got, events = Counter[int](row["n"] for row in rows), system.truth.events
    found = [f"event {n} came on, which is none" for n in got.keys() - events.keys()]
    for n, event in events.items():
        fewest, most = times[n] if goes_on(event.value) else (0, 0)
        if not fewest <= got[n] <= most:
            found.append(f"{event}: {got[n]} times behind the other stream, not {fewest} to {most}")
    for row in rows:
        event = events[row["n"]]
        if row["device"] != event.device or row["weight"] not in {event.value * code for code in codes}:
            found.append(f"{row} is not what the first pipeline makes of {event}")
    taken = Counter((row["_origin"], row["_seq"]) for row in rows)
    return (
        found
        + [f"identity {at} has {times} rows" for at, times in taken.items() if times > 1]
        + _audited(system, table)
    )


def _audited(system: System, table: pa.Table) -> list[str]:
    assert system.passing is not None
    entries, store = system.passing.entries(), StateStore(NEXT, system.objects)
    report = audit(NEXT.name, entries, [store.load(entry) for entry in entries], table.to_batches())
    found = [f"not exact: {one}" for one in report.origins if not one.exact]
    since = pa.scalar(system.world.now - HORIZON_MS, pa.timestamp("ms", "UTC"))
    old = set(table.filter(pc.less(table["_arrived_at"], since))["_origin"].to_pylist())
    found += [
        f"{one.origin}: {one.processed} read, told of {one.accepted}"
        for one in report.origins
        if one.accepted != one.processed and one.origin not in old  # after 30 days a shard forgets a session
    ]
    foreign = report.foreign
    return found + ([f"{foreign}"] if foreign.missing or foreign.duplicates or foreign.unexpected else [])
