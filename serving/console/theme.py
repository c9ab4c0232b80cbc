"""Set colours and style sheet. Text has a contrast of 4.5 or more to its ground, in the light and in the dark."""

from typing import Any

from nicegui import ui

from headwater.serving.console.places import SECTIONS
from headwater.web.palette import BRAND, SERIES_COUNT, dark_variables, light_variables

__all__ = ["COLD", "GRID", "HOT", "INK", "PAPER", "SERIES", "UNKNOWN", "WARM", "apply_theme", "toggle_dark"]

COLD, WARM, HOT, UNKNOWN = BRAND, "#8a5a00", "#b3261e", "#5a6472"
"""Grounds for white text."""
INK, PAPER, GRID = "var(--ink)", "var(--paper)", "var(--grid)"
SERIES = tuple(f"var(--series-{number})" for number in range(SERIES_COUNT))
_ONE_SECTION = "".join(f"body[data-at={section}] .places > [data-place={section}]," for section in SECTIONS).rstrip(",")
"""The section that the page's URL names."""


# what is important in an early layer outdoes what is so in Quasar's
_STYLE = f"""
body {{ {light_variables()} background: var(--ground); color: var(--ink); }}
body.body--dark {{ {dark_variables()} }}
.q-card {{ background: var(--paper) !important; border: 1px solid var(--grid); box-shadow: none !important; }}
.places > [data-place] {{ scroll-margin-top: 7rem; }}
body[data-alone] .places > [data-place] {{ display: none; }}
@media (max-width: 599px) {{ .places > [data-place] {{ display: none; }} }}
{_ONE_SECTION} {{ display: flex !important; }}
nav.sections {{ width: 100%; display: flex; flex-wrap: wrap; gap: 0 0.25rem; }}
nav.sections a {{ color: #fff; text-decoration: none; white-space: nowrap; padding: 0.2rem 0.6rem; }}
nav.sections a {{ border-radius: 4px; }}
nav.sections a:hover {{ text-decoration: underline; }}
nav.sections a[aria-current] {{ background: #fff; color: {BRAND}; }}
svg.spark {{ width: 100%; height: 16px; fill: none; stroke: #fff; stroke-width: 1.2; opacity: 0.8; }}
svg.heat {{ display: block; width: 100%; height: 90px; padding: 0 8px; }}
svg.heat rect {{ stroke: var(--paper); stroke-width: 1; vector-effect: non-scaling-stroke; }}
.q-table__card {{ background: transparent !important; }}
.q-loading-bar {{ display: none; }}
.failed {{ color: var(--bad); }}
a.inward {{ color: var(--link); text-decoration: underline; }}
button.sorts {{ font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }}
.q-table th .q-icon {{ opacity: 0; }}
.q-table th.sorted .q-icon, .q-table th:hover .q-icon {{ opacity: 0.8; }}
@layer base {{
  body.body--dark .text-grey-8 {{ color: var(--ink) !important; }}
  :focus-visible {{ outline: 3px solid var(--focus) !important; outline-offset: 2px; }}
  header :focus-visible {{ outline-color: #fff !important; }}
}}
body.body--dark .text-primary {{ --q-primary: #8ab8f0; }}
body.body--dark .text-negative {{ --q-negative: #ff9d94; }}
.q-table__grid-item-row {{ display: flex; justify-content: space-between; gap: 1rem; padding: 1px 0; }}
.q-table__grid-item-title {{ opacity: 0.8; white-space: nowrap; }}
.q-table__grid-item-value {{ text-align: right; overflow-wrap: anywhere; }}
.q-table__grid-item-card {{ border-top: 1px solid var(--grid); box-shadow: none; border-radius: 0; padding: 8px 0; }}
.q-table__bottom--nodata .q-icon {{ display: none; }}
.q-field__label, .q-field__native, .q-table__bottom {{ color: var(--ink) !important; }}
.q-table td:last-child {{ overflow-wrap: anywhere; }}
.as-written {{ white-space: pre-wrap; overflow-wrap: anywhere; font-family: monospace; }}
"""


def apply_theme() -> Any:
    """Set the page's colours; return the switch between light and dark, as the visitor set it last."""
    ui.colors(primary=COLD, positive="#1b7a35", negative=HOT, warning=WARM, info="#00707a")
    ui.add_css(_STYLE)
    request = ui.context.client.request
    chosen = request.cookies.get("headwater_dark") if request is not None else None
    return ui.dark_mode(value=None if chosen is None else chosen == "1")


async def toggle_dark(dark: Any) -> None:
    """Switch between light and dark; the browser keeps the choice in a cookie."""
    try:
        wanted = not await ui.run_javascript("Quasar.Dark.isActive")
    except TimeoutError:  # a browser that is slow: the visitor presses again
        return
    dark.set_value(wanted)
    ui.run_javascript(f"document.cookie='headwater_dark={int(wanted)};path=/;max-age=31536000;samesite=strict'")
