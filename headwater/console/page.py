"""The page itself: NiceGUI and ECharts, whose assets come with the package.

What comes from events (keys, reasons, payloads) is shown as text only: labels, table cells and rich-text tooltips,
never as HTML.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from nicegui import run, ui

from headwater.console.alerts import AlertsPanel
from headwater.console.charts import age, flow_options, moment, rate_options, shard_options, short, size, view_options
from headwater.console.collector import MOST_LETTERS, Collector
from headwater.console.elements import card, fill, replace_options, table
from headwater.console.jobs import JobsPanel
from headwater.console.overview import Overview, ShardRow, rates
from processors.audit import AuditReport
from processors.pipeline import View
from sinks.deadletter import DeadLetter

__all__ = ["console_page"]

_LOOK_SECONDS = 2.0
_AUDIT_SECONDS = 60.0
_LETTERS_SECONDS = 6.0
_MOST_POINTS = 500
_EXPLORED = 8, 60
"""Keys of a view, and windows of each."""


def letter_name(letter: DeadLetter) -> str:
    """As `headwater dlq list` names it."""
    return f"{letter.shard_id}:{letter.sequence_number}" + ("" if letter.index is None else f":{letter.index}")


def letter_text(letter: DeadLetter) -> str:
    """The payload's beginning, as text."""
    text = letter.payload[:160].decode(errors="replace")
    return "".join(one if one.isprintable() else "·" for one in text)


@dataclass
class Shared:
    """What was found last, for all pages. One task asks; pages only look."""

    collector: Collector
    overview: Overview | None = None
    audit: AuditReport | None = None
    audit_ms: int = 0
    letters: list[DeadLetter] = field(default_factory=list)
    alerts: list[dict[str, object]] = field(default_factory=list)
    jobs: list[dict[str, object]] = field(default_factory=list)
    error: str = ""
    points: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    async def keep_looking(self) -> None:
        """Until cancelled."""
        for turn in range(1 << 62):
            await self._ask(self._look)
            await self._ask(self._look_at_jobs)
            if turn % round(_LETTERS_SECONDS / _LOOK_SECONDS) == 0:
                await self._ask(self._look_at_letters)
                await self._ask(self._look_at_alerts)
            if turn % round(_AUDIT_SECONDS / _LOOK_SECONDS) == 0:
                await self._ask(self.look_at_audit)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _ask(self, question: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(question)
            self.error = ""
        except Exception as error:  # shown on the page, and asked again
            self.error = f"{type(error).__name__}: {error}"

    def _look(self) -> None:
        self.overview = self.collector.look()
        self.points.append((self.overview.at_ms, rates(self.collector.history)))
        del self.points[:-_MOST_POINTS]

    def _look_at_letters(self) -> None:
        self.letters = self.collector.letters()

    def _look_at_alerts(self) -> None:
        self.alerts = self.collector.alerts()

    def _look_at_jobs(self) -> None:
        self.jobs = self.collector.jobs()

    def look_at_audit(self) -> None:
        """The whole audit."""
        self.audit, self.audit_ms = self.collector.audit(), self.overview.at_ms if self.overview else 0

    def redrive(self, names: Iterable[str]) -> int:
        """Those of the letters that wait; the list is read anew afterwards."""
        wanted = set(names)
        sent = self.collector.redrive([one for one in self.letters if letter_name(one) in wanted])
        self._look_at_letters()
        return sent


class Page:
    """One open page: its elements, and how they are brought up to date."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._audit_shown: AuditReport | None = None
        self._letters_shown: list[DeadLetter] | None = None
        self._dark = ui.dark_mode(value=None)
        self._header()
        with ui.element("main").classes("w-full max-w-screen-2xl mx-auto p-2 grid grid-cols-1 xl:grid-cols-2 gap-3"):
            self._flow()
            self._shards()
            self._alerts = AlertsPanel() if shared.collector.pipeline.alerts else None
            self._rates()
            self._audit()
            self._letters()
            self._table()
            self._jobs = JobsPanel(self._cancel if shared.collector.controls else None)
            self._views()
        ui.timer(_LOOK_SECONDS, self.refresh)
        self.refresh()

    def _header(self) -> None:
        with ui.header().classes("items-center gap-3"):
            ui.label("headwater").classes("text-xl font-bold").props('role="heading" aria-level="1"')
            ui.label(f"{self._shared.collector.stream} · {self._shared.collector.pipeline.name}")
            self._state = ui.badge("…").props('role="status" aria-live="polite"')
            self._error = ui.label("").classes("text-sm")
            ui.space()
            ui.button("Light or dark", on_click=self._switch).props("flat color=white dense")

    def _switch(self) -> None:
        self._dark.set_value(not self._dark.value)

    def _flow(self) -> None:
        with card("Flow", "What has come so far, how much a second, and how far behind each step is.", wide=True):
            self._flow_chart = ui.echart(flow_options(()), renderer="svg").classes("w-full h-64 max-sm:hidden")
            self._flow_table = table(["step", "events>", "per second>", "behind>", "note"], "step")

    def _rates(self) -> None:
        with card("Rates", "Over the last minute, as of each commit."):
            self._rate_chart = ui.echart(rate_options(()), renderer="svg").classes("w-full h-72")
            self._counts = ui.label("").classes("text-sm opacity-70")

    def _shards(self) -> None:
        with card(
            "Shards",
            "The hash space from left to right: below half of a limit blue, above amber, from 80 % red.",
            wide=True,
        ):
            self._shard_chart = ui.echart(shard_options(()), renderer="svg").classes("w-full h-24")
            columns = ["shard", "share>", "nearest limit>", "events/s>", "bytes/s>", "behind>", "heaviest keys"]
            self._shard_table = table([*columns, "owner", "epoch>", "committed", "position"], "shard")
            with ui.expansion("What the autoscaler decided").classes("w-full"):
                self._decisions = table(["at", "decision", "why"], "at", pagination=5)

    def _audit(self) -> None:
        with card("Audit", "Accepted, processed, in the lake: every event, with each missing interval by number."):
            with ui.row().classes("items-center"):
                ui.button("Audit now", on_click=self._audit_now)
                self._audit_said = ui.label("not run yet")
            columns = ["origin", "accepted>", "processed>", "excluded>", "in the lake>", "missing>", "twice>", "gaps"]
            self._audit_table = table(columns, "origin", pagination=10)

    def _letters(self) -> None:
        with card("Dead letters", "What could not be processed, and why. Put the cause right, then send them again."):
            with ui.row().classes("items-center"):
                if self._shared.collector.controls:
                    ui.button("Redrive selected", on_click=lambda: self._redrive(every=False))
                    ui.button("Redrive all", on_click=lambda: self._redrive(every=True)).props("outline")
                self._letters_said = ui.label("none wait")
            columns = ["letter", "reason", "arrived", "payload"]
            self._letters_table = table(columns, "letter", pagination=10, selection="multiple")

    def _table(self) -> None:
        with card("Publisher and table"):
            self._table_said = table(["what", "value"], "what")

    def _views(self) -> None:
        views = self._shared.collector.pipeline.views
        with card("Views", "Rows merged over all shards: the last 60 windows of the first 8 keys.", wide=True):
            if not views:
                ui.label("this pipeline has no views")
                return
            names = [view.name for view in views]
            with ui.row().classes("items-center"):
                self._view = ui.select(names, value=names[0], label="view", on_change=self._view_changed).classes(
                    "w-40"
                )
                self._prefix = ui.input("key begins with").on("keydown.enter", self._show_view)
                self._value = ui.select([], label="chart").classes("w-40")
                ui.button("Show", on_click=self._show_view)
            self._view_chart = ui.echart(view_options((), (), ""), renderer="svg").classes("w-full h-64")
            self._view_holder = ui.element("div").classes("w-full")
            self._view_changed()
            ui.timer(0.5, self._show_view, once=True)

    def _view_changed(self) -> None:
        self._offer(next(one for one in self._shared.collector.pipeline.views if one.name == self._view.value))

    def _offer(self, view: View) -> None:
        """The values that can be charted."""
        names = [aggregate.name for aggregate in view.aggregates]
        if names != self._value.options:
            self._value.set_options(names, value=names[0])

    async def _show_view(self) -> None:
        collector, name = self._shared.collector, self._view.value
        try:
            view = await run.io_bound(collector.view, name)
            rows = await run.io_bound(collector.view_rows, name, self._prefix.value or "", *_EXPLORED) or []
        except Exception as error:  # shown, and asked again by the user
            ui.notify(f"{type(error).__name__}: {error}", type="negative")
            return
        if view is None:  # the service is ending
            return
        self._offer(view)
        replace_options(self._view_chart, view_options(rows, view.by, self._value.value))
        self._view_holder.clear()
        with self._view_holder:
            names = list(dict.fromkeys(name for row in rows for name in row))
            found = table(names, "row", pagination=10)
            found.rows = [{name: plain(row.get(name)) for name in names} | {"row": at} for at, row in enumerate(rows)]
            found.update()

    async def _audit_now(self) -> None:
        self._audit_said.set_text("reading every identity in the lake …")
        try:
            await run.io_bound(self._shared.look_at_audit)
        except Exception as error:  # shown, and asked again by the user
            ui.notify(f"{type(error).__name__}: {error}", type="negative")
        self.refresh()

    async def _cancel(self, names: Sequence[str]) -> None:
        try:
            await run.io_bound(self._shared.collector.cancel, names)
            ui.notify(f"{', '.join(names)} asked to end" if names else "choose jobs first")
        except Exception as error:  # shown, and asked again by the user
            ui.notify(f"{type(error).__name__}: {error}", type="negative")

    async def _redrive(self, *, every: bool) -> None:
        chosen = self._shared.letters if every else []
        names = [letter_name(one) for one in chosen] or [row["letter"] for row in self._letters_table.selected]
        if not names:
            ui.notify("choose letters first")
            return
        try:
            sent = await run.io_bound(self._shared.redrive, names)
            ui.notify(f"{sent} sent again", type="positive")
        except Exception as error:  # shown, and asked again by the user
            ui.notify(f"{type(error).__name__}: {error}", type="negative")
        self._letters_table.selected = []
        self.refresh()

    def refresh(self) -> None:
        """Show what was found last."""
        shared = self._shared
        self._error.set_text(shared.error)
        if shared.overview is not None:
            self._show_overview(shared.overview)
        if shared.audit is not None and shared.audit is not self._audit_shown:
            self._show_audit(shared.audit)
        if self._alerts is not None:
            self._alerts.show(shared.alerts)
        self._jobs.show(shared.jobs)
        if shared.letters is not self._letters_shown:
            self._show_letters(shared.letters)

    def _show_overview(self, found: Overview) -> None:
        replace_options(self._flow_chart, flow_options(found.hops))
        replace_options(self._rate_chart, rate_options(self._shared.points))
        replace_options(self._shard_chart, shard_options(found.shards))
        fill(
            self._flow_table,
            ((hop.name, f"{hop.total:,}", f"{hop.per_second:,.1f}", age(hop.lag_ms), hop.note) for hop in found.hops),
        )
        fill(self._shard_table, (shard_cells(row, found.at_ms) for row in found.shards))
        fill(self._decisions, ((moment(at), action, why) for at, action, why in found.decisions))
        self._counts.set_text(" · ".join(f"{name} {number:,}" for name, number in sorted(found.counts.items())))
        state = found.table
        small = "–" if state.small_files is None else f"{state.small_files:,}"
        fill(
            self._table_said,
            (
                ("publisher", found.publisher or "none leads"),
                ("rows in the table", f"{state.rows:,}"),
                ("files", f"{state.files:,}, of them {small} below 128 MB"),
                ("bytes", size(state.bytes)),
                ("snapshots", f"{state.snapshots:,}"),
                ("last commit", moment(state.snapshot_ms)),
                ("as of", moment(found.at_ms)),
            ),
        )

    def _show_audit(self, report: AuditReport) -> None:
        self._audit_shown = report
        self._state.set_text("exact" if report.exact else f"{report.missing:,} missing, {report.duplicates:,} twice")
        self._state.props(f"color={'positive' if report.exact else 'negative'}")
        pending = f", {report.pending_rows:,} on their way to the table" if report.pending_rows else ""
        self._audit_said.set_text(
            f"{report.processed:,} processed, {report.in_lake:,} in the lake{pending}; "
            f"as of {moment(self._shared.audit_ms)}"
        )
        ordered = sorted(report.origins, key=lambda one: (one.exact, one.origin))[:_MOST_POINTS]
        fill(
            self._audit_table,
            (
                (
                    one.origin,
                    "–" if one.accepted is None else f"{one.accepted:,}",
                    f"{one.processed:,}",
                    f"{one.excluded:,}",
                    f"{one.in_lake:,}",
                    f"{one.missing:,}",
                    f"{one.duplicates:,}",
                    gaps((*one.not_processed, *one.not_in_lake)),
                )
                for one in ordered
            ),
        )

    def _show_letters(self, letters: list[DeadLetter]) -> None:
        self._letters_shown = letters
        many = f"{MOST_LETTERS} or more" if len(letters) >= MOST_LETTERS else f"{len(letters):,}"
        self._letters_said.set_text(f"{many} wait" if letters else "none wait")
        fill(
            self._letters_table,
            ((letter_name(one), one.reason, moment(one.arrived_ms), letter_text(one)) for one in letters),
        )


def shard_cells(row: ShardRow, now_ms: int) -> tuple[str, ...]:
    """A shard's line in the table."""
    state = "" if row.open else " (closed, read to its end)" if row.closed else " (closed)"
    return (
        short(row.shard_id) + state,
        f"{row.width:.1%}",
        "–" if row.hottest is None else f"{row.hottest:.1%}",
        f"{row.events_s:,.1f}",
        size(row.bytes_s),
        age(row.lag_ms),
        ", ".join(f"{key} {share:.0%}" for key, share in row.heavy),
        row.owner,
        str(row.epoch),
        "–" if row.committed_ms is None else f"{age(now_ms - row.committed_ms)} ago",
        row.position,
    )


def gaps(intervals: Sequence[tuple[int, int]], most: int = 5) -> str:
    """Missing intervals by number, both ends included."""
    shown = [str(start) if stop == start + 1 else f"{start}–{stop - 1}" for start, stop in intervals[:most]]
    return ", ".join(shown) + (f" and {len(intervals) - most} more" if len(intervals) > most else "")


def plain(value: object) -> str | int | float | None:
    """A view's value as a table cell."""
    return value if isinstance(value, str | int | float) or value is None else json.dumps(value, default=str)


def console_page(shared: Shared) -> Callable[[], None]:
    """The function that builds the page for each visitor."""

    def build() -> None:
        ui.page_title("headwater")
        Page(shared)

    return build
