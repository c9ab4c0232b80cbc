"""The audit's report, for people and as JSON."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from processors.audit import AuditReport, OriginAudit

if TYPE_CHECKING:
    from sinks.lakehealth import Freshness

__all__ = ["freshness_lines", "report_json", "report_tables"]


def report_json(report: AuditReport) -> dict[str, Any]:
    """Everything, each missing interval as `[start, stop)`."""
    return {
        "pipeline": report.pipeline,
        "exact": report.exact,
        "unread": report.unread,
        "processed": report.processed,
        "excluded": report.excluded,
        "in_lake": report.in_lake,
        "waiting": report.waiting,
        "missing": report.missing,
        "unexpected": report.unexpected,
        "duplicates": report.duplicates,
        "pending_files": report.pending_files,
        "pending_rows": report.pending_rows,
        "counts": dict(report.counts),
        "foreign": {
            "processed": report.foreign.processed,
            "excluded": report.foreign.excluded,
            "in_lake": report.foreign.in_lake,
            "waiting": report.foreign.waiting,
            "unexpected": report.foreign.unexpected,
            "missing": report.foreign.missing,
            "duplicates": report.foreign.duplicates,
        },
        "origins": [
            {
                "origin": origin.origin,
                "accepted": origin.accepted,
                "processed": origin.processed,
                "excluded": origin.excluded,
                "in_lake": origin.in_lake,
                "waiting": origin.waiting,
                "duplicates": origin.duplicates,
                "missing": origin.missing,
                "not_processed": origin.not_processed,
                "unread": origin.unread,
                "not_in_lake": origin.not_in_lake,
                "unexpected": origin.unexpected,
            }
            for origin in report.origins
        ],
    }


def report_tables(report: AuditReport, limit: int) -> None:
    """Those origins first that something is amiss with."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"pipeline {report.pipeline}", title_justify="left", box=None, padding=(0, 2, 0, 0))
    columns = ("accepted", "processed", "excluded", "in the lake", "on its way", "missing", "twice")
    for column in ("origin", *columns):
        number = column != "origin"
        # on a narrow terminal origins fold, numbers never do
        table.add_column(column, justify="right" if number else "left", no_wrap=number, overflow="fold")
    ordered = sorted(report.origins, key=lambda origin: (origin.exact, origin.origin))
    for origin in ordered[:limit]:
        table.add_row(
            origin.origin,
            "-" if origin.accepted is None else f"{origin.accepted:,}",
            f"{origin.processed:,}",
            f"{origin.excluded:,}",
            f"{origin.in_lake:,}",
            f"{origin.waiting:,}",
            f"{origin.missing:,}",
            f"{origin.duplicates:,}",
            style=None if origin.exact else "red",
        )
    if len(ordered) > limit:
        table.add_row(f"… {len(ordered) - limit:,} more", *[""] * len(columns))
    foreign = report.foreign
    if foreign.processed or foreign.in_lake:
        table.add_row(
            "(written by others)",
            "-",
            f"{foreign.processed:,}",
            f"{foreign.excluded:,}",
            f"{foreign.in_lake:,}",
            f"{foreign.waiting:,}",
            f"{foreign.missing:,}",
            f"{foreign.duplicates:,}",
        )
    console.print(table)
    for origin in [origin for origin in ordered if not origin.exact][:limit]:
        for line in _lines(origin, limit):
            console.print(line, style="red", highlight=False)
    if report.pending_files:
        console.print(f"{report.pending_rows:,} rows in {report.pending_files:,} files wait for the publisher")
    if report.unread:
        console.print(f"{report.unread:,} accepted events are not read yet: a shard is behind the receipts of others")
    console.print(
        f"{_verdict(report)}; {report.processed:,} processed, {report.in_lake:,} in the lake, {report.waiting:,} on "
        "their way"
    )


def _verdict(report: AuditReport) -> str:
    if report.exact:
        return "exact"
    unexpected = f", {report.unexpected:,} in the lake and never processed" if report.unexpected else ""
    return f"NOT exact: {report.missing:,} missing, {report.duplicates:,} twice{unexpected}"


def _lines(origin: OriginAudit, limit: int) -> list[str]:
    hops = (
        ("accepted, not processed", origin.not_processed),
        ("processed, not in the lake", origin.not_in_lake),
        ("in the lake, not processed", origin.unexpected),
    )
    out = []
    for name, intervals in hops:
        if intervals:
            shown = ", ".join(
                f"{start}-{stop - 1}" if stop - start > 1 else f"{start}" for start, stop in intervals[:limit]
            )
            more = f" and {len(intervals) - limit:,} more" if len(intervals) > limit else ""
            out.append(f"{origin.origin}: {name}: {shown}{more}")
    return out


def freshness_lines(shards: "Iterable[Freshness]") -> Iterator[str]:
    """A line a shard: how long its last files took from their writing to the table."""
    for one in shards:
        took = "" if one.median_ms is None else f"in the lake {one.median_ms / 1000:.1f} s after writing (median)"
        yield f"{one.shard_id}: {took or 'nothing in the lake yet'}, {one.waiting_rows:,} rows wait\n"
