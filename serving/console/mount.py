"""Put the console on a FastAPI app."""

from fastapi import FastAPI
from nicegui import ui

from headwater.serving.console.gate import LoginGate
from headwater.serving.console.page import console_page
from headwater.serving.console.state import ConsoleState

__all__ = ["mount_console"]

_AWAY_SECONDS = 20.0
"""Time that a browser may be out of reach, or too busy to answer, and find its page as it was."""


def mount_console(app: FastAPI, state: ConsoleState, gate: LoginGate) -> None:
    """Serve the page at `/`. Once in a process, since NiceGUI has one set of pages. The app's own routes go first."""
    ui.page("/", title="headwater", language="en-US")(console_page(state, gate.refusal, keys=gate.keys))
    ui.run_with(
        app,
        title="headwater",
        dark=None,
        language="en-US",
        reconnect_timeout=_AWAY_SECONDS,
        show_welcome_message=False,
    )
