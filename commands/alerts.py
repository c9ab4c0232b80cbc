"""Define the command `alerts`: the service that judges views and publishes what changes, and the list of it."""

import dataclasses
from typing import Annotated

import typer

from headwater.commands.options import Json
from headwater.commands.services import open_services, stop_on_signals

__all__ = ["register"]

alerts = typer.Typer(help="Judge the pipeline's alert rules, publish what changes, list what fires.")


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.add_typer(alerts, name="alerts")


@alerts.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Judge what is final by now, publish, and end.")] = False,
) -> None:
    """Run the service until SIGTERM, with JSON logs. Where changes go is HEADWATER_ALERTS_TO."""
    if context.invoked_subcommand is not None:
        return
    from headwater.commands.output import print_json
    from headwater.errors import HeadwaterError
    from headwater.processors.alerts.publishers import publish_to
    from headwater.processors.alerts.service import Alerts
    from headwater.processors.services import new_owner
    from headwater.telemetry.logs import to_stdout

    services = open_services()
    settings = services.settings
    service = Alerts(services.alert_ports, publish_to(settings.alerts_to, services.client), new_owner())
    if not once:
        to_stdout(settings.log_level)
        service.run(stop_on_signals(), settings.alerts_seconds)
        return
    done = service.once()
    if done is None:
        raise HeadwaterError("another alerts service leads: it judges and publishes")
    print_json({name: number for name, number in dataclasses.asdict(done).items() if name != "behind"})
    if done.waiting:
        raise HeadwaterError(f"{done.waiting} changes were refused and wait: they are published when called again")


@alerts.command("list")
def list_(
    as_json: Json = False,
) -> None:
    """List what fires, what is about to, and what has been cleared, by alert and key."""
    from headwater.commands.output import print_rows
    from headwater.processors.alerts.store import alert_rows

    services = open_services()
    pipeline = services.pipeline
    rows = alert_rows(pipeline.name, pipeline.alerts, services.alerts)
    print_rows(rows, as_json=as_json, empty="nothing has fired")
