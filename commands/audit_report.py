"""Print the audit's report, for people and as JSON."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from headwater.aggregates.merging import iso_ms
from headwater.processors.audit.losses import LOSSES
from headwater.processors.audit.report import AuditReport, ForeignAudit, MinuteAudit, OriginAudit, SingleEventsAudit

if TYPE_CHECKING:
    from rich.table import Table

    from headwater.processors.audit.views import ViewAudit
    from headwater.sinks.lake.health import Freshness

__all__ = ["freshness_lines", "report_json", "report_tables", "view_lines"]

_REPORT = (
    "pipeline exact unread processed excluded in_lake waiting missing unexpected duplicates lost other_stream "
    "acknowledged expired"
)
_FOREIGN = "processed excluded in_lake waiting unexpected missing duplicates acknowledged"
_ORIGIN = (
    "origin accepted processed excluded in_lake waiting duplicates acknowledged expired missing not_processed unread "
    "not_in_lake unexpected"
)
"""The figures of each part, under the names that they have as JSON as well."""


def report_json(report: AuditReport) -> dict[str, Any]:
    """Return everything, each missing interval as `[start, stop)`."""
    return {
        **_figures(report, _REPORT),
        "losses": dict(report.losses),
        "unreadable": [vars(one) for one in report.unreadable],
        "quarantined": [vars(one) for one in report.quarantined],
        "quarantined_unnamed": report.unnamed,
        "accepted_by": [vars(one) for one in report.accepted_by],
        "pending_files": report.pending_files,
        "pending_rows": report.pending_rows,
        "counts": dict(report.counts),
        "foreign": _figures(report.foreign, _FOREIGN),
        "minutes": [] if report.single is None else [_minute_json(one) for one in report.single.minutes],
        "origins": [_figures(origin, _ORIGIN) for origin in report.origins],
    }


def _figures(found: AuditReport | ForeignAudit | OriginAudit, names: str) -> dict[str, Any]:
    return {name: getattr(found, name) for name in names.split()}


def _minute_json(one: MinuteAudit) -> dict[str, Any]:
    return {
        "shard_id": one.shard_id,
        "minute": iso_ms(one.minute_ms),
        "not_processed": one.not_processed,
        "not_in_lake": one.not_in_lake,
        "unexpected": one.unexpected,
        "duplicates": one.duplicates,
        "examples": list(one.examples),
    }


def report_tables(report: AuditReport, limit: int) -> None:
    """Print the report, those origins first that something is amiss with."""
    from rich.text import Text

    from headwater.commands.tables import show

    ordered = sorted(report.origins, key=lambda origin: (origin.exact, origin.origin))
    show(_table(report, ordered, limit))
    for line in _amiss(report, limit):
        show(Text(line, "red"))
    for origin in [origin for origin in ordered if not origin.exact][:limit]:
        for line in _lines(origin, limit):
            show(Text(line, "red"))
    if report.pending_files:
        show(f"{report.pending_rows:,} rows in {report.pending_files:,} files wait for the publisher")
    if report.unread:
        show(f"{report.unread:,} accepted events are not read yet: a shard is behind the receipts of others")
    for line in _accepted(report, limit):
        show(Text(line))
    if report.expired:
        show(f"{report.expired:,} in the lake are older than what the shards remember, and are not judged")
    show(
        f"{_verdict(report)}; {report.processed:,} processed, {report.in_lake:,} in the lake, {report.waiting:,} on "
        "their way"
    )


def _table(report: AuditReport, origins: Sequence[OriginAudit], limit: int) -> "Table":
    """Return a row for each of the first origins, and one for all events that are not of an origin of a producer."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"pipeline {report.pipeline}", title_justify="left", box=None, padding=(0, 2, 0, 0))
    columns = ("accepted", "processed", "excluded", "in the lake", "on its way", "missing", "twice")
    for column in ("origin", *columns):
        table.add_column(column, justify="left" if column == "origin" else "right")
    for origin in origins[:limit]:
        table.add_row(Text(origin.origin), *_hops(origin.accepted, origin), style=None if origin.exact else "red")
    if len(origins) > limit:
        table.add_row(f"… {len(origins) - limit:,} more", *[""] * len(columns))
    if report.foreign.processed or report.foreign.in_lake:
        table.add_row("(written by others)", *_hops(None, report.foreign))
    if report.single is not None:
        style = None if report.single.exact else "red"
        table.add_row("(each event an origin)", *_hops(report.single.accepted or None, report.single), style=style)
    return table


def _hops(accepted: int | None, one: OriginAudit | ForeignAudit | SingleEventsAudit) -> Iterator[str]:
    """Yield the figures of a row; nobody has told how many foreign events were accepted."""
    yield "-" if accepted is None else f"{accepted:,}"
    for figure in (one.processed, one.excluded, one.in_lake, one.waiting, one.missing, one.duplicates):
        yield f"{figure:,}"


def _amiss(report: AuditReport, limit: int) -> Iterator[str]:
    """Yield a line for each file, minute or loss that something is amiss with."""
    for file in report.unreadable[:limit]:
        yield f"{file.state} file {file.uri} ({file.rows:,} rows): {file.reason}"
    for held in report.quarantined[:limit]:
        yield f"quarantined since {iso_ms(held.since_ms)}: {held.uri} ({held.rows:,} rows): {held.reason}"
    if len(report.quarantined) > limit or report.unnamed:
        more = max(0, len(report.quarantined) - limit) + report.unnamed
        yield f"quarantined: {more:,} more files"
    for minute in [] if report.single is None else report.single.minutes[:limit]:
        counts = {
            "accepted, not processed": minute.not_processed,
            "processed, not in the lake": minute.not_in_lake,
            "in the lake, not processed": minute.unexpected,
            "twice": minute.duplicates,
        }
        said = ", ".join(f"{number:,} {name}" for name, number in counts.items() if number)
        shard = minute.shard_id or "no shard"
        yield f"{shard}, minute {iso_ms(minute.minute_ms)[:16]}: {said}, such as {', '.join(minute.examples)}"
    for name, number in report.losses.items():
        if number:
            yield f"{number:,} {LOSSES.get(name, name)}"


def _accepted(report: AuditReport, limit: int) -> Iterator[str]:
    for one in report.accepted_by[-limit:]:
        yield f"{one.events:,} accepted as missing on {iso_ms(one.at_ms)[:16]} by {one.who}: {one.why}"


def _verdict(report: AuditReport) -> str:
    if report.exact:
        return "exact" if not report.acknowledged else f"exact but for {report.acknowledged:,} accepted as missing"
    unexpected = f", {report.unexpected:,} in the lake and never processed" if report.unexpected else ""
    lost = f", {report.lost:,} lost or in conflict" if report.lost else ""
    other = f"; {report.other_stream}" if report.other_stream else ""
    return f"NOT exact: {report.missing:,} missing, {report.duplicates:,} twice{unexpected}{lost}{other}"


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
    """Yield a line for each shard: how long its last files took from their writing to the table."""
    for one in shards:
        took = "" if one.median_ms is None else f"in the lake {one.median_ms / 1000:.1f} s after writing (median)"
        yield f"{one.shard_id}: {took or 'nothing in the lake yet'}, {one.waiting_rows:,} rows wait\n"


def view_lines(found: "Sequence[ViewAudit]", limit: int) -> Iterator[str]:
    """Yield a line for each view, and one for each of its wrong values, `limit` of them at most."""
    for one in found:
        moving = f", {one.moving:,} not judged: they have moved meanwhile" if one.moving else ""
        said = "exact" if one.exact else f"NOT exact: {len(one.wrong):,} values are wrong"
        yield f"view {one.view}: {one.checked:,} rows computed anew from the lake: {said}{moving}"
        for file in one.unreadable[:limit]:
            yield f"  {file.state} file {file.uri} ({file.rows:,} rows): {file.reason}"
        for wrong in one.wrong[:limit]:
            row = f"  {wrong.view} {wrong.key!r}" + (f" {wrong.window_start}" if wrong.window_start else "")
            if not wrong.column:
                said = "is not stored" if wrong.stored is None else "is stored, and no event belongs there"
                yield f"{row} {said}"
            else:
                beside = " (the attribute beside its slots)" if wrong.where == "attribute" else ""
                yield f"{row} {wrong.column}: {wrong.stored!r} is stored{beside}, {wrong.right!r} is right"
        if len(one.wrong) > limit:
            yield f"  … {len(one.wrong) - limit:,} more"
