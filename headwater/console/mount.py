"""The console on a FastAPI app."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from nicegui import ui

from headwater.console.collector import Collector
from headwater.console.page import Shared, console_page
from processors.services import Services

__all__ = ["mount"]


def mount(app: FastAPI, services: Services) -> None:
    """Serve the page at `/`. Once in a process: NiceGUI has one set of pages. The app's own routes go first."""
    shared = Shared(Collector(services))
    ui.page("/", title="headwater")(console_page(shared))
    before = app.router.lifespan_context

    @asynccontextmanager
    async def looking(app: FastAPI) -> AsyncIterator[Any]:
        async with before(app) as state:
            task = asyncio.create_task(shared.keep_looking())
            try:
                yield state
            finally:
                task.cancel()

    app.router.lifespan_context = looking
    ui.run_with(app, title="headwater", dark=None, show_welcome_message=False)
