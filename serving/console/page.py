"""Put the page together from its panels: NiceGUI and ECharts, whose assets come with the package.

What comes from events (keys, reasons, payloads) is shown as text only: labels, table cells and rich-text tooltips,
never as HTML.
"""

import json
from collections.abc import Callable
from functools import partial

from nicegui import ui

from headwater.serving.console import theme
from headwater.serving.console.actions import AccessCheck, PageActions
from headwater.serving.console.alerts import AlertsPanel, count_firing
from headwater.serving.console.audit import AuditPanel, audit_badge
from headwater.serving.console.elements import BY_NUMBER, FOCUS, PHONE, fit_tables
from headwater.serving.console.flow import FlowPanel, RatesPanel
from headwater.serving.console.formatting import age, clock_time, legible
from headwater.serving.console.jobs import JobsPanel
from headwater.serving.console.lake import LakePanel
from headwater.serving.console.letters import LettersPanel
from headwater.serving.console.places import SECTIONS, link_to, place_of
from headwater.serving.console.shards import ShardsPanel
from headwater.serving.console.state import STALE_MS, ConsoleState
from headwater.serving.console.views import ViewsPanel

__all__ = ["console_page"]

_TICK_SECONDS = 1.0
_SIGN_OUT = "fetch('/logout', {method: 'POST'}).finally(() => location.assign('/login'))"
_TO_LOGIN = """
const go = (found) => found.redirected && location.assign(found.url + location.hash);
const look = () => fetch('/').then(go).catch(() => 0);
for (const lost of ['disconnect', 'connect_error']) window.socket.on(lost, look);
"""
"""Script that goes to the login page once the socket is closed because the key was revoked."""
_PLACES = (
    "window.SECTIONS = "
    + json.dumps([*SECTIONS])
    + """;
window.showPlace = () => {
  const [found, ...names] = location.hash.slice(1).split("/");
  const section = SECTIONS.includes(found) ? found : SECTIONS[0];
  const alone = section === found && names.some((name) => name);
  document.body.dataset.at = section;
  document.body.toggleAttribute("data-alone", alone);
  for (const link of document.querySelectorAll("nav.sections a")) {
    if (link.getAttribute("href") === "#" + section) {
      link.setAttribute("aria-current", "page");
    } else link.removeAttribute("aria-current");
  }
  if (alone || !found) scrollTo(0, 0);
  else document.querySelector(`[data-place=${section}]`)?.scrollIntoView();
  return location.hash.slice(0, 20000);
};
addEventListener("hashchange", () => emitEvent("moved", showPlace()));
"""
)
"""Script that shows what the URL names behind `#`, when it changes, by the visitor's links or by going back."""
_AT_FIRST = f"emitEvent('moved', showPlace()); if ({PHONE}) emitEvent('phone');"
"""Script of a page that is there; a browser may take as long as it likes."""


class Page:
    """Hold the panels of one open page, and bring them up to date every second."""

    def __init__(self, state: ConsoleState, check_access: AccessCheck, keys: bool) -> None:
        self._state, self._actions = state, PageActions(check_access)
        self._dark = theme.apply_theme()
        self._header(keys)
        places = ui.element("div").classes("places w-full max-w-screen-2xl mx-auto p-2 grid grid-cols-1 gap-3")
        with places.classes("xl:grid-cols-2"):
            self._flow = FlowPanel()
            self._shards = ShardsPanel()
            self._alerts = AlertsPanel() if state.collector.pipeline.alerts else None
            self._audit = AuditPanel(state, self._actions)
            self._rates = RatesPanel()
            self._lake = LakePanel()
            self._letters = LettersPanel(state, self._actions)
            self._jobs = JobsPanel(state, self._actions)
            self._views = ViewsPanel(state, self._actions)
        ui.add_head_html(f"<script>{BY_NUMBER}{FOCUS}{_PLACES}</script>")
        ui.on("moved", lambda event: self._open(event.args))
        ui.on("phone", fit_tables)
        ui.run_javascript(_AT_FIRST)
        ui.timer(_TICK_SECONDS, self._tick)
        if keys:
            ui.run_javascript(_TO_LOGIN)
        self.refresh()

    def _header(self, keys: bool) -> None:
        with ui.header().classes("items-center gap-x-3 gap-y-1 py-2"):
            ui.label("headwater").classes("text-xl font-bold").props('role="heading" aria-level="1"')
            ui.label(f"{self._state.collector.stream} · {self._state.collector.pipeline.name}")
            self._audit_state = ui.badge("…").props('role="status" aria-live="polite" aria-label="audit"')
            self._firing = ui.badge("", color="negative").props('role="status" aria-live="polite" aria-label="alerts"')
            self._stale = ui.badge("stale", color="negative").props('role="status" aria-live="assertive"')
            self._as_of = ui.label("").classes("text-sm")
            ui.space()
            ui.button("Light or dark", on_click=partial(theme.toggle_dark, self._dark)).props("flat color=white dense")
            if keys:
                ui.button("Sign out", on_click=lambda: ui.run_javascript(_SIGN_OUT)).props("flat color=white dense")
            self._errors = ui.label("").classes("w-full text-sm").props('role="alert"')
            with ui.element("nav").classes("sections").props('aria-label="sections"'):
                for section, title in SECTIONS.items():
                    if section != "alerts" or self._state.collector.pipeline.alerts:
                        ui.link(title, link_to(section))
                ui.link("Query API", "/docs")

    def _open(self, fragment: object) -> None:
        """Open what the page's URL names behind `#`."""
        place = place_of(fragment)
        for section, panel in (("shards", self._shards), ("audit", self._audit), ("jobs", self._jobs)):
            panel.detail.open(place.names[0] if place.names and place.section == section else None)
        if place.section == "views":
            self._views.open(place.names)
        self.refresh()

    def _tick(self) -> None:
        self._state.refresh_due()
        self.refresh()

    def refresh(self) -> None:
        """Show the values read last, and their age."""
        state = self._state
        self._refresh_header()
        if state.overview.value is not None:
            found = state.overview.value
            self._flow.show(found)
            self._shards.show(found)
            self._rates.show(found)
            self._lake.show(found, state.table)
            self._jobs.show(found.jobs)
        if self._alerts is not None and state.alerts.value is not None:
            self._alerts.show(state.alerts.value)
        self._audit.show()
        self._letters.show()

    def _refresh_header(self) -> None:
        state = self._state
        text, colour = audit_badge(state.audit.value, state.audit.age_ms())
        self._audit_state.set_text(text)
        self._audit_state.props(f"color={colour}")
        fires = count_firing(state.alerts.value or ())
        self._firing.set_text(f"{fires:,} firing")
        self._firing.set_visibility(bool(fires))
        old = state.overview.age_ms()
        self._stale.set_visibility(old is not None and old > STALE_MS)
        self._as_of.set_text(
            "asking …" if old is None else f"as of {clock_time(state.overview.at_ms)} ({age(max(1_000, old))} ago)"
        )
        errors = "; ".join(f"{one.name}: {one.error}" for one in state.polls if one.error)
        self._errors.set_text(legible(errors[:600]))


def console_page(state: ConsoleState, check_access: AccessCheck, *, keys: bool) -> Callable[[], None]:
    """Return the function that builds the page for each visitor; with `keys` there is a button to sign out."""

    def build() -> None:
        ui.page_title("headwater")
        Page(state, check_access, keys)

    return build
