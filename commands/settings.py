"""Define the command `settings`: what this process would run with, and where each value comes from."""

import typer

from headwater.commands.options import Json

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(settings)


def settings(as_json: Json = False) -> None:
    """List all settings with their value, default and source; secrets are hidden."""
    from headwater.commands.output import print_rows
    from headwater.config import list_settings, read_settings

    print_rows(list_settings(read_settings()), as_json=as_json, empty="there are none")
