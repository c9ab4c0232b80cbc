"""The page itself: NiceGUI and ECharts, whose assets come with the package.

What comes from events (keys, reasons, payloads) is shown as text only: labels, table cells and rich-text tooltips,
never as HTML.
"""

from collections.abc import Callable
from functools import partial

from nicegui import ElementFilter, ui

from headwater.console import theme
from headwater.console.alerts import AlertsPanel, firing
from headwater.console.audit import AuditPanel, audit_badge
from headwater.console.desk import Allows, Desk
from headwater.console.elements import BY_NUMBER, PHONE
from headwater.console.flow import FlowPanel, RatesPanel
from headwater.console.jobs import JobsPanel
from headwater.console.lake import LakePanel
from headwater.console.letters import LettersPanel
from headwater.console.overview import TableState
from headwater.console.shards import ShardsPanel
from headwater.console.shared import STALE_MS, Shared
from headwater.console.views import ViewsPanel
from headwater.console.words import age, clock_time

__all__ = ["console_page"]

_TICK_SECONDS = 1.0
_ROWS_ON_A_PHONE = 4
_SIGN_OUT = "fetch('/logout', {method: 'POST'}).finally(() => location.assign('/login'))"
_TO_LOGIN = """
const look = () => fetch('/').then((found) => found.redirected && location.assign(found.url)).catch(() => 0);
for (const lost of ['disconnect', 'connect_error']) window.socket.on(lost, look);
"""
"""A socket ends when its key does not hold any more."""


class Page:
    """One open page: its elements, and how they are brought up to date."""

    def __init__(self, shared: Shared, allows: Allows, keys: bool) -> None:
        self._shared, self._desk = shared, Desk(allows)
        self._dark = theme.dress()
        self._header(keys)
        with ui.element("main").classes("w-full max-w-screen-2xl mx-auto p-2 grid grid-cols-1 xl:grid-cols-2 gap-3"):
            self._flow = FlowPanel()
            self._shards = ShardsPanel()
            self._alerts = AlertsPanel() if shared.collector.pipeline.alerts else None
            self._audit = AuditPanel(shared, self._desk)
            self._rates = RatesPanel()
            self._lake = LakePanel()
            self._letters = LettersPanel(shared, self._desk)
            self._jobs = JobsPanel(shared, self._desk)
            ViewsPanel(shared, self._desk)
        ui.add_head_html(f"<script>{BY_NUMBER}</script>")
        ui.timer(_TICK_SECONDS, self._tick)
        ui.timer(_TICK_SECONDS, self._fit, once=True)
        if keys:
            ui.run_javascript(_TO_LOGIN)
        self.refresh()

    def _header(self, keys: bool) -> None:
        with ui.header().classes("items-center gap-x-3 gap-y-1 py-2"):
            ui.label("headwater").classes("text-xl font-bold").props('role="heading" aria-level="1"')
            ui.label(f"{self._shared.collector.stream} · {self._shared.collector.pipeline.name}")
            self._state = ui.badge("…").props('role="status" aria-live="polite" aria-label="audit"')
            self._firing = ui.badge("", color="negative").props('role="status" aria-live="polite" aria-label="alerts"')
            self._stale = ui.badge("stale", color="negative").props('role="status" aria-live="assertive"')
            self._as_of = ui.label("").classes("text-sm")
            ui.space()
            ui.button("Light or dark", on_click=partial(theme.switch, self._dark)).props("flat color=white dense")
            if keys:
                ui.button("Sign out", on_click=lambda: ui.run_javascript(_SIGN_OUT)).props("flat color=white dense")
            self._errors = ui.label("").classes("w-full text-sm").props('role="alert"')

    async def _fit(self) -> None:
        """On a phone a few rows are a screen."""
        if await ui.run_javascript(PHONE):
            for table in ElementFilter(kind=ui.table):
                if table.pagination["rowsPerPage"]:
                    table.pagination = {**table.pagination, "rowsPerPage": _ROWS_ON_A_PHONE}

    def _tick(self) -> None:
        self._shared.ask_what_is_due()
        self.refresh()

    def refresh(self) -> None:
        """Show what was found last, and how old it is."""
        shared = self._shared
        self._refresh_header()
        if shared.overview.answer is not None:
            found = shared.overview.answer
            self._flow.show(found)
            self._shards.show(found)
            self._rates.show(found)
            self._lake.show(found, shared.table.answer or TableState(), shared.table.at_ms)
            self._jobs.show(found.jobs)
        if self._alerts is not None and shared.alerts.answer is not None:
            self._alerts.show(shared.alerts.answer)
        self._audit.show()
        self._letters.show()

    def _refresh_header(self) -> None:
        shared = self._shared
        said, colour = audit_badge(shared.audit.answer, shared.audit.age_ms())
        self._state.set_text(said)
        self._state.props(f"color={colour}")
        fires = firing(shared.alerts.answer or ())
        self._firing.set_text(f"{fires:,} firing")
        self._firing.set_visibility(bool(fires))
        old = shared.overview.age_ms()
        self._stale.set_visibility(old is not None and old > STALE_MS)
        self._as_of.set_text(
            "asking …" if old is None else f"as of {clock_time(shared.overview.at_ms)} ({age(max(1_000, old))} ago)"
        )
        self._errors.set_text("; ".join(f"{one.name}: {one.error}" for one in shared.questions if one.error)[:600])


def console_page(shared: Shared, allows: Allows, *, keys: bool) -> Callable[[], None]:
    """The function that builds the page for each visitor; `keys` is whether one signs in."""

    def build() -> None:
        ui.page_title("headwater")
        Page(shared, allows, keys)

    return build
