"""The console on a FastAPI app."""

from fastapi import FastAPI
from nicegui import ui

from headwater.console.collector import Collector, Looking
from headwater.console.gate import Gate
from headwater.console.page import console_page
from headwater.console.shared import Shared
from processors.services import Services

__all__ = ["mount"]


def mount(app: FastAPI, services: Services, gate: Gate) -> None:
    """Serve the page at `/`. Once in a process: NiceGUI has one set of pages. The app's own routes go first."""
    looking = Looking(services.settings, services.pipeline, services.clock)
    shared = Shared(Collector(looking, acting=services), services.clock)
    ui.page("/", title="headwater")(console_page(shared, gate.refusal, keys=gate.keys))
    ui.run_with(app, title="headwater", dark=None, show_welcome_message=False)
