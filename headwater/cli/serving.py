"""The command `serve`: the query API and the console."""

import sys

import typer

from headwater.errors import UsageError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(serve)


def serve() -> None:
    """Serve views over HTTP, and the console at /, until SIGTERM. Settings are HEADWATER_SERVE_… variables."""
    from headwater.cli.services import open_services
    from headwater.logs import to_stdout

    try:
        from headwater.serving.server import make_service
        from headwater.serving.server import serve as run
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("headwater", "processors", "producers", "sinks"):
            raise
        raise UsageError(f"the query API needs {error.name}: pip install 'headwater[web]'") from None
    services = open_services()
    to_stdout(services.settings.log_level, sys.stderr)
    settings = services.settings

    def started(url: str) -> None:
        sys.stdout.write(f"views at {url}/v1/views\n")
        sys.stdout.flush()

    run(make_service(services), settings, started)
