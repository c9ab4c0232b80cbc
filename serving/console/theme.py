"""Set colours and style sheet. Text has a contrast of 4.5 or more to its ground, in the light and in the dark."""

from typing import Any

from nicegui import ui

__all__ = ["COLD", "GRID", "HOT", "INK", "PAPER", "SERIES", "UNKNOWN", "WARM", "apply_theme", "toggle_dark"]

COLD, WARM, HOT, UNKNOWN = "#1d5fa8", "#8a5a00", "#b3261e", "#5a6472"
"""Grounds for white text."""
INK, PAPER, GRID = "var(--ink)", "var(--paper)", "var(--grid)"
SERIES = tuple(f"var(--series-{number})" for number in range(8))
_LIGHT = ("#1d5fa8", "#b34700", "#1b7a35", "#7b3fa0", "#a3195b", "#00707a", "#6b5b00", "#4a5568")
_DARK = ("#7db4f0", "#ffab66", "#6fd08c", "#c79be8", "#ff8fb8", "#5fd0da", "#d8c44a", "#b8c2cf")


def _variables(ink: str, paper: str, grid: str, focus: str, series: tuple[str, ...]) -> str:
    named = {"ink": ink, "paper": paper, "grid": grid, "focus": focus}
    named |= {f"series-{number}": colour for number, colour in enumerate(series)}
    return "".join(f"--{name}:{value};" for name, value in named.items())


# what is important in an early layer outdoes what is so in Quasar's
_STYLE = f"""
body {{ {_variables("#3d4653", "#ffffff", "#dde2e8", "#b34700", _LIGHT)} }}
body.body--dark {{ {_variables("#cfd6df", "#1d1d1d", "#3a4149", "#ffbf47", _DARK)} }}
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
