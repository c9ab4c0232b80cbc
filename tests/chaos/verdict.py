"""The end state against what was produced: the audit, every row of the lake, every view."""

from collections.abc import Sequence

import pyarrow as pa

from headwater.processors.audit.run import run_audit
from headwater.processors.services import Services
from headwater.sinks.lake.query import lake_query
from tests.chaos.events import events
from tests.recomputed import views_differ

__all__ = ["processed", "verdict", "waiting"]


def processed(services: Services) -> int:
    """Events in committed states, copies left out."""
    counts = [entry.counts for entry in services.ledger.shards()]
    return sum(count.get("events", 0) - count.get("duplicates", 0) for count in counts)


def waiting(services: Services) -> int:
    """Files that the publisher has not confirmed."""
    return sum(len(entry.pending) for entry in services.ledger.shards())


def verdict(services: Services, totals: Sequence[int]) -> tuple[list[str], dict[str, int]]:
    """What is wrong, a line each, and the audit's counts. `totals` are the events of each producer."""
    report = run_audit(services.reader)
    wrong = [f"audit: {origin}" for origin in report.origins if not origin.exact]
    if report.unread:
        wrong.append(f"{report.unread} events are not read")
    if report.pending_files:
        wrong.append(f"{report.pending_files} files wait for the publisher")
    accepted = sum(origin.accepted or 0 for origin in report.origins)  # each start of a producer is an origin
    if accepted != sum(totals):
        wrong.append(f"receipts tell of {accepted} events, produced were {sum(totals)}")
    truth = pa.concat_tables([events(number, 0, total) for number, total in enumerate(totals)])
    wrong += _lake(services, truth)
    wrong += views_differ(services, truth)
    return wrong, dict(report.counts)


def _lake(services: Services, truth: pa.Table) -> list[str]:
    """Row by row; `unit` names the event."""
    names = ["unit", "device", "metric", "ts", "value"]
    found = lake_query(services.settings, f"SELECT {', '.join(names)} FROM telemetry").sort_by("unit").to_pandas()
    right = truth.select(names).sort_by("unit").to_pandas()
    if len(found) != len(right):
        return [f"the lake has {len(found)} rows, not {len(right)}"]
    unlike = (found.astype(str) != right.astype(str)).any(axis=1)
    pairs = zip(found[unlike].values, right[unlike].values, strict=True)
    return [f"the lake's row {row} is not {want}" for row, want in pairs][:5]
