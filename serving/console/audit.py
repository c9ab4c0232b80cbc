"""Show the audit, and its badge in the header."""

from collections.abc import Iterable, Sequence
from typing import Any

from nicegui import ui

from headwater.processors.audit.report import AuditReport, ForeignAudit, OriginAudit, SingleEventsAudit
from headwater.serving.console.actions import PageActions
from headwater.serving.console.details import Detail
from headwater.serving.console.elements import Cell, card, fill_table, set_busy, table
from headwater.serving.console.formatting import age, clock_time, legible, moment, ranges, short
from headwater.serving.console.places import link_to
from headwater.serving.console.state import AUDIT_SECONDS, ConsoleState

__all__ = ["AuditPanel", "audit_badge", "audit_rows", "minute_rows", "origin_facts"]

_COLUMNS = ["origin", "missing", "accepted>", "processed>", "excluded>", "on its way>", "in the lake>", "twice>"]
_MINUTES = ["shard and minute", "not processed>", "not in the lake>", "unexpected>", "twice>", "examples"]
_MOST_ORIGINS = 500
_MOST_RANGES = 1_000
"""Intervals of one origin that are shown, and minutes in which something is amiss."""
_OLD_MS = 2 * AUDIT_SECONDS * 1000


class AuditPanel:
    """Show for each origin how many events reached each hop, and the missing ones by number."""

    def __init__(self, state: ConsoleState, actions: PageActions) -> None:
        self._state, self._actions = state, actions
        self._shown: AuditReport | None = None
        self._button: Any = None
        note = "Accepted, processed, in the lake: every event, with each missing interval by number."
        with card("audit", "Audit", note, wide=True):
            with ui.row().classes("items-center w-full"):
                if state.controls.enabled:
                    self._button = ui.button("Audit now", on_click=self._now)
                self._status = ui.label("not run yet").props('role="status"')
            self._table = table(_COLUMNS, "origin", pagination=10, empty="no events yet")
            with ui.element("div").classes("w-full") as self._by_minute:
                ui.label("By shard and minute of arrival").props('role="heading" aria-level="3"')
                self._minutes = table(_MINUTES, "shard and minute", pagination=10, empty="every event is there once")
            self._by_minute.set_visibility(False)
            self.detail = Detail("audit", [self._table])

    async def _now(self) -> None:
        await self._actions.run(self._button, self._audited)

    async def _audited(self) -> str:
        await self._state.audit.refresh()
        if self._state.audit.error:
            raise RuntimeError(self._state.audit.error)
        return ""

    def show(self) -> None:
        """Show the last report, if it is another than before."""
        poll = self._state.audit
        if self._button is not None:
            set_busy(self._button, poll.is_running)
        report: AuditReport | None = poll.value
        if report is None:
            self._status.set_text(legible(poll.error) or "reading every identity in the lake …")
            return
        unread = f"{report.unread:,} accepted and not read yet, " if report.unread else ""
        waiting = f", {report.waiting:,} on their way to it" if report.waiting else ""
        self._status.set_text(
            f"{unread}{report.processed:,} processed, {report.in_lake:,} in the lake{waiting}; "
            f"as of {clock_time(poll.at_ms)}" + (f"; {legible(poll.error)}" if poll.error else "")
        )
        if report is not self._shown:
            self._shown = report
            fill_table(self._table, audit_rows(report))
            fill_table(self._minutes, minute_rows(report))
        self._by_minute.set_visibility(report.single is not None and self.detail.name is None)
        if self.detail.name is not None:
            self.detail.show(origin_facts(self.detail.name, report))


def audit_badge(report: AuditReport | None, age_ms: int | None) -> tuple[str, str]:
    """Return the badge's text and colour; grey when the audit is too old to say anything about now."""
    if report is None or age_ms is None:
        return "not audited yet", "grey-8"
    counts = (
        (report.missing, "missing"),
        (report.duplicates, "twice"),
        (report.unexpected, "unexpected"),
        (report.lost, "lost"),
        (int(bool(report.other_stream)), "other stream"),
    )
    text = ", ".join(f"{count:,} {what}" for count, what in counts if count) or "exact"
    if age_ms > _OLD_MS:
        return f"{text} {age(age_ms)} ago", "grey-8"
    return text, "positive" if report.exact else "negative"


def audit_rows(report: AuditReport) -> Iterable[tuple[Cell, ...]]:
    """Yield the table's rows: events without an identity in one row, then origins, those that are not exact first."""
    foreign = report.foreign
    if foreign.processed or foreign.in_lake:
        yield ("others, without an identity", f"{foreign.missing:,}", "–", *_counts([foreign]))
    ordered = sorted(report.origins, key=lambda one: (one.exact, one.origin))
    for one in ordered[:_MOST_ORIGINS]:
        yield _line(one)
    if report.single is not None:
        accepted = f"{report.single.accepted:,}" if report.single.accepted else "–"
        yield ("each event an origin", f"{report.single.missing:,}", accepted, *_counts([report.single]))
    rest = ordered[_MOST_ORIGINS:]
    if rest:
        yield (f"{len(rest):,} further origins", f"{sum(one.missing for one in rest):,}", "–", *_counts(rest))


def _counts(found: Sequence[OriginAudit | ForeignAudit | SingleEventsAudit]) -> Iterable[str]:
    names = ("processed", "excluded", "waiting", "in_lake", "duplicates")
    return (f"{sum(getattr(one, name) for one in found):,}" for name in names)


def _line(one: OriginAudit) -> tuple[Cell, ...]:
    gaps = (*one.not_processed, *one.not_in_lake)
    missing = f"{one.missing:,}: {ranges(gaps)}" if gaps else "0"
    return (
        (short(one.origin), one.origin, link_to("audit", one.origin)),
        (missing, f"{one.missing:,}: {ranges(gaps, 100)}" if gaps else ""),
        "–" if one.accepted is None else f"{one.accepted:,}",
        *_counts([one]),
    )


def minute_rows(report: AuditReport) -> Iterable[tuple[Cell, ...]]:
    """Yield, where every event is an origin of its own, the minutes of a shard in which something is amiss."""
    for one in (report.single.minutes if report.single else ())[:_MOST_RANGES]:
        shard = short(one.shard_id) if one.shard_id else "no shard"
        yield (
            (f"{shard} · {moment(one.minute_ms)}", one.shard_id, link_to("shards", one.shard_id)),
            *(f"{count:,}" for count in (one.not_processed, one.not_in_lake, one.unexpected, one.duplicates)),
            ", ".join(one.examples),
        )


def origin_facts(origin: str, report: AuditReport) -> Iterable[tuple[str, Cell]]:
    """Yield what the audit found of one origin; nothing if it has none of it."""
    for one in report.origins:
        if one.origin == origin:
            yield "verdict", "exact" if one.exact else "not exact"
            yield "accepted", "not reported" if one.accepted is None else f"{one.accepted:,}"
            yield "processed", f"{one.processed:,}"
            yield "excluded: filtered or dead letters", f"{one.excluded:,}"
            yield "in the lake", f"{one.in_lake:,}"
            yield "on its way to the lake", f"{one.waiting:,}"
            yield "twice in the lake", f"{one.duplicates:,}"
            yield "missing", f"{one.missing:,}"
            yield "missing, which somebody accepted", f"{one.acknowledged:,}"
            for what in ("not_processed", "not_in_lake", "unread", "unexpected"):
                yield what.replace("_", " "), ranges(getattr(one, what), _MOST_RANGES) or "none"
            return
