"""`headwater replay`: a new pipeline filled from the lake of the one in the settings."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(replay)


def replay(
    into: Annotated[str, typer.Option(help="The new pipeline, `module:object` or `file.py:object`.")],
    rate: Annotated[float, typer.Option(min=0.0, help="Events a second at most; 0 is as fast as it goes.")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Fill a new pipeline from the lake; started afterwards, it follows the stream from there. Killed, it resumes."""
    from headwater.cli.output import progress
    from headwater.cli.services import open_services
    from headwater.errors import Retryable
    from processors.backfill import backfill
    from processors.pipeline import load
    from processors.services import Services, new_owner

    source = open_services()
    target, owner = Services(source.settings, load(into)), new_owner()
    publisher = source.publisher(owner)

    def settle() -> None:
        try:
            publisher.step()
        except Retryable as error:
            sys.stderr.write(f"{error}\n")
        source.clock.sleep(0.5)

    with progress("replaying", None, source.clock) as advance:
        found = backfill(source, target, owner, settle, rate or None, advance)
    publisher.release()
    text = (
        f"{found.rows:,} events from {found.source} to {found.target}, which follows {found.shards} shards from there"
    )
    sys.stdout.write((json.dumps(asdict(found)) if as_json else text) + "\n")
