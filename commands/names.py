"""Define the commands `names list` and `names release`: the lake tables and views that pipelines own."""

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from headwater.commands.options import Json

__all__ = ["register"]

names = typer.Typer(help="Show and release the lake tables and views that pipelines own.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.add_typer(names, name="names")


@names.command("list")
def list_(as_json: Json = False) -> None:
    """List the lake tables and views, with the pipeline that owns each."""
    from headwater.commands.output import print_rows
    from headwater.commands.services import open_services
    from headwater.processors.definition.claims import claimed_names

    rows = [asdict(one) for one in claimed_names(open_services().registry)]
    print_rows(rows, as_json=as_json, empty="no pipeline has started yet")


@names.command()
def release(
    pipeline: Annotated[str, typer.Argument(help="The pipeline that is gone for good, or that gives names away.")],
) -> None:
    """Release all that a pipeline owns, so that another may own it. Files and rows stay. Stop the pipeline first."""
    from headwater.commands.services import open_services
    from headwater.processors.definition.claims import release_names

    count = release_names(open_services().registry, pipeline)
    sys.stdout.write(
        f"{count} names of pipeline {pipeline} released; its next start claims those that are still free\n"
    )
