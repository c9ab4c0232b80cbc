"""The section of the page that has the audit, and its badge."""

from collections.abc import Iterable, Sequence
from typing import Any

from nicegui import ui

from headwater.console.desk import Desk
from headwater.console.elements import busy, card, fill, table
from headwater.console.shared import AUDIT_SECONDS, Shared
from headwater.console.words import age, clock_time, ranges, short
from processors.audit import AuditReport, ForeignAudit, OriginAudit

__all__ = ["AuditPanel", "audit_badge", "audit_lines"]

_COLUMNS = ["origin", "missing", "accepted>", "processed>", "excluded>", "on its way>", "in the lake>", "twice>"]
_MOST_ORIGINS = 500
_OLD_MS = 2 * AUDIT_SECONDS * 1000


class AuditPanel:
    """Hop by hop, of each origin, with what is missing by number."""

    def __init__(self, shared: Shared, desk: Desk) -> None:
        self._shared, self._desk = shared, desk
        self._shown: AuditReport | None = None
        self._button: Any = None
        note = "Accepted, processed, in the lake: every event, with each missing interval by number."
        with card("Audit", note, wide=True):
            with ui.row().classes("items-center"):
                if shared.collector.controls:
                    self._button = ui.button("Audit now", on_click=self._now)
                self._said = ui.label("not run yet").props('role="status"')
            self._table = table(_COLUMNS, "origin", pagination=10)

    async def _now(self) -> None:
        await self._desk.act(self._button, self._audited)

    async def _audited(self) -> str:
        await self._shared.audit.ask()
        if self._shared.audit.error:
            raise RuntimeError(self._shared.audit.error)
        return ""

    def show(self) -> None:
        question = self._shared.audit
        if self._button is not None:
            busy(self._button, question.running)
        report: AuditReport | None = question.answer
        if report is None:
            self._said.set_text(question.error or "reading every identity in the lake …")
            return
        unread = f"{report.unread:,} accepted and not read yet, " if report.unread else ""
        waiting = f", {report.waiting:,} on their way to it" if report.waiting else ""
        self._said.set_text(
            f"{unread}{report.processed:,} processed, {report.in_lake:,} in the lake{waiting}; "
            f"as of {clock_time(question.at_ms)}" + (f"; {question.error}" if question.error else "")
        )
        if report is not self._shown:
            self._shown = report
            fill(self._table, audit_lines(report))


def audit_badge(report: AuditReport | None, age_ms: int | None) -> tuple[str, str]:
    """What the badge says, and its colour: grey where the audit is too old to say anything of now."""
    if report is None or age_ms is None:
        return "not audited yet", "grey-8"
    counts = ((report.missing, "missing"), (report.duplicates, "twice"), (report.unexpected, "unexpected"))
    said = ", ".join(f"{count:,} {what}" for count, what in counts if count) or "exact"
    if age_ms > _OLD_MS:
        return f"{said} {age(age_ms)} ago", "grey-8"
    return said, "positive" if report.exact else "negative"


def audit_lines(report: AuditReport) -> Iterable[tuple[str | tuple[str, str], ...]]:
    """The table's lines: origins, those that are not exact first, after events without an origin, all in one line."""
    foreign = report.foreign
    if foreign.processed or foreign.in_lake:
        yield ("others, without an identity", f"{foreign.missing:,}", "–", *_counts([foreign]))
    ordered = sorted(report.origins, key=lambda one: (one.exact, one.origin))
    for one in ordered[:_MOST_ORIGINS]:
        yield _line(one)
    rest = ordered[_MOST_ORIGINS:]
    if rest:
        yield (f"{len(rest):,} further origins", f"{sum(one.missing for one in rest):,}", "–", *_counts(rest))


def _counts(found: Sequence[OriginAudit | ForeignAudit]) -> Iterable[str]:
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
