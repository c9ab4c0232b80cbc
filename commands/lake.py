"""Define the groups of commands `lake` and `dlq`, and the commands on dead letters: `dlq list` and `dlq redrive`."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.commands.options import Json
from headwater.errors import UsageError

if TYPE_CHECKING:
    from headwater.sinks.deadletter import DeadLetter

__all__ = ["lake", "register"]

lake = typer.Typer(help="Query and look after the lake, Iceberg tables on S3.", no_args_is_help=True)
dlq = typer.Typer(help="List and redrive dead letters: what could not be processed, and why.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.add_typer(lake, name="lake")
    app.add_typer(dlq, name="dlq")


@dlq.command("list")
def dlq_list(as_json: Json = False) -> None:
    """List the dead letters that wait, by shard and sequence number."""
    from headwater.commands.output import print_rows
    from headwater.commands.services import open_services

    services = open_services()
    rows = (_row(letter, whole=as_json) for letter in services.letters.list(services.pipeline.name))
    print_rows(rows, as_json=as_json, empty=f"no dead letters of pipeline {services.pipeline.name}")


@dlq.command()
def redrive(
    ids: Annotated[list[str] | None, typer.Option("--id", help="A letter, as `dlq list` names it.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every letter that waits.")] = False,
    as_json: Json = False,
) -> None:
    """Put letters on the stream again, once what was wrong is put right; they move to redriven/ in the bucket."""
    from headwater.commands.output import print_json
    from headwater.commands.services import open_services
    from headwater.producers.redriving import Redrive

    if every == bool(ids):
        raise UsageError("dlq redrive: give either --all or --id, once for each letter")
    services = open_services()
    unknown = set(ids or ())
    for letter in services.letters.list(services.pipeline.name) if ids else ():
        unknown.discard(letter.name)
    if unknown:
        raise UsageError(f"no dead letter {min(unknown)!r} waits; `headwater dlq list` names them")
    redriving = Redrive(services.kinesis, services.settings.stream, services.pipeline.contract, services.clock)
    sent = services.letters.redrive(services.pipeline.name, redriving.put, ids)
    if as_json:
        print_json({"sent": sent})
    else:
        sys.stdout.write(f"{sent:,} sent again\n")


def _row(letter: "DeadLetter", *, whole: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"id": letter.name, "reason": letter.reason}
    try:
        payload: str = letter.payload.decode()
    except UnicodeDecodeError:
        payload = f"({len(letter.payload):,} bytes)"
    if not whole:
        return row | {"payload": payload if len(payload) <= 60 else payload[:59] + "…"}
    return row | {
        "contract": letter.contract,
        "arrived_ms": letter.arrived_ms,
        "bytes": len(letter.payload),
        "payload": payload,
    }
