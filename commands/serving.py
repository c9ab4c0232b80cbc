"""Define the commands `serve`, which opens what the query API and the console read, and `dashboard`."""

import sys
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import typer

from headwater.errors import UsageError

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from headwater.processors.services import Services
    from headwater.serving.api.reading import ViewReader
    from headwater.serving.console.collector import ConsoleSources
    from headwater.serving.console.state import ConsoleState

__all__ = ["open_console", "open_reader", "open_service", "open_sources", "register"]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(serve)
    app.command()(dashboard)


def dashboard() -> None:
    """Print a dashboard for Grafana, to be imported there, over Prometheus and the query API."""
    from importlib.resources import files

    sys.stdout.write((files("headwater.serving") / "grafana.json").read_text())


def serve() -> None:
    """Serve views over HTTP, and the console at /, until SIGTERM. Settings are HEADWATER_SERVE_… variables."""
    from headwater.commands.services import open_services
    from headwater.telemetry.logs import to_stdout

    try:
        from headwater.serving.api.server import serve as run
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "headwater":
            raise
        raise UsageError(f"the query API needs {error.name}: pip install 'headwater[web]'") from None
    services = open_services()
    to_stdout(services.settings.log_level, sys.stderr)
    settings = services.settings

    def started(url: str) -> None:
        sys.stdout.write(f"views at {url}/v1/views\n")
        sys.stdout.flush()

    run(open_service(services), settings, started)


def open_service(services: "Services", *, console: bool | None = None) -> Any:
    """Return the ASGI app of the query API and the console; `console` overrides HEADWATER_SERVE_CONSOLE."""
    from headwater.serving.api.server import check_settings, make_service

    wanted = services.settings.serve
    check_settings(wanted)
    has_console = wanted.console if console is None else console
    state = open_console(services) if has_console else None
    reader = open_reader(_with_short_timeouts(services))
    return make_service(services.settings, services.clock, reader, state)


def open_reader(services: "Services") -> "ViewReader":
    """Return the reader of the query API over a pipeline's tables."""
    from headwater.serving.api.reading import ViewReader

    return ViewReader(
        services.pipeline,
        services.ledger,
        services.stream_client,
        services.views,
        services.alerts,
        services.clock,
        services.settings.idle_seconds,
    )


def open_console(services: "Services") -> "ConsoleState":
    """Return the console's state. It reads through clients of its own, and acts through those of `services`."""
    from headwater.serving.console.collector import Collector
    from headwater.serving.console.controls import Controls
    from headwater.serving.console.state import ConsoleState

    # an act waits longer than a look: an answer that is not waited for may have been a yes
    controls = Controls(services.stores, services.stream_client, enabled=services.settings.serve.controls)
    return ConsoleState(Collector(open_sources(_with_short_timeouts(services))), controls, services.clock)


def open_sources(services: "Services") -> "ConsoleSources":
    """Return what the console reads, of these services."""
    from headwater.processors.audit.run import run_audit
    from headwater.serving.console.collector import ConsoleSources

    return ConsoleSources(
        stores=services.stores,
        stream=services.stream_client,
        views=services.views,
        alerts=services.alerts,
        open_table=_table_opener(services),
        audit=lambda: run_audit(services.reader),
        idle_seconds=services.settings.idle_seconds,
    )


def _with_short_timeouts(services: "Services") -> "Services":
    """Return the same services with clients that give up within seconds: the page says how old its answers are, and
    who asks the API is told to come again."""
    from headwater.aws import client
    from headwater.processors.services import Services

    class _ShortTimeouts(Services):
        def client(self, service: str) -> Any:
            once_more = {"mode": "standard", "total_max_attempts": 2}
            return client(service, self.settings, connect_timeout=2, read_timeout=8, retries=once_more)

    return _ShortTimeouts(services.settings, services.pipeline, services.clock)


def _table_opener(services: "Services") -> "Callable[[], Table]":
    """Return a function that loads the lake's table through one catalog, which is opened when first used."""

    @cache  # an error is not cached: the next call opens the catalog anew
    def catalog() -> Any:
        from headwater.sinks.lake.catalogs import open_catalog

        return open_catalog(services.settings)

    def open_newest() -> "Table":
        from headwater.sinks.lake.catalog import open_table

        return open_table(services.settings, services.pipeline.lake_to.table, catalog())

    return open_newest
