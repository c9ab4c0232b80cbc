"""Show the audit, and its badge in the header."""

from collections.abc import Iterable, Sequence
from typing import Any

from nicegui import ui

from headwater.processors.audit.report import AuditReport, ForeignAudit, OriginAudit, SingleEventsAudit
from headwater.serving.console.actions import PageActions
from headwater.serving.console.elements import card, fill_table, set_busy, table
from headwater.serving.console.formatting import age, clock_time, legible, ranges, short
from headwater.serving.console.state import AUDIT_SECONDS, ConsoleState

__all__ = ["AuditPanel", "audit_badge", "audit_rows"]

_COLUMNS = ["origin", "missing", "accepted>", "processed>", "excluded>", "on its way>", "in the lake>", "twice>"]
_MOST_ORIGINS = 500
_OLD_MS = 2 * AUDIT_SECONDS * 1000


class AuditPanel:
    """Show for each origin how many events reached each hop, and the missing ones by number."""

    def __init__(self, state: ConsoleState, actions: PageActions) -> None:
        self._state, self._actions = state, actions
        self._shown: AuditReport | None = None
        self._button: Any = None
        note = "Accepted, processed, in the lake: every event, with each missing interval by number."
        with card("Audit", note, wide=True):
            with ui.row().classes("items-center"):
                if state.controls.enabled:
                    self._button = ui.button("Audit now", on_click=self._now)
                self._status = ui.label("not run yet").props('role="status"')
            self._table = table(_COLUMNS, "origin", pagination=10)

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


def audit_rows(report: AuditReport) -> Iterable[tuple[str | tuple[str, str], ...]]:
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


def _line(one: OriginAudit) -> tuple[str | tuple[str, str], ...]:
    gaps = (*one.not_processed, *one.not_in_lake)
    missing = f"{one.missing:,}: {ranges(gaps)}" if gaps else "0"
    return (
        (short(one.origin), one.origin),
        (missing, f"{one.missing:,}: {ranges(gaps, 100)}" if gaps else ""),
        "–" if one.accepted is None else f"{one.accepted:,}",
        *_counts([one]),
    )
